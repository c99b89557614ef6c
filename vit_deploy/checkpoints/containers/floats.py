"""Float types that NumPy does not have, as float32: bfloat16 and the floats of eight bits."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.weights import Float32

FLOAT8: Mapping[str, tuple[int, int, str]] = {
    "float8_e4m3fn": (4, 7, "last"),
    "float8_e5m2": (5, 15, "ieee"),
    "float8_e4m3fnuz": (4, 8, "minus zero"),
    "float8_e5m2fnuz": (5, 16, "minus zero"),
}
"""By torch's name: bits of the exponent, its bias, and which bits are no number.

`ieee`: infinity and NaN where the exponent is all ones; `last`: NaN where all bits but the sign are ones;
`minus zero`: NaN in place of minus zero.
"""


def widened(bits: NDArray[np.uint16]) -> Float32:
    """Bfloat16, given as its bits, to float32: the same bits with zeros behind them."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def eighth(bits: NDArray[np.uint8], dtype: str) -> Float32:
    """Floats of eight bits, given as their bits, to float32, which holds each of them exactly.

    Args:
        bits: of any shape.
        dtype: key of `FLOAT8`.
    """
    values: Float32 = _float8_values(dtype)[bits]
    return values


@functools.cache
def _float8_values(dtype: str) -> Float32:
    exponent_bits, bias, special = FLOAT8[dtype]
    mantissa_bits = 7 - exponent_bits
    codes = np.arange(256)
    sign = np.where(codes & 0x80, -1.0, 1.0)
    exponent = (codes & 0x7F) >> mantissa_bits
    mantissa = (codes & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    normal = (1 + mantissa) * 2.0 ** (exponent - bias)
    values = sign * np.where(exponent == 0, mantissa * 2.0 ** (1 - bias), normal)
    if special == "ieee":
        values = np.where(exponent == (1 << exponent_bits) - 1, np.where(mantissa == 0, sign * np.inf, np.nan), values)
    elif special == "last":
        values = np.where(codes & 0x7F == 0x7F, np.nan, values)
    else:
        values = np.where(codes == 0x80, np.nan, values)
    return values.astype(np.float32)
