"""TensorRT plans as a runtime."""
