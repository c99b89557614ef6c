"""Axes of figures: their range, ticks and number format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

WIDE_RANGE = 8.0  # between the largest and the smallest value, past which an axis is logarithmic
MOST_TICKS = 8  # of a logarithmic axis
FACTORS = (1, 2, 5)
MOST_BEYOND = 5.0  # times the largest median that an axis of latencies shows; what is beyond is clipped


def quantity(title: str, values: Sequence[float], *, from_zero: bool = True) -> dict[str, Any]:
    """An encoding of figures without its field.

    Args:
        title: the title with the unit.
        values: that it has to show.
        from_zero: whether its length tells; otherwise it shows the differences.
    """
    low, high = min(values), max(values)
    encoding = {"type": "quantitative", "title": title}
    if not from_zero:
        room = 0.1 * (high - low) or max(1.0, 0.05 * abs(high))
        start = max(0.0, low - room) if low >= 0 else low - room
        return {**encoding, "scale": {"domain": [start, high + room], "nice": False, "zero": False}}
    if not (low > 0 and high > WIDE_RANGE * low):
        return {**encoding, "scale": {"zero": True, "nice": True}}
    ticks = logarithmic_ticks(low, high)
    scale = {"type": "log", "domain": [ticks[0], ticks[-1]], "nice": False}
    form = "~g" if ticks[0] >= 1e-3 else ".0e"
    return {**encoding, "scale": scale, "axis": {"values": ticks, "format": form}}


def end_of_latencies(medians: Sequence[float]) -> float:
    """Where an axis of latencies ends at the latest, so that one call that stalled does not flatten all others."""
    return MOST_BEYOND * max(medians)


def logarithmic_ticks(low: float, high: float) -> list[float]:
    """Round numbers from at most `low` to at least `high`: 1, 2, 5, 10, …, or powers of ten where these are many."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    decades = [10.0**power for power in range(first, last + 1)]
    fine = [float(f"{factor}e{power}") for power in range(first, last + 1) for factor in FACTORS]
    start = max(index for index, tick in enumerate(fine) if tick <= low)
    end = min(index for index, tick in enumerate(fine) if tick >= high)
    kept = fine[start : end + 1]
    return kept if len(kept) <= MOST_TICKS else decades
