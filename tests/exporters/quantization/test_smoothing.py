"""The rewrite that moves outliers into weights: the same function, smoother activations."""

from __future__ import annotations

import numpy as np
import pytest

from tests.exporters.variants import pixels, trained
from vit_deploy.core.reference import forward
from vit_deploy.exporters.quantization.smoothing import links, smoothed

OPTIONS = [
    {},
    {"normalization_type": "rms_norm", "ffn_type": "swiglu", "pooling": "mean"},
    {"normalization_type": "dynamic_tanh", "qkv_bias": False, "pooling": "max"},
    {"normalization_type": "band_rms"},
    {"normalization_position": "post"},
    {"include_top": False},
    {"activation": "relu"},
    {"activation": "leaky_relu", "normalization_position": "post"},
]


def with_weights(checkpoint, weights):
    return type(checkpoint)(**{**vars(checkpoint), "weights": {**checkpoint.weights, **weights}})


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_smoothing_leaves_the_function_as_it_is(options):
    checkpoint = trained(**options)
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))
    changed = smoothed(checkpoint.weights, checkpoint.config)
    assert any(np.any(values != checkpoint.weights[name]) for name, values in changed.items())
    assert all(values.dtype == np.float32 for values in changed.values())
    # Each weight is rounded to float32 once more, and to nothing else.
    expected = forward(checkpoint, images)
    np.testing.assert_allclose(
        forward(with_weights(checkpoint, changed), images), expected, rtol=0, atol=2e-6 * np.abs(expected).max()
    )


def test_smoothing_with_measured_activations_follows_smoothquant():
    checkpoint = trained()
    largest = {name: np.full(12, 1.0) for link in links(checkpoint.config) for name in link.read}
    largest["block_1.ffn.up"] = np.array([16.0, *[1.0] * 11])
    kernel = checkpoint.weights["block_1.ffn.up.kernel"]
    changed = smoothed(checkpoint.weights, checkpoint.config, largest, alpha=1.0)
    factors = changed["block_1.ffn.up.kernel"] / kernel
    ratios = factors[0] / factors[1:]
    np.testing.assert_allclose(ratios, 16.0, rtol=1e-5)
    np.testing.assert_allclose(
        changed["block_1.norm2.scale"] * factors[:, 0], checkpoint.weights["block_1.norm2.scale"], rtol=1e-5
    )


def uneven(checkpoint):
    """The same scores, of which two channels of the queries are far larger and those of the keys as much smaller."""
    weights = {name: values.copy() for name, values in checkpoint.weights.items()}
    for part in ("kernel", "bias"):
        weights[f"block_0.attention.query.{part}"][..., [1, 7]] *= 300
        weights[f"block_0.attention.key.{part}"][..., [1, 7]] /= 300
    return with_weights(checkpoint, weights)


def test_channels_of_queries_and_keys_become_of_one_size_and_the_scores_stay():
    checkpoint = uneven(trained())
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))
    even = with_weights(checkpoint, smoothed(checkpoint.weights, checkpoint.config))
    seen = [{}, {}]
    for each, found in zip((checkpoint, even), seen, strict=True):
        forward(each, images, detail=lambda name, values, found=found: found.__setitem__(name, values))
    before, after = (
        {name: found[f"block_0.attention.{name}"] for name in ("query", "key", "scores")} for found in seen
    )
    np.testing.assert_allclose(after["scores"], before["scores"], rtol=0, atol=1e-4 * np.abs(before["scores"]).max())
    for role in ("query", "key"):
        spread_before, spread_after = (
            np.ptp(np.log(np.abs(values[role]).max(axis=(0, 1)))) for values in (before, after)
        )
        assert spread_before > 5 and spread_after < 2.5, role


@pytest.mark.parametrize("options", [{"qk_norm": True}, {"rotary": "eva", "num_heads": 1}], ids=str)
def test_queries_that_are_changed_before_they_meet_their_keys_stay(options):
    checkpoint = uneven(trained(**options))
    assert not [name for name in smoothed(checkpoint.weights, checkpoint.config) if ".query.bias" in name]


def test_queries_and_keys_that_are_nearly_even_stay():
    checkpoint = trained()
    assert not [name for name in smoothed(checkpoint.weights, checkpoint.config) if ".key.bias" in name]


def test_a_channel_without_values_stays_as_it_is():
    checkpoint = trained()
    weights = {name: values.copy() for name, values in checkpoint.weights.items()}
    for role in ("query", "key", "value"):
        weights[f"block_0.attention.{role}.kernel"][3] = 0
    weights["block_0.norm2.scale"][5] = weights["block_0.norm2.bias"][5] = 0
    changed = smoothed(weights, checkpoint.config)
    assert changed["block_0.norm1.scale"][3] == weights["block_0.norm1.scale"][3]
    np.testing.assert_array_equal(changed["block_0.ffn.up.kernel"][5], weights["block_0.ffn.up.kernel"][5])
    assert all(np.isfinite(values).all() for values in changed.values())


def test_norms_behind_their_halves_are_not_touched_for_the_residual_sum_reads_them_too():
    checkpoint = trained(normalization_position="post")
    changed = smoothed(checkpoint.weights, checkpoint.config)
    assert not [name for name in changed if ".norm" in name]


def test_planted_outliers_are_evened_out():
    checkpoint = trained()
    weights = {name: values.copy() for name, values in checkpoint.weights.items()}
    for name in ("scale", "bias"):
        weights[f"block_0.norm2.{name}"][:2] *= 32
    weights["block_0.ffn.up.kernel"][:2] /= 32
    plain = smoothed(checkpoint.weights, checkpoint.config)
    again = smoothed(weights, checkpoint.config)
    ratios = again["block_0.norm2.scale"] / plain["block_0.norm2.scale"]
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-5)  # all channels together may be larger, which is no matter
    ratios = again["block_0.ffn.up.kernel"] / plain["block_0.ffn.up.kernel"]
    np.testing.assert_allclose(ratios, ratios[0, 0], rtol=1e-5)


@pytest.mark.parametrize(
    "options", [{"activation": "relu"}, {"activation": "leaky_relu"}, {"ffn_type": "swiglu"}], ids=str
)
def test_outliers_inside_of_the_feed_forward_half_are_evened_out_where_factors_get_through(options):
    checkpoint = trained(**options)
    weights = {name: values.copy() for name, values in checkpoint.weights.items()}
    for name in [f"block_1.ffn.up.{part}" for part in ("kernel", "bias")]:
        weights[name][..., :2] *= 32
    weights["block_1.ffn.down.kernel"][:2] /= 32
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))
    np.testing.assert_allclose(
        forward(with_weights(checkpoint, weights), images), forward(checkpoint, images), rtol=1e-6
    )
    plain, again = (smoothed(each, checkpoint.config) for each in (checkpoint.weights, weights))
    ratios = again["block_1.ffn.down.kernel"] / plain["block_1.ffn.down.kernel"]
    np.testing.assert_allclose(ratios, ratios[0, 0], rtol=1e-5)


def test_behind_a_gelu_nothing_is_scaled():
    assert "block_0.ffn.down.kernel" not in smoothed(trained().weights, trained().config)
    assert "block_0.ffn.down.kernel" not in smoothed(
        trained(activation="relu6").weights, trained(activation="relu6").config
    )


@pytest.mark.parametrize("position", ["post", "res_post"])
def test_a_norm_behind_its_half_says_nothing_of_what_queries_read(position):
    checkpoint = uneven(trained(normalization_position=position))
    weights = {name: values.copy() for name, values in checkpoint.weights.items()}
    weights["block_0.norm1.scale"][::2] *= 1000
    kernels = [
        smoothed(given, checkpoint.config)["block_0.attention.query.kernel"] for given in (checkpoint.weights, weights)
    ]
    np.testing.assert_array_equal(*kernels)
