"""What one has to know of how a GPU runs a precision in ONNX Runtime, in words."""

from __future__ import annotations

ON_GPU: dict[tuple[str, str], str] = {
    ("cuda", "int8"): (
        "CUDA's provider cannot quantize activations as it runs (DynamicQuantizeLinear): those of each layer are "
        "copied to the CPU, quantized there, and copied back"
    ),
    ("cuda", "int8-static"): (
        "CUDA's provider has no int8 products: it dequantizes and multiplies in float, so int8-static makes the file "
        "smaller and the answer no faster"
    ),
    ("tensorrt", "int8"): (
        "TensorRT cannot quantize activations as it runs (DynamicQuantizeLinear): it takes the model in parts, and the "
        "quantizing is the CPU's"
    ),
    ("tensorrt", "int4"): (
        "TensorRT does not know the products with 4-bit weights (MatMulNBits): it takes the model in parts, and these "
        "products are CUDA's"
    ),
}


def notes_on(provider: str, precision: str) -> tuple[str, ...]:
    """Notes on a precision with a provider; empty where there is nothing to say."""
    found = ON_GPU.get((provider, precision))
    return () if found is None else (found,)
