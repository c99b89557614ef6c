"""Ranges of values worth their integers: all that was seen, nearly all, or what loses least."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.options.quantizing import Clipping

BINS = 1 << 16
CANDIDATES = 80  # shares of the full range that the search for the least error tries
SMALLEST = 0.2  # of them
USUAL = 0.95  # share of the values, the smallest, that count as what an outlier must not cost

Float32 = NDArray[np.float32]

NO_WORTH: NDArray[np.float64] = np.zeros(0)


@dataclass(frozen=True, eq=False)
class Observed:
    """What calibration saw of one tensor.

    Values are counted by the upper half of their float32 bits, which is the value in bfloat16: one pass over the
    images, no range to be known before, and a relative resolution of 1/128 everywhere.

    Args:
        low: smallest value.
        high: largest value.
        rank: the rank of the tensor.
        counts: the counts of values by their upper 16 bits; empty where only the range was asked for.
        worth: sums of the weights that errors of these values have; empty where all weigh the same.
    """

    low: float
    high: float
    rank: int
    counts: NDArray[np.int64]
    worth: NDArray[np.float64] = field(default_factory=lambda: NO_WORTH)

    def also(self, values: Float32, *, counted: bool, weights: Float32 | None = None) -> Observed:
        """With some values more, and how much an error of each weighs."""
        low, high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        if not counted:
            return Observed(low, high, values.ndim, self.counts)
        upper = np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint32) >> 16
        counts = np.bincount(upper, minlength=BINS)
        worth = NO_WORTH
        if weights is not None:
            worth = np.bincount(upper, weights.reshape(-1), minlength=BINS).astype(np.float64)
        if self.counts.size:
            counts, worth = self.counts + counts, self.worth + worth
        return Observed(low, high, values.ndim, counts, worth)


NOTHING = Observed(np.inf, -np.inf, 0, np.zeros(0, np.int64))


def clipped(seen: Observed, clipping: Clipping, *, bits: int, percentile: float) -> tuple[float, float]:
    """The range (low, high) that a tensor's integers stand for; it holds zero, which must be exact.

    Args:
        seen: what calibration has seen.
        clipping: the way to choose.
        bits: the bits of the integers.
        percentile: share of the values, in percent, that stays inside at either end.
    """
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if clipping is Clipping.MIN_MAX or not seen.counts.size or low == high:
        return low, high
    values, counts, worth = _distribution(seen)
    if clipping is Clipping.PERCENTILE:
        shares = np.cumsum(counts) / counts.sum()
        first = values[np.searchsorted(shares, 1 - percentile / 100)]
        last = values[min(int(np.searchsorted(shares, percentile / 100)), len(values) - 1)]
        return max(low, min(float(first), 0.0)), min(high, max(float(last), 0.0))
    return _least_error(values, worth, low, high, bits)


def signal_to_noise_db(seen: Observed, low: float, high: float, *, bits: int) -> float:
    """What is left of the usual values: their power over that of the error of all, rounded to the integers of a range.

    The largest twentieth is no signal here: massive activations would hide that nothing is left of all others.

    Args:
        seen: what calibration has seen, with counts.
        low: the value of the least integer, and
        high: that of the largest.
        bits: the bits of the integers.
    """
    values, counts, _ = _distribution(seen)
    step = (high - low) / (2**bits - 1)
    if step <= 0:
        return np.inf
    restored = np.rint((np.clip(values, low, high) - low) / step) * step + low
    noise = float((np.square(restored - values) * counts).sum()) / counts.sum()
    order = np.argsort(np.abs(values))
    usual = order[np.cumsum(counts[order]) <= USUAL * counts.sum()]
    signal = float((np.square(values[usual]) * counts[usual]).sum()) / max(int(counts[usual].sum()), 1)
    return float(10 * np.log10(signal / noise)) if noise and signal else np.inf


def symmetric(low: float, high: float) -> tuple[float, float]:
    """The narrowest range that holds this one and in which zero is the integer zero, of -128 to 127."""
    scale = (max(-low, high) or 1.0) / 127  # of nothing but zeros, any will do
    return -128 * scale, 127 * scale


def _distribution(seen: Observed) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Values in their order, each the middle of what was counted as one, how often, and what their errors weigh."""
    used = np.flatnonzero(seen.counts).astype(np.uint32)
    values = ((used << 16) | 0x8000).view(np.float32).astype(np.float64)
    values[used & 0x7FFF == 0] = 0
    order = np.argsort(values, kind="stable")
    worth = seen.worth if seen.worth.size else seen.counts.astype(np.float64)
    return values[order], seen.counts[used][order], worth[used][order]


def _least_error(
    values: NDArray[np.float64], worth: NDArray[np.float64], low: float, high: float, bits: int
) -> tuple[float, float]:
    best, chosen = np.inf, (low, high)
    for share in np.linspace(SMALLEST, 1, CANDIDATES)[::-1]:
        for one, other in ((low * share, high * share), (low, high * share), (low * share, high)):
            step = (other - one) / (2**bits - 1)
            restored = np.rint((np.clip(values, one, other) - one) / step) * step + one
            error = float((np.square(restored - values) * worth).sum())
            if error < best:
                best, chosen = error, (float(one), float(other))
    return chosen
