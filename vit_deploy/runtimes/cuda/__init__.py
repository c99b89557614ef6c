"""The CUDA driver by ctypes: cards, memory, streams."""
