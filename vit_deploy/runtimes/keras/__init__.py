"""Keras as the runtime of checkpoint files."""
