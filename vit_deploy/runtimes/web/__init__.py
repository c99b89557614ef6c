"""Browsers as a runtime, with the engines that npm brings: ONNX Runtime Web and LiteRT.js."""
