"""Whether an artifact still computes the function of its checkpoint."""
