"""Kinds of files that hold named tensors."""
