"""Which kernels 16-bit floats can hold, and which they can scale."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LEAST = 1e-9  # the largest value that litert-quantizer takes at least; what is below becomes zero anyway
SMALLEST_NORMAL, LARGEST = float(np.finfo(np.float16).tiny), float(np.finfo(np.float16).max)
# Scales of blocks are 16-bit floats: of subnormal ones little is left, and past the largest there is infinity.
SMALLEST_KERNEL, LARGEST_KERNEL = 1e-5, 7 * 65280.0


def fits_half(kernel: NDArray[np.float32]) -> bool:
    """Whether 16-bit floats can hold every weight, and the largest with all their digits; zeros alone they can."""
    largest = float(np.abs(kernel).max(initial=0.0))
    return largest == 0 or SMALLEST_NORMAL <= largest <= LARGEST


def fits_blocks(kernel: NDArray[np.float32]) -> bool:
    """Whether 16-bit floats can scale blocks of 4-bit weights; those of a kernel of zeros alone they can."""
    largest = float(np.abs(kernel).max(initial=0.0))
    return largest <= LEAST or SMALLEST_KERNEL <= largest <= LARGEST_KERNEL
