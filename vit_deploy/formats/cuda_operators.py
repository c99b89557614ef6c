"""Quantized operators of ONNX files, and what the CUDA provider of ONNX Runtime does with each.

After docs/OperatorKernels.md of microsoft/onnxruntime, which lists the kernels of each provider by type. There are no
int8 kernels in it for what quantized files of a ViT ask: products of uint8 and int8 are only for the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

TO_THE_CPU = "left to the CPU, with copies there and back, for want of a kernel"
IN_FLOAT = "computed on the GPU in float: products between them are not int8"
FOUR_BITS = "computed on the GPU: CUDA has kernels for weights of 4 bits"

ON_CUDA: Mapping[str, str] = MappingProxyType(
    {
        "DynamicQuantizeLinear": TO_THE_CPU,
        "MatMulInteger": TO_THE_CPU,  # CUDA's is for int8 on both sides, and what is quantized as it runs is uint8
        "ConvInteger": TO_THE_CPU,
        "QLinearMatMul": TO_THE_CPU,
        "QLinearConv": TO_THE_CPU,
        "com.microsoft.DynamicQuantizeMatMul": TO_THE_CPU,
        "com.microsoft.MatMulIntegerToFloat": TO_THE_CPU,
        "QuantizeLinear": IN_FLOAT,
        "DequantizeLinear": IN_FLOAT,
        "com.microsoft.MatMulNBits": FOUR_BITS,
    }
)


@dataclass(frozen=True)
class OnCuda:
    """What becomes of some operators.

    Args:
        operator: the name of the operators.
        count: the number of such operators.
        fate: what happens to them, in words.
    """

    operator: str
    count: int
    fate: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(vars(self))


def on_cuda(operators: Mapping[str, int]) -> tuple[OnCuda, ...]:
    """The quantized operators of an ONNX file on CUDA, in the file's order; empty for one that computes in float.

    Args:
        operators: counts by name, with the domain before those that are not standard.
    """
    return tuple(OnCuda(name, count, ON_CUDA[name]) for name, count in operators.items() if name in ON_CUDA)
