"""The activations, erf and softmax against SciPy and their textbook formulas."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

from tests.loops import SCALAR_ACTIVATIONS
from vit_deploy.core.activation_functions import ACTIVATIONS, gelu, softmax
from vit_deploy.core.choices import Activation
from vit_deploy.core.erf import erf


def test_erf_is_scipys_to_the_last_digits() -> None:
    x = np.concatenate([np.linspace(-8, 8, 100_001), np.logspace(-320, 0, 500), [0.0, np.inf, -np.inf, 5.9999, 6.0001]])
    np.testing.assert_allclose(erf(x), scipy.special.erf(x), rtol=4e-16, atol=4e-16)
    assert np.isnan(erf(np.array([np.nan]))).all()


def test_erf_keeps_shape_precision_and_sign_of_zero() -> None:
    x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 3, 4)
    assert erf(x).dtype == np.float32
    np.testing.assert_allclose(erf(x), scipy.special.erf(x.astype(np.float64)), rtol=0, atol=6e-8)
    assert erf(np.array([])).shape == (0,)
    assert np.signbit(erf(np.array([-0.0])))[0]


def test_erf_of_more_numbers_than_one_block_of_work() -> None:
    x = np.random.default_rng(0).normal(0, 2, (3, 1 << 16))
    np.testing.assert_allclose(erf(x), scipy.special.erf(x), rtol=0, atol=4e-16)


@pytest.mark.parametrize("kind", Activation)
def test_an_activation_is_its_textbook_formula(kind: Activation) -> None:
    x = np.concatenate([np.linspace(-9, 9, 181), [0.0, 6.0, -3.0, 3.0]])
    expected = [SCALAR_ACTIVATIONS[kind](float(value)) for value in x]
    np.testing.assert_allclose(ACTIVATIONS[kind](x), expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("kind", Activation)
def test_an_activation_neither_overflows_nor_leaves_its_precision(kind: Activation) -> None:
    for dtype in (np.float32, np.float64):
        with np.errstate(all="raise", under="ignore"):
            result = ACTIVATIONS[kind](np.array([-1e4, -100, 0, 100, 1e4], dtype))
        assert result.dtype == dtype
        assert np.isfinite(result).all()


def test_the_exact_gelu_is_not_the_tanh_one() -> None:
    x = np.linspace(-4, 4, 101)
    np.testing.assert_allclose(gelu(x), x * scipy.special.ndtr(x), rtol=1e-13, atol=1e-15)
    assert 1e-4 < np.abs(gelu(x) - ACTIVATIONS[Activation.GELU_TANH](x)).max() < 1e-3


def test_softmax_is_scipys_and_a_constant_added_to_the_scores_changes_nothing() -> None:
    scores = np.random.default_rng(0).normal(0, 3, (2, 3, 5))
    np.testing.assert_allclose(softmax(scores), scipy.special.softmax(scores, axis=-1), rtol=1e-13)
    np.testing.assert_allclose(softmax(scores + 123.0), softmax(scores), rtol=1e-12)
    assert np.isfinite(softmax(np.array([[1e300, -1e300, 0.0]]))).all()
