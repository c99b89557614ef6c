"""Qualcomm's Hexagon processors as the runtime of ONNX artifacts, on the chip itself or emulated."""
