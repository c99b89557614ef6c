"""Checkpoints as TFLite files, and those files quantized."""
