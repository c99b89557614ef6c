"""Ratios of what was measured in the same rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any


def median_ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    """The median over all rounds of one figure over the other: what slows a round slows it for both.

    Args:
        ones: a figure a round.
        others: those that they are divided by.
    """
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def round_medians(entries: Sequence[Mapping[str, Any]], kind: Mapping[str, object]) -> list[float]:
    """The median of the samples of each round, in ns.

    Args:
        entries: as `latency` makes them.
        kind: what the entry is that is meant.
    """
    found = next(entry for entry in entries if all(entry[name] == value for name, value in kind.items()))
    return [statistics.median(samples) for samples in found["samples_ns"]]
