"""How long does a call take, once it takes always the same?"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import median

Call = Callable[[], object]
Clock = Callable[[], int]

WINDOW = 8  # calls that have to be alike before a warm-up ends
DRIFT = 0.02  # change over the window, as a fraction of its median, that still counts as flat
WARMUP_CALLS = 100
WARMUP_SECONDS = 10.0


def measure(call: Call, *, calls: int | None, seconds: float | None, clock: Clock = time.perf_counter_ns) -> list[int]:
    """Nanoseconds of each call.

    Args:
        call: what is timed.
        calls: how many; None for as many as begin within `seconds`, and at least one.
        seconds: for all calls together; None for no limit.
        clock: in nanoseconds.
    """
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


def warm_up(call: Call, *, least_s: float = 0.0, clock: Clock = time.perf_counter_ns) -> tuple[list[int], bool]:
    """Call until the last `WINDOW` calls show no trend, within bounds of calls and time.

    Args:
        call: what is going to be timed.
        least_s: seconds that it takes at any rate, however alike the calls are.
        clock: in nanoseconds.

    Returns:
        Nanoseconds of each call, and whether they became flat.
    """
    samples: list[int] = []
    begun = clock()
    least_ns = least_s * 1e9
    while (elapsed := clock() - begun) < least_ns or (len(samples) < WARMUP_CALLS and elapsed < WARMUP_SECONDS * 1e9):
        samples += measure(call, calls=1, seconds=None, clock=clock)
        if clock() - begun >= least_ns and is_flat(samples):
            return samples, True
    return samples, False


def is_flat(samples_ns: Sequence[int]) -> bool:
    """Whether the last calls show no trend: the median of all slopes (Theil 1950, Sen 1968), as outliers abound."""
    window = samples_ns[-WINDOW:]
    if len(window) < WINDOW:
        return False
    slope = median((window[j] - window[i]) / (j - i) for i, j in combinations(range(WINDOW), 2))
    return abs(slope) * (WINDOW - 1) <= DRIFT * median(window)
