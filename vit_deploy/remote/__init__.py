"""Artifacts proven and timed on other machines."""
