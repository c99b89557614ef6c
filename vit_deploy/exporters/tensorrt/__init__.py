"""ONNX artifacts as TensorRT plans and as models of a Triton server."""
