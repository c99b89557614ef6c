"""Model files read without their engine."""
