"""Intervals hold what they promise, and are the same for the same samples."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import pytest

from vit_deploy.performance.confidence import Interval, median_interval, ratio_interval, tail_of, unpaired_interval


def rounds(seed: int, median_ns: float, *, count: int = 5, calls: int = 20, shared: np.ndarray | None = None):
    """Calls that scatter by 3 %, in rounds in which the machine is faster or slower by 10 %."""
    rng = np.random.default_rng(seed)
    speeds = rng.normal(1, 0.1, count) if shared is None else shared
    return [[*map(int, median_ns * speed * rng.normal(1, 0.03, calls))] for speed in speeds]


def test_the_true_median_lies_within_as_often_as_promised() -> None:
    hits = sum(not median_interval(rounds(seed, 1e6, count=12)).excludes(1e6) for seed in range(40))
    assert hits >= 34  # of 38 expected


@pytest.mark.parametrize(("scatter", "least"), [(0.1, 0.9), (0.0, 0.94)])
def test_five_rounds_hold_what_they_promise_too(scatter: float, least: float) -> None:
    def speeds(seed: int) -> np.ndarray:
        return np.random.default_rng(seed).normal(1, scatter, 5)

    trials, ratios, medians = 60, 0, 0
    for seed in range(trials):
        now, before = (rounds(number, 1e6, shared=speeds(number)) for number in (seed, seed + 500))
        ratios += not unpaired_interval(now, before).excludes(1)
        medians += not median_interval(now).excludes(1e6)
    assert ratios >= least * trials and medians >= (least - 0.02) * trials


def test_the_ends_are_taken_as_far_out_as_students_t_asks() -> None:
    # Of 5, 10 and 1000 units: the normal distribution below -t(n-1, 97.5 %) sqrt(n / (n-1)), t as tables give it.
    for units, student in ((3, 4.303), (5, 2.776), (10, 2.262), (1000, 1.962)):
        expected = NormalDist().cdf(-student * (units / (units - 1)) ** 0.5)
        assert tail_of(units) == pytest.approx(expected, rel=0.03, abs=1e-6)
    assert tail_of(2) == 0


def test_a_ratio_of_cases_that_took_turns_is_surer_than_one_of_two_runs() -> None:
    shared = np.random.default_rng(9).normal(1, 0.1, 5)
    slow, fast = rounds(1, 1.2e6, shared=shared), rounds(2, 1e6, shared=shared)
    paired, unpaired = ratio_interval(slow, fast), unpaired_interval(slow, fast)
    assert paired.low < 1.2 < paired.high
    assert paired.excludes(1.0)
    assert paired.high - paired.low < (unpaired.high - unpaired.low) / 2


def test_two_runs_of_the_same_are_not_told_apart() -> None:
    told_apart = sum(unpaired_interval(rounds(seed, 1e6), rounds(seed + 500, 1e6)).excludes(1) for seed in range(20))
    assert told_apart <= 2


def test_the_same_samples_give_the_same_interval() -> None:
    assert median_interval(rounds(3, 1e6)) == median_interval(rounds(3, 1e6))


def test_too_few_calls_say_nothing_about_chance() -> None:
    # All of five calls are faster than the true median, or all slower, in 6 of 100 cases; of six calls in 3.
    assert median_interval([[5, 6, 7, 8, 9]]) is None
    assert median_interval([[5, 6, 7], [8, 9, 10]]) is not None
    # Of two that are equally fast, one has the three slowest of six calls in 10 of 100 cases, the four of eight in 3.
    for interval in (ratio_interval, unpaired_interval):
        assert interval([[5]], [[6, 7]]) is None
        assert interval([[5, 6, 7]], [[1, 2, 3]]) is None
        assert interval([[5, 6, 7, 8]], [[1, 2, 3, 4]]).excludes(1)
        assert interval([[5, 6]], [[1, 2], [3, 4], [2, 1], [4, 3]]).excludes(1)


def test_an_interval_excludes_what_lies_outside() -> None:
    interval = Interval(0.9, 1.1)
    assert interval.excludes(1.2)
    assert not interval.excludes(1.0)
    assert interval.scaled(0.5) == Interval(0.45, 0.55)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_round_that_stalled_after_one_call_weighs_as_one_call(count: int) -> None:
    calm = rounds(4, 7.5e6, count=count, calls=30, shared=np.ones(count))
    stalled = [*calm[:-1], [8_678_000_000]]
    assert median_interval(stalled).high < 1.1 * 7.5e6
    assert ratio_interval(stalled, calm).high < 1.1
    assert unpaired_interval(stalled, calm).high < 1.1


def test_no_interval_leaves_the_range_of_the_samples() -> None:
    # Numbers that a float of 32 bits would round up.
    calls = [[8_677_999_617 + step for step in (0, 1, 2)], [8_677_999_617]] * 2
    interval = median_interval(calls)
    assert 8_677_999_617 <= interval.low <= interval.high <= 8_677_999_619


def test_rounds_of_very_different_lengths_hold_what_they_promise() -> None:
    def of_many_lengths(seed: int) -> list[list[int]]:
        lengths = np.random.default_rng(seed).integers(5, 40, 12)
        return [
            samples[:length] for samples, length in zip(rounds(seed, 1e6, count=12, calls=40), lengths, strict=True)
        ]

    trials = 60
    hits = sum(not median_interval(of_many_lengths(seed)).excludes(1e6) for seed in range(trials))
    assert hits >= 0.88 * trials


def test_a_round_of_more_calls_than_a_draw_takes_is_drawn_from_evenly() -> None:
    long = [*map(int, np.random.default_rng(6).normal(1e6, 3e4, 4000))]
    interval = median_interval([long, long[:2000]])
    assert interval.low < np.median(long) < interval.high < 1.02e6
