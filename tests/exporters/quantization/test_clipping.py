"""Ranges from counted values: against the same computed from the values themselves."""

from __future__ import annotations

import numpy as np
import pytest

from vit_deploy.exporters.quantization.clipping import NOTHING, clipped, symmetric
from vit_deploy.exporters.quantization.recipes import Clipping

RELATIVE = 1 / 128  # of values that are counted as one


@pytest.fixture(scope="module")
def values():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 5, 4000)).astype(np.float32)
    values[0, 0, :4] = (90, -40, 0, -0.0)  # outliers
    return values


def seen(values, *, counted=True):
    observed = NOTHING
    for value in values:
        observed = observed.also(value, counted=counted)
    return observed


def error(values, low, high, bits=8):
    step = (high - low) / (2**bits - 1)
    restored = np.rint((np.clip(values, low, high) - low) / step) * step + low
    return float(np.square(restored - values).sum())


def test_minimum_and_maximum_are_exact_and_hold_zero(values):
    assert clipped(seen(values, counted=False), Clipping.MIN_MAX, bits=8, percentile=99) == (-40.0, 90.0)
    assert clipped(seen(values + 1000), Clipping.MIN_MAX, bits=8, percentile=99)[0] == 0.0
    assert clipped(seen(values - 1000), Clipping.MIN_MAX, bits=8, percentile=99)[1] == 0.0


@pytest.mark.parametrize("percentile", [99.0, 99.9])
def test_a_percentile_is_that_of_the_values(values, percentile):
    low, high = clipped(seen(values), Clipping.PERCENTILE, bits=8, percentile=percentile)
    expected = np.percentile(values, [100 - percentile, percentile])
    np.testing.assert_allclose((low, high), expected, rtol=2 * RELATIVE)


def test_the_least_error_is_less_than_that_of_the_full_range_and_of_a_narrow_one(values):
    low, high = clipped(seen(values), Clipping.MSE, bits=8, percentile=99)
    chosen = error(values, low, high)
    assert chosen < 0.9 * error(values, -40, 90)
    assert chosen < error(values, *np.percentile(values, [1, 99]))


def test_without_outliers_the_least_error_keeps_nearly_all():
    values = np.random.default_rng(1).uniform(-1, 3, (2, 10_000)).astype(np.float32)
    low, high = clipped(seen(values), Clipping.MSE, bits=8, percentile=99)
    assert low < -0.95 and high > 2.9


def test_sixteen_bits_need_no_clipping(values):
    low, high = clipped(seen(values), Clipping.MSE, bits=16, percentile=99)
    assert error(values, low, high, 16) <= error(values, -40, 90, 16)


def test_values_that_are_all_zero_have_an_empty_range():
    zeros = np.zeros((1, 7), np.float32)
    assert clipped(seen(zeros), Clipping.MSE, bits=8, percentile=99) == (0.0, 0.0)


def test_what_weighs_nothing_is_cut_off_and_what_weighs_most_is_kept(values):
    weights = np.exp(values / 8).astype(np.float32)
    observed = NOTHING
    for each, weight in zip(values, weights, strict=True):
        observed = observed.also(each, counted=True, weights=weight)
    assert clipped(observed, Clipping.MIN_MAX, bits=8, percentile=99) == (-40.0, 90.0)
    percentiles = [clipped(each, Clipping.PERCENTILE, bits=8, percentile=99.9) for each in (observed, seen(values))]
    assert percentiles[0] == percentiles[1]
    low, high = clipped(observed, Clipping.MSE, bits=8, percentile=99)
    assert -40 < low < values[values > -40].min() and high == 90

    def weighed(low, high):
        step = (high - low) / 255
        restored = np.rint((np.clip(values, low, high) - low) / step) * step + low
        return float((np.square(restored - values) * weights).sum())

    plain = clipped(seen(values), Clipping.MSE, bits=8, percentile=99)
    assert weighed(low, high) < 0.5 * weighed(*plain)


@pytest.mark.parametrize("limits", [(-3.0, 5.0), (-0.7, 0.1), (0.0, 1e-3), (-1e6, 0.0)])
def test_a_symmetric_range_holds_the_range_and_has_the_integer_zero_at_zero(limits):
    low, high = symmetric(*limits)
    scale = (high - low) / 255
    assert low <= limits[0] and high == pytest.approx(max(high, limits[1]), rel=1e-12)
    assert low / scale == pytest.approx(-128, rel=1e-12) and high / scale == pytest.approx(127, rel=1e-12)
    assert scale == pytest.approx(max(map(abs, limits)) / 127, rel=1e-12)  # and is no wider than it has to be


def test_a_symmetric_range_of_nothing_but_zeros_has_steps_too():
    assert symmetric(0.0, 0.0) == pytest.approx((-128 / 127, 1.0))
