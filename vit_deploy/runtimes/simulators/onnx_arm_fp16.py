"""An ONNX file in fp16 as ONNX Runtime computes it on an Arm processor with half arithmetic, in NumPy.

There the sums of its products are kept in half precision: each product is added to the sum without rounding in between
(FMLA), and the sum is rounded to 11 bits, one input after the other, from the bias on. So a sum of ones ends at 2048.
Other processors, and x86, convert to float, multiply, and round once. Compared with ONNX Runtime 1.32 on QEMU's
Cortex-A76, MatMul and Gemm agree bit by bit. A GELU in half, as files of earlier versions have, is a polynomial there
that is off by up to 0.005; here it is exact but for the rounding of its steps, which is about 2 dB too kind.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx.reference.op_run import OpRun

from vit_deploy.core.activation_functions import gelu, gelu_tanh
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.erf import erf
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.simulators import ARM_FP16
from vit_deploy.runtimes.simulators.onnx_session import Erf, SimulatedSession, read_model

ROOT_OF_HALF = np.float16(0.5**0.5)


class OnnxOnArmInHalf:
    """The simulated engine; only what is computed in half precision is other than elsewhere."""

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[SimulatedSession]:
        """Load an artifact.

        Raises:
            EngineError: a file that the onnx package cannot read or run.
        """
        yield SimulatedSession(ARM_FP16, read_model(artifact), OPERATORS, artifact)


def half_product(left: NDArray[Any], right: NDArray[Any], start: Any = 0) -> NDArray[np.float16]:
    """`start + left @ right` with a sum in half precision.

    Args:
        left: `(…, rows, inputs)` in half precision.
        right: `(…, inputs, columns)` likewise.
        start: what sums begin with, that broadcasts to the result.
    """
    # The products, of 22 bits, and sums with them are exact in float64.
    left, right = left.astype(np.float64), right.astype(np.float64)
    shape = (*np.broadcast_shapes(left.shape[:-2], right.shape[:-2]), left.shape[-2], right.shape[-1])
    total = np.empty(shape, np.float16)
    total[...] = start
    exact = np.empty(shape, np.float64)
    with np.errstate(over="ignore", invalid="ignore"):  # half precision ends at 65504, which is what is looked for
        for index in range(left.shape[-1]):
            np.multiply(left[..., index : index + 1], right[..., index : index + 1, :], out=exact)
            np.add(exact, total, out=exact)
            total[...] = exact
    return total


class MatMul(OpRun):  # type: ignore[misc]
    """A product of matrices."""

    def _run(self, a: Any, b: Any) -> tuple[NDArray[Any]]:
        return (half_product(a, b) if a.dtype == np.float16 else a @ b,)


class Gemm(OpRun):  # type: ignore[misc]
    """A linear layer, whose sums begin with its bias."""

    def _run(
        self, a: Any, b: Any, c: Any = 0, alpha: float = 1.0, beta: float = 1.0, **transposed: int
    ) -> tuple[NDArray[Any]]:
        left, right = a.T if transposed.get("transA") else a, b.T if transposed.get("transB") else b
        if a.dtype != np.float16:
            return ((alpha * (left @ right) + beta * np.asarray(c)).astype(a.dtype),)
        if (alpha, beta) != (1.0, 1.0):
            raise NotImplementedError("a Gemm with alpha or beta")
        return (half_product(left, right, c),)


class Conv(OpRun):  # type: ignore[misc]
    """The convolution of the patches."""

    def _run(
        self,
        x: Any,
        w: Any,
        bias: Any = None,
        auto_pad: str = "NOTSET",
        dilations: Sequence[int] | None = None,
        group: int = 1,
        kernel_shape: Sequence[int] | None = None,
        pads: Sequence[int] | None = None,
        strides: Sequence[int] | None = None,
    ) -> tuple[NDArray[Any]]:
        if group != 1 or auto_pad not in ("NOTSET", "VALID") or any(step != 1 for step in dilations or ()):
            raise NotImplementedError("a convolution in groups, with dilations or with automatic padding")
        top, left, bottom, right = pads or (0, 0, 0, 0)
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
        height, width = strides or (1, 1)
        windows = np.lib.stride_tricks.sliding_window_view(padded, w.shape[2:], axis=(2, 3))[:, :, ::height, ::width]
        # Rows, columns, channels: as the engine, which turns channels last, goes through a window.
        rows = windows.transpose(0, 2, 3, 4, 5, 1).reshape(-1, w[0].size)
        kernel = w.transpose(2, 3, 1, 0).reshape(-1, len(w))
        start = 0 if bias is None else bias
        found = half_product(rows, kernel, start) if x.dtype == np.float16 else (rows @ kernel + start).astype(x.dtype)
        return (found.reshape(len(x), *windows.shape[2:4], len(w)).transpose(0, 3, 1, 2),)


class Gelu(OpRun):  # type: ignore[misc]
    """The activation function, each step of which is rounded to half precision."""

    def _run(self, x: Any, approximate: str = "none") -> tuple[NDArray[Any]]:
        exact = gelu_tanh if approximate == "tanh" else gelu
        if x.dtype != np.float16 or approximate == "tanh":
            return (exact(x.astype(np.float32)).astype(x.dtype),)
        share = erf((x * ROOT_OF_HALF).astype(np.float32)).astype(np.float16)
        share = (share.astype(np.float32) * np.float32(0.5) + np.float32(0.5)).astype(np.float16)
        return ((x * share).astype(np.float16),)


OPERATORS = (MatMul, Gemm, Conv, Gelu, Erf)
