"""Checkpoints as ONNX files, and those files quantized."""
