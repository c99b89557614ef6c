"""ONNX Runtime as a runtime, with its CUDA and TensorRT providers."""
