"""bfloat16, which NumPy does not have, as float32."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.weights import Float32


def widened(bits: NDArray[np.uint16]) -> Float32:
    """Bfloat16, given as its bits, to float32: the same bits with zeros behind them."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)
