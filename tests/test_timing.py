from __future__ import annotations

import gc

import numpy as np
import pytest

from vit_deploy.timing import WARMUP_CALLS, WINDOW, is_flat, measure, warm_up


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
