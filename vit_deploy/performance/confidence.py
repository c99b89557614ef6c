"""Confidence intervals of a median, of the ratio of two, and of a fraction.

The bootstrap (Efron 1979) draws rounds first and then calls within each: calls of one round share what the machine did
meanwhile, and cases that took turns in the same rounds share it too, so that their ratio is drawn round by round. A
round gives a draw as many calls as it had, and rounds are drawn until there are as many calls as were measured: one
that stalled after a single call weighs no more in a draw than it does in the median.
Percentiles of draws from a few rounds promise more than they hold (of 95 %, five rounds hold some 87): they are taken
further out, as Student's t asks for so many rounds (the expanded percentile interval of Hesterberg 2015).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
DRAWS = 1000
MOST_CALLS = 500  # of one round in one draw
SPARE = 32  # rounds that a draw has beyond the usual number, for where it gets short ones
SEED = 20221122  # the same samples give the same interval

Rounds = Sequence[Sequence[int]]
"""Nanoseconds of each call, round by round."""


@dataclass(frozen=True)
class Interval:
    """Where the true value lies with the confidence of `LEVEL`."""

    low: float
    high: float

    def excludes(self, value: float) -> bool:
        """Whether `value` is not a matter of chance."""
        return not self.low <= value <= self.high

    def scaled(self, factor: float) -> Interval:
        """The interval in another unit."""
        return Interval(self.low * factor, self.high * factor)


def median_interval(rounds: Rounds) -> Interval | None:
    """The interval of the median of all calls; None for so few that even fastest to slowest is not as sure."""
    if 2 * 0.5 ** sum(map(len, rounds)) > 1 - LEVEL:  # that all calls lie on the same side of the true median
        return None
    return _interval(_medians(rounds, _choices(len(rounds)), np.random.default_rng(SEED)), _units(rounds))


def fraction_interval(fraction: float, count: int) -> Interval:
    """The interval of a fraction of `count` independent trials, after Wilson 1927."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    middle = (fraction + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(fraction * (1 - fraction) / count + (z / (2 * count)) ** 2)
    return Interval(max(0.0, middle - half), min(1.0, middle + half))


def ratio_interval(rounds: Rounds, base: Rounds) -> Interval | None:
    """The interval of the ratio of the median of `rounds` to that of `base`; None for too few calls.

    Cases of one run took turns, and have as many rounds; of two runs the rounds have nothing in common, see
    `unpaired_interval`.
    """
    if len(rounds) != len(base):
        return unpaired_interval(rounds, base)
    if _too_few(rounds, base):
        return None
    chosen = _choices(len(rounds))
    rng = np.random.default_rng(SEED)
    return _interval(_medians(rounds, chosen, rng) / _medians(base, chosen, rng), min(_units(rounds), _units(base)))


def unpaired_interval(rounds: Rounds, base: Rounds) -> Interval | None:
    """The interval of the ratio of the medians of two runs that share no rounds; None for too few calls."""
    if _too_few(rounds, base):
        return None
    rng = np.random.default_rng(SEED)
    above = _medians(rounds, _choices(len(rounds)), rng)
    below = _medians(base, _choices(len(base), seed=SEED + 1), rng)
    return _interval(above / below, min(_units(rounds), _units(base)))


def _too_few(rounds: Rounds, base: Rounds) -> bool:
    """Whether one of two equally fast can be slower in all of its calls than the other in any, by more than chance."""
    calls, others = sum(map(len, rounds)), sum(map(len, base))
    return min(calls, others) < 2 or 2 / math.comb(calls + others, calls) > 1 - LEVEL


def _choices(count: int, seed: int = SEED) -> NDArray[np.intp]:
    """The rounds that each draw takes one after the other, `(draws, rounds)`, with some to spare."""
    return np.random.default_rng(seed).integers(count, size=(DRAWS, count + SPARE))


def _medians(rounds: Rounds, chosen: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.float64]:
    shrunk = max(1.0, max(map(len, rounds)) / MOST_CALLS)
    sizes = np.array([max(1, round(len(samples) / shrunk)) for samples in rounds])
    whole = int(sizes.sum())
    ends = np.minimum(np.cumsum(sizes[chosen], axis=1), whole)  # where in a draw the calls of each round end
    starts = np.concatenate([np.zeros((len(chosen), 1), ends.dtype), ends[:, :-1]], axis=1)
    drawn = np.full((len(chosen), whole), np.inf)  # infinite where even the spare rounds were too short
    for number, samples in enumerate(rounds):
        calls = np.asarray(samples, np.float64)
        at, column = np.nonzero((chosen == number) & (ends > starts))
        places = starts[at, column][:, None] + np.arange(sizes[number])
        picked = calls[rng.integers(len(calls), size=places.shape)]
        kept = places < ends[at, column][:, None]
        drawn[np.broadcast_to(at[:, None], places.shape)[kept], places[kept]] = picked[kept]
    drawn.sort(axis=1)
    count, row = ends[:, -1], np.arange(len(chosen))
    medians: NDArray[np.float64] = (drawn[row, (count - 1) // 2] + drawn[row, count // 2]) / 2
    return medians


def _units(rounds: Rounds) -> int:
    """How many draws there are at the outer level: of rounds, or of calls where all are of one round."""
    return len(rounds) if len(rounds) > 1 else len(rounds[0])


def _interval(values: NDArray[np.float64], units: int) -> Interval:
    tail = 100 * tail_of(units)
    low, high = np.percentile(values, (tail, 100 - tail))
    return Interval(float(low), float(high))


def tail_of(units: int) -> float:
    """The part of the draws to leave out at either end, so that an interval of so few units holds what it promises."""
    z, freedom = NormalDist().inv_cdf((1 + LEVEL) / 2), units - 1
    # Student's quantile from the normal one (Fisher and Cornish 1960), which is good enough from two degrees on; with
    # one it is so large, and would be larger, that all draws are within.
    student = (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
    return NormalDist().cdf(-student * (units / freedom) ** 0.5)
