"""Nanoseconds of a call, once it takes always the same."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from statistics import median
from typing import Any, Protocol, TypeVar, runtime_checkable

Call = Callable[[], object]
Clock = Callable[[], int]


@runtime_checkable
class ClockedCall(Protocol):
    """A call in another program, which is timed there."""

    def __call__(self) -> object:
        """Make one call."""

    def time(self, calls: int | None, seconds: float | None) -> list[int]:
        """Nanoseconds of each call, by the clock of that program; see `measure`."""


T = TypeVar("T")

WINDOW = 8  # calls that have to be alike before a warm-up ends
DRIFT = 0.02  # change over the window, as a fraction of its median, that still counts as flat
WARMUP_CALLS = 100
WARMUP_SECONDS = 10.0
BLOCK_NS = 100_000_000  # of calls whose median is one figure where time is judged
TREND_NS = 1_000_000_000  # over which these figures have to be alike


def measure(call: Call, *, calls: int | None, seconds: float | None, clock: Clock = time.perf_counter_ns) -> list[int]:
    """Nanoseconds of each call.

    Args:
        call: what is timed; one that has a clock of its own by that.
        calls: the number of calls; None for as many as begin within `seconds`, and at least one.
        seconds: the time for all calls together; None for no limit.
        clock: a clock in nanoseconds.
    """
    if isinstance(call, ClockedCall):
        return call.time(calls, seconds)
    samples: list[int] = []
    collecting = gc.isenabled()
    gc.disable()  # or the collector's pauses would be counted as the engine's
    try:
        begun = clock()
        while calls is None or len(samples) < calls:
            start = clock()
            if seconds is not None and samples and start - begun >= seconds * 1e9:
                break
            call()
            samples.append(clock() - start)
    finally:
        if collecting:
            gc.enable()
    return samples


def at_once(items: Sequence[T], work: Callable[[T], Any]) -> list[Any]:
    """What `work` gives for each of them, all at the same time."""
    if len(items) == 1:
        return [work(items[0])]
    with ThreadPoolExecutor(max(1, len(items))) as pool:
        return list(pool.map(work, items))


def warm_up(*calls: Call, least_s: float = 0.0, clock: Clock = time.perf_counter_ns) -> tuple[list[int], bool]:
    """Make calls until they show no trend, within bounds of calls and time.

    Without `least_s` the last `WINDOW` calls are judged, of at most `WARMUP_CALLS`. With it, as GPUs need whose clock
    comes up in time and not in calls, the medians of successive stretches of `BLOCK_NS` are judged over `TREND_NS`:
    single calls of a millisecond differ by more than the trend that is looked for.

    Args:
        calls: what is going to be timed; several are made at the same time, each again until all of them are flat.
        least_s: seconds that it takes at any rate, however alike the calls are.
        clock: a clock in nanoseconds.

    Returns:
        Nanoseconds of each call, one after the other of each of `calls`, and whether all became flat.
    """
    begun, waiting = clock(), [True] * len(calls)

    def again(index: int) -> list[int]:
        samples: list[int] = []
        judge: Judge = Stretches() if least_s else Calls()
        # Who is flat goes on for as long as others are not: they are to be alike under the load of all.
        while any(waiting) and (not samples or clock() - begun < WARMUP_SECONDS * 1e9):
            if not least_s and len(samples) >= WARMUP_CALLS:
                break
            [sample] = measure(calls[index], calls=1, seconds=None, clock=clock)
            samples.append(sample)
            if judge.flat_with(sample) and clock() - begun >= least_s * 1e9:
                waiting[index] = False
        return samples

    if len(calls) == 1:
        return again(0), not waiting[0]
    with ThreadPoolExecutor(max(1, len(calls))) as pool:
        parts = list(pool.map(again, range(len(calls))))
    return [sample for part in parts for sample in part], not any(waiting)


class Judge(Protocol):
    """What is told the time of each call, and says whether there is a trend in the last of them."""

    def flat_with(self, sample_ns: int) -> bool:
        """Whether there is none, one more call included."""


class Calls:
    """A judge of the last `WINDOW` calls."""

    def __init__(self) -> None:
        self._samples: list[int] = []

    def flat_with(self, sample_ns: int) -> bool:
        """Whether there is no trend, one more call included."""
        self._samples = [*self._samples[1 - WINDOW :], sample_ns]
        return is_flat(self._samples)


class Stretches:
    """A judge of the medians of stretches of `BLOCK_NS`, of `WINDOW` calls at least, over the last `TREND_NS`."""

    def __init__(self) -> None:
        self._open: list[int] = []
        self._took = 0
        self._closed: list[tuple[int, float]] = []  # how long each took, and the median of its calls

    def flat_with(self, sample_ns: int) -> bool:
        """Whether a stretch ends with this call, and there is no trend in the last of them, two at least."""
        self._open.append(sample_ns)
        self._took += sample_ns
        if len(self._open) < WINDOW or self._took < BLOCK_NS:
            return False
        self._closed.append((self._took, median(self._open)))
        self._open, self._took = [], 0
        while len(self._closed) > 2 and sum(took for took, _ in self._closed[1:]) >= TREND_NS:
            del self._closed[0]
        return len(self._closed) > 1 and _shows_no_trend([middle for _, middle in self._closed])


def is_flat(samples_ns: Sequence[int]) -> bool:
    """Whether the last `WINDOW` calls show no trend."""
    window = samples_ns[-WINDOW:]
    return len(window) == WINDOW and _shows_no_trend(window)


def _shows_no_trend(values: Sequence[float]) -> bool:
    """Whether the median of all slopes shows no trend (Theil 1950, Sen 1968), as outliers abound."""
    count = len(values)
    slope = median((values[j] - values[i]) / (j - i) for i, j in combinations(range(count), 2))
    return abs(slope) * (count - 1) <= DRIFT * median(values)
