"""ONNX files read without any engine."""
