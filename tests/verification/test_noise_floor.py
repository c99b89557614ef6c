"""The noise floor covers the orders in which engines sum, and is no wider where these hardly matter."""

from __future__ import annotations

import numpy as np
import pytest

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.reference import forward
from vit_deploy.core.summation import ORDERS, mean, one_by_one, product
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export
from vit_deploy.verification.noise_floor import noise_floor
from vit_deploy.verification.recording import golden_pixels, record

SPIKES = (10.0, 1e3, -1e3, 1e5)


def changed(checkpoint, **added):
    """The checkpoint with a number added to the fourth feature of some weights."""
    weights = {name: value.copy() for name, value in checkpoint.weights.items()}
    for name, value in added.items():
        weights[name.replace("__", ".")][..., 3] += np.float32(value)
    return Checkpoint(checkpoint.config, weights, checkpoint.preprocess)


def spiked(checkpoint, spike):
    """A spike in the last residual sum that the next bias takes back, so that only its rounding stays."""
    return changed(checkpoint, block_1__attention__out__bias=-spike, block_1__ffn__down__bias=spike)


@pytest.fixture(scope="module")
def plain(make_checkpoint):
    return make_checkpoint(embed_dim=64, num_heads=2, mlp_dim=192)


def test_both_orders_are_the_same_sums():
    rng = np.random.default_rng(0)
    x, kernel, bias = rng.standard_normal((2, 5, 7)), rng.standard_normal((7, 4)), rng.standard_normal(4)
    expected, expected_mean = x @ kernel + bias, x.mean(axis=-1, keepdims=True)
    for order in ORDERS:
        with order():
            np.testing.assert_allclose(product(x, kernel, bias), expected, rtol=1e-12)
            np.testing.assert_allclose(product(x, kernel, None), x @ kernel, rtol=1e-12)
            np.testing.assert_allclose(mean(x), expected_mean, rtol=1e-12)


def test_a_large_bias_that_comes_first_takes_digits_of_every_product():
    x, kernel = np.full((24, 64), 1, np.float32), np.full((64, 32), 1e-5, np.float32)
    bias = np.full(32, 1e3, np.float32)
    assert (product(x, kernel, bias) > 1000).all()
    with one_by_one():
        assert (product(x, kernel, bias) == 1000).all()  # each is less than half of the last digit
    assert (product(x, kernel, bias) > 1000).all()


@pytest.mark.slow
@pytest.mark.parametrize("spike", SPIKES)
def test_right_files_of_models_with_spikes_are_the_same(plain, spike, tmp_path):
    results = export(spiked(plain, spike), tmp_path, plan(["onnx", "tflite", "savedmodel"], ["fp32"])[0])
    assert [(result.parity.verdict, result.parity.failures) for result in results] == [("same", ())] * 3


def test_a_spike_makes_the_floor_as_high_as_the_order_of_engines_asks_for(plain):
    checkpoint = spiked(plain, 1e5)
    images = checkpoint.preprocess.normalize(golden_pixels(checkpoint.config))
    exact, rounded = forward(checkpoint, images), forward(checkpoint, images, np.float32)
    with one_by_one():
        engines = np.abs(forward(checkpoint, images, np.float32) - exact).max()
    assert engines > 3.5 * np.abs(rounded - exact).max()
    assert record(checkpoint).noise_floor == pytest.approx(engines / 3)


CHANGES = (
    {},
    {"normalization_position": "post"},
    {"normalization_type": "rms_norm"},
    {"ffn_type": "swiglu"},
    {"num_layers": 6},
)


@pytest.mark.parametrize("changes", CHANGES, ids=str)
def test_of_ordinary_models_the_floor_is_that_of_numpys_own_order(make_checkpoint, changes):
    checkpoint = make_checkpoint(**changes)
    images = checkpoint.preprocess.normalize(golden_pixels(checkpoint.config))
    exact, rounded = forward(checkpoint, images), forward(checkpoint, images, np.float32)
    usual = float(np.abs(rounded - exact).max())
    assert usual <= record(checkpoint).noise_floor <= 1.2 * usual


def test_a_spike_does_not_hide_another_model(plain, tmp_path):
    from vit_deploy.verification.parity import judge

    checkpoint = spiked(plain, 1e3)
    other = changed(checkpoint, head__bias=0)
    other.weights["block_0.ffn.up.kernel"][3, 5] += np.float32(0.3)
    golden = record(checkpoint)
    found = judge(forward(other, golden.images).astype(np.float32), golden, classes=True)
    assert found.verdict == "different"
    assert golden.noise_floor * 10 < golden.spread / 100


def test_the_noise_floor_is_the_largest_of_all_orders_beyond_what_is_usual():
    exact, near, far = np.zeros((2, 3)), np.array([[1, 2, 3], [0, 0, 1.0]]), np.array([[0, 0, 6], [0, 9, 0.0]])
    assert noise_floor(exact, [near, far]) == 3
    np.testing.assert_array_equal(noise_floor(exact, [near, far], 1), [3, 3])
