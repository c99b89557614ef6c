from __future__ import annotations

import contextlib
import gc
import itertools
import random
import threading

import numpy as np
import pytest

from vit_deploy.performance.timing import WARMUP_CALLS, WARMUP_SECONDS, WINDOW, is_flat, measure, warm_up


class Machine:
    """A clock that only the calls move, each by its own duration; the last one repeats."""

    def __init__(self, *durations_ns):
        self.durations, self.now, self.calls = list(durations_ns), 0, 0

    def clock(self):
        return self.now

    def call(self):
        self.now += self.durations[min(self.calls, len(self.durations) - 1)]
        self.calls += 1


def test_each_call_is_one_sample():
    machine = Machine(5, 7, 11)
    assert measure(machine.call, calls=3, seconds=None, clock=machine.clock) == [5, 7, 11]


def test_no_call_begins_after_the_time_is_over():
    machine = Machine(400_000_000)
    assert measure(machine.call, calls=None, seconds=1.0, clock=machine.clock) == [400_000_000] * 3


def test_a_call_that_takes_longer_than_the_time_is_still_measured_once():
    machine = Machine(9_000_000_000)
    assert len(measure(machine.call, calls=None, seconds=1.0, clock=machine.clock)) == 1


@pytest.mark.parametrize("collecting", [True, False])
def test_the_garbage_collector_is_left_as_it_was(collecting):
    before = gc.isenabled()
    try:
        (gc.enable if collecting else gc.disable)()
        seen = []
        measure(lambda: seen.append(gc.isenabled()), calls=2, seconds=None)
        assert seen == [False, False]
        assert gc.isenabled() is collecting
        with pytest.raises(ZeroDivisionError):
            measure(lambda: 1 / 0, calls=1, seconds=None)
        assert gc.isenabled() is collecting
    finally:
        (gc.enable if before else gc.disable)()


def test_a_falling_series_is_not_flat_and_noise_without_a_trend_is():
    falling = [1000 - 20 * i for i in range(WINDOW)]
    assert not is_flat(falling)
    assert not is_flat(falling[::-1])
    assert is_flat([1000, 1001, 999, 1000, 1002, 998, 1000, 1001])
    assert is_flat([*falling, *[800] * WINDOW])


def test_one_outlier_does_not_make_a_trend():
    assert is_flat([1000] * (WINDOW - 1) + [90_000])


def test_too_few_calls_are_not_flat():
    assert not is_flat([1000] * (WINDOW - 1))


def test_warming_up_ends_when_the_calls_are_alike():
    machine = Machine(*(1000 - 50 * i for i in range(10)), 500)
    samples, flat = warm_up(machine.call, clock=machine.clock)
    assert flat
    assert 10 < len(samples) <= 10 + WINDOW


def test_warming_up_is_bounded_in_calls_and_in_time():
    machine = Machine(*(int(1000 * 1.1**i) for i in range(2 * WARMUP_CALLS)))
    samples, flat = warm_up(machine.call, clock=machine.clock)
    assert not flat
    assert len(samples) == WARMUP_CALLS
    slow = Machine(*(int(4e9 * 1.5**i) for i in range(20)))
    samples, flat = warm_up(slow.call, clock=slow.clock)
    assert not flat
    assert len(samples) == 2  # 4 and 6 s, and then ten seconds are over
    assert np.all(np.diff(samples) > 0)


def test_a_warm_up_takes_the_time_that_a_device_needs_however_alike_its_calls_are():
    now = [0]

    def call():
        now[0] += 1_000_000

    samples, flat = warm_up(call, least_s=0.5, clock=lambda: now[0])
    assert flat and len(samples) == 500


class Gpu:
    """A clock that only the calls move, each by `ms` with noise and now and then an outlier, slower with time."""

    def __init__(self, ms, jitter, seed, slower_per_s=0.0, until_s=1e9):
        self.ms, self.jitter, self.random = ms, jitter, random.Random(seed)
        self.slower_per_s, self.until_s, self.now = slower_per_s, until_s, 0

    def clock(self):
        return self.now

    def call(self):
        drift = 1 + self.slower_per_s * min(self.now / 1e9, self.until_s)
        outlier = 1.5 if self.random.random() < 0.01 else 1.0
        self.now += max(1, int(1e6 * self.ms * drift * outlier * self.random.gauss(1, self.jitter)))


def flat_of(trials, **machine):
    gpus = [Gpu(**machine, seed=seed) for seed in range(trials)]
    return sum(warm_up(gpu.call, least_s=1.0, clock=gpu.clock)[1] for gpu in gpus) / trials


# The shorter its calls, the more of them are drawn.
@pytest.mark.parametrize(
    ("ms", "jitter"),
    [
        pytest.param(ms, jitter, marks=pytest.mark.slow if ms < 1 and jitter < 0.05 else [])
        for ms in (0.5, 1.0, 3.0)
        for jitter in (0.01, 0.02, 0.03, 0.05)
    ],
)
def test_a_gpu_that_is_steady_is_called_flat_however_much_single_calls_differ(ms, jitter):
    assert flat_of(40, ms=ms, jitter=jitter) >= 0.97


@pytest.mark.parametrize("jitter", [0.01, 0.02, 0.03])
@pytest.mark.parametrize("ms", [1.0, 3.0])
def test_a_gpu_that_gets_slower_by_a_tenth_each_second_is_not_called_flat(ms, jitter):
    assert flat_of(5, ms=ms, jitter=jitter, slower_per_s=0.1) == 0


def test_a_gpu_is_waited_for_until_it_gets_no_slower_and_no_longer():
    gpu = Gpu(1.0, 0.02, seed=0, slower_per_s=0.1, until_s=3.0)
    _, flat = warm_up(gpu.call, least_s=1.0, clock=gpu.clock)
    assert flat and 3.0 < gpu.now / 1e9 < 5.0
    restless = Gpu(1.0, 0.0, seed=0, slower_per_s=0.5)
    samples, flat = warm_up(restless.call, least_s=1.0, clock=restless.clock)
    assert not flat and restless.now / 1e9 == pytest.approx(WARMUP_SECONDS, abs=0.1)
    assert len(samples) > 2 * WARMUP_CALLS  # which bounds those alone that are judged call by call


def test_slow_calls_of_a_gpu_are_judged_by_eight_at_least():
    machine = Machine(300_000_000)
    samples, flat = warm_up(machine.call, least_s=1.0, clock=machine.clock)
    assert flat and len(samples) == 2 * WINDOW


def test_streams_warm_up_at_the_same_time_and_each_until_all_are_flat():
    own, meeting = threading.local(), threading.Barrier(2)  # a clock of its own for each stream

    def clock():
        return getattr(own, "now", 0)

    def stream(durations):
        left = iter(durations)

        def call():
            with contextlib.suppress(threading.BrokenBarrierError):  # the other stream has ended
                meeting.wait(timeout=0.5)  # passes while a call of the other stream is under way
            own.now = clock() + next(left)

        return call

    steady, settling = itertools.repeat(1000), itertools.chain(range(5000, 1000, -100), itertools.repeat(1000))
    samples, flat = warm_up(stream(steady), stream(settling), clock=clock)
    assert flat
    of_settling = len(samples) - next(i for i, each in enumerate(samples) if each == 5000)
    assert of_settling > 40  # until it was flat itself
    assert len(samples) - of_settling >= of_settling  # and the steady one did not leave it alone meanwhile


class Elsewhere:
    """A call in another program, whose clock says what it says."""

    def __call__(self):
        raise AssertionError("it is timed here")

    def time(self, calls, seconds):
        return [7] * (calls or 3)


def test_a_call_with_a_clock_of_its_own_is_timed_by_that():
    assert measure(Elsewhere(), calls=2, seconds=None) == [7, 7]
    assert measure(Elsewhere(), calls=None, seconds=1.0) == [7, 7, 7]
    samples, flat = warm_up(Elsewhere())
    assert flat and samples == [7] * WINDOW
