"""An ONNX file of integers as ONNX Runtime computes it on an x86 processor without VNNI, in NumPy.

Its kernels there multiply unsigned activations by signed weights with saturating pairs; see `saturation`. Other
combinations of signs have kernels that are exact. Compared with ONNX Runtime under QEMU's Haswell, single products
agree bit by bit, and whole models to a third of a decibel of noise. Those for AVX-512 before VNNI pack inputs in
the same fours, by its sources; QEMU does not execute them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnx.reference.op_run import OpRun

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.saturation import saturated_product
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.simulators import NO_VNNI
from vit_deploy.runtimes.simulators.onnx_session import Erf, Gelu, SimulatedSession, read_model
from vit_deploy.runtimes.values import quantized

DOMAIN = "vit_deploy.simulated"
NO_ZERO = np.uint8(0)
SIGN = 128  # by which ONNX Runtime makes signed activations unsigned when it loads a file


class OnnxWithoutVnni:
    """The simulated engine; only files of integers are other than elsewhere."""

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[SimulatedSession]:
        """Load an artifact.

        Raises:
            EngineError: a file that the onnx package cannot read or run.
        """
        model = read_model(artifact)
        _with_integer_products(model.graph)
        model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
        yield SimulatedSession(NO_VNNI, model, OPERATORS, artifact)


def _with_integer_products(graph: onnx.GraphProto) -> None:
    """Put one node in the place of each product whose factors are integers in between, as the engine does."""
    makers = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        factors = [makers.get(name) for name in node.input[:2]]
        if node.op_type not in ("Gemm", "MatMul") or len(node.input) != 2:
            continue
        if all(factor is not None and factor.op_type == "DequantizeLinear" for factor in factors):
            inputs = [name for factor in factors if factor is not None for name in factor.input]
            node.CopyFrom(helper.make_node("QuantizedProduct", inputs, node.output, node.name, domain=DOMAIN))


def _product(left: NDArray[Any], right: NDArray[Any], left_zero: Any, right_zero: Any) -> NDArray[np.int64]:
    """`(left - left_zero) @ (right - right_zero)`, the integers multiplied as they are stored."""
    rows = left.reshape(-1, left.shape[-1])
    if rows.dtype == np.uint8 and right.dtype == np.int8:
        stored = saturated_product(rows, right)
    else:
        stored = np.rint(rows.astype(np.float64) @ right.astype(np.float64)).astype(np.int64)
    left_zero, right_zero = np.int64(left_zero), np.asarray(right_zero, np.int64)
    by_row, by_column = rows.sum(axis=1, dtype=np.int64)[:, None], right.sum(axis=0, dtype=np.int64)
    sums = stored - left_zero * by_column - right_zero * by_row + left.shape[-1] * left_zero * right_zero
    result: NDArray[np.int64] = sums.reshape(*left.shape[:-1], right.shape[-1])
    return result


class MatMulInteger(OpRun):  # type: ignore[misc]
    """The operator of dynamically quantized layers."""

    def _run(self, a: Any, b: Any, a_zero_point: Any = 0, b_zero_point: Any = 0) -> tuple[NDArray[np.int32]]:
        return (_product(a, b, a_zero_point, b_zero_point).astype(np.int32),)


class QuantizedProduct(OpRun):  # type: ignore[misc]
    """A product between two `DequantizeLinear`, computed of the integers."""

    op_domain = DOMAIN

    def _run(self, a: Any, a_scale: Any, a_zero: Any, b: Any, b_scale: Any, b_zero: Any) -> tuple[NDArray[np.float32]]:
        if a.dtype == np.int8:
            a, a_zero = (a.astype(np.int16) + SIGN).astype(np.uint8), np.int64(a_zero) + SIGN
        return (_product(a, b, a_zero, b_zero).astype(np.float32) * (a_scale * b_scale).astype(np.float32),)


class QuantizeLinear(OpRun):  # type: ignore[misc]
    """To integers at one scale; the onnx package has it only for newer operator sets."""

    def _run(self, x: Any, scale: Any, zero: Any = NO_ZERO, **attributes: Any) -> tuple[NDArray[Any]]:
        return (quantized(x, float(scale), int(zero), np.asarray(zero).dtype),)


class DequantizeLinear(OpRun):  # type: ignore[misc]
    """Back to floats, at one scale or one along an axis; likewise."""

    def _run(self, x: Any, scale: Any, zero: Any = 0, axis: int = 1, **attributes: Any) -> tuple[NDArray[np.float32]]:
        shape = [-1 if dimension == axis % x.ndim else 1 for dimension in range(x.ndim)] if np.size(scale) > 1 else []
        low = np.reshape(zero, shape if np.size(zero) > 1 else []).astype(np.float32)
        return ((x.astype(np.float32) - low) * np.reshape(scale, shape),)


OPERATORS = (MatMulInteger, QuantizedProduct, QuantizeLinear, DequantizeLinear, Erf, Gelu)
