"""Checkpoints as SavedModels."""
