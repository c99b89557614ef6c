"""A model card in the form of the hub: what the files are, how they were proven, and what was measured, and no more."""
