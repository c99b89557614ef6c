"""Changes of weights and images that leave a ViT's answer as it was, and those that do not."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.reference import forward

Array = NDArray[Any]


def test_a_constant_key_adds_one_number_to_all_scores_of_a_query_and_changes_nothing(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint()
    weights = dict(checkpoint.weights)
    weights["block_0.attention.key.bias"] = weights["block_0.attention.key.bias"] + np.float32(0.7)
    shifted = dataclasses.replace(checkpoint, weights=weights)
    np.testing.assert_allclose(forward(shifted, images), forward(checkpoint, images), rtol=1e-9, atol=1e-12)
    weights["block_0.attention.query.bias"] = weights["block_0.attention.query.bias"] + np.float32(0.7)
    other = dataclasses.replace(checkpoint, weights=weights)
    assert np.abs(forward(other, images) - forward(checkpoint, images)).max() > 1e-3


def test_patches_permuted_with_their_positions_leave_the_class_logits_unchanged(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint()
    config, order = checkpoint.config, np.random.default_rng(0).permutation(24)
    (rows, columns), (height, width) = config.grid, config.patch_size
    cut = (
        images.reshape(-1, rows, height, columns, width, 3)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(-1, 24, height, width, 3)
    )
    shuffled = (
        cut[:, order].reshape(-1, rows, columns, height, width, 3).transpose(0, 1, 3, 2, 4, 5).reshape(images.shape)
    )
    weights = dict(checkpoint.weights)
    weights["pos_embed.table"] = weights["pos_embed.table"][np.concatenate([[0], 1 + order])]
    moved = dataclasses.replace(checkpoint, weights=weights)
    expected = forward(checkpoint, images)
    np.testing.assert_allclose(forward(moved, shuffled), expected, rtol=1e-9, atol=1e-12)
    assert np.abs(forward(checkpoint, shuffled) - expected).max() > 1e-3


def changed(checkpoint: Checkpoint, weights: Mapping[str, Array]) -> Checkpoint:
    """With some weights in the place of others."""
    exact = {name: np.asarray(value, np.float32) for name, value in weights.items()}
    return dataclasses.replace(checkpoint, weights=dict(checkpoint.weights) | exact)


def test_a_layer_scale_of_one_is_none_and_of_zero_leaves_the_tokens_as_they_came(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    scaled, plain = make_checkpoint(layer_scale=True), make_checkpoint()
    shared = {name: scaled.weights[name] for name in plain.weights}
    gammas = [name for name in scaled.weights if name.endswith("gamma")]
    ones = changed(scaled, {name: np.ones(12) for name in gammas})
    np.testing.assert_array_equal(forward(ones, images), forward(changed(plain, shared), images))

    seen: dict[str, Array] = {}
    forward(changed(scaled, {name: np.zeros(12) for name in gammas}), images, hook=seen.__setitem__)
    np.testing.assert_array_equal(seen["block_1.ffn"], seen["pos_embed"])


def test_normalized_queries_and_keys_do_not_see_how_long_they_were(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint(qk_norm=True, normalization_type="rms_norm", qkv_bias=False, epsilon=1e-15)
    names = [f"block_{index}.attention.{role}.kernel" for index in (0, 1) for role in ("query", "key")]
    longer = changed(checkpoint, {name: 8 * checkpoint.weights[name] for name in names})
    np.testing.assert_allclose(forward(longer, images), forward(checkpoint, images), rtol=1e-9, atol=1e-12)
    plain = dataclasses.replace(
        checkpoint,
        config=checkpoint.config.replace(qk_norm=False),
        weights={name: value for name, value in checkpoint.weights.items() if "_norm." not in name},
    )
    longer = changed(plain, {name: 8 * plain.weights[name] for name in names})
    assert np.abs(forward(longer, images) - forward(plain, images)).max() > 1e-3


@pytest.mark.parametrize("pooling", ["cls", "mean", "cls_mean", "map"])
def test_registers_exchanged_with_their_positions_leave_the_logits_unchanged(
    make_checkpoint: Callable[..., Checkpoint], images: Array, pooling: str
) -> None:
    checkpoint = make_checkpoint(register_tokens=3, distillation_token=True, pooling=pooling)
    order, table = [2, 0, 1], checkpoint.weights["pos_embed.table"].copy()
    registers = checkpoint.weights["class_token.registers"][order]
    alone = changed(checkpoint, {"class_token.registers": registers})
    table[2:5] = table[2:5][order]
    moved = changed(alone, {"pos_embed.table": table})
    expected = forward(checkpoint, images)
    np.testing.assert_allclose(forward(moved, images), expected, rtol=1e-9, atol=1e-12)
    assert np.abs(forward(alone, images) - expected).max() > 1e-4


def test_a_probe_that_asks_nothing_takes_the_mean_of_all_values(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint(pooling="map", class_token=False, register_tokens=2, include_top=False)
    own = {name.removeprefix("map_pool."): value for name, value in checkpoint.weights.items() if "map_pool." in name}
    silent = {"map_pool.attention.query.kernel": np.zeros((12, 12)), "map_pool.attention.query.bias": np.zeros(12)}
    unfed = {"map_pool.ffn.down.kernel": np.zeros((20, 12)), "map_pool.ffn.down.bias": np.zeros(12)}
    seen: dict[str, Array] = {}
    found = forward(changed(checkpoint, silent | unfed), images, hook=seen.__setitem__)
    assert seen["norm"].shape == (3, 26, 12)
    values = seen["norm"] @ own["attention.value.kernel"] + own["attention.value.bias"]
    expected = values.mean(axis=1) @ own["attention.out.kernel"] + own["attention.out.bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_the_mean_of_two_heads_is_one_head_of_both_tokens(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint(distillation_token=True, register_tokens=1, pooling="cls_distillation")
    kernel, bias = checkpoint.weights["head.kernel"].astype(np.float64), checkpoint.weights["head.bias"]
    seen: dict[str, Array] = {}
    found = forward(checkpoint, images, hook=seen.__setitem__)
    answers = [seen["norm"][:, token] @ (2 * part) + bias for token, part in enumerate((kernel[:12], kernel[12:]))]
    np.testing.assert_allclose(found, (answers[0] + answers[1]) / 2, rtol=1e-9, atol=1e-12)
    assert np.abs(answers[0] - answers[1]).max() > 1e-3


def test_a_norm_of_the_class_token_is_the_same_before_and_after_pooling_and_of_a_mean_it_is_not(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    before, after = (make_checkpoint(norm_after_pooling=choice) for choice in (False, True))
    np.testing.assert_allclose(forward(after, images), forward(before, images), rtol=1e-12)
    before, after = (make_checkpoint(norm_after_pooling=choice, pooling="mean") for choice in (False, True))
    assert np.abs(forward(after, images) - forward(before, images)).max() > 1e-3


def test_heads_exchanged_with_their_weights_leave_the_output_unchanged(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint()
    order = np.arange(12).reshape(3, 4)[[2, 0, 1]].ravel()
    weights = dict(checkpoint.weights)
    for role in ("query", "key", "value"):
        name = f"block_1.attention.{role}"
        weights[f"{name}.kernel"] = weights[f"{name}.kernel"][:, order]
        weights[f"{name}.bias"] = weights[f"{name}.bias"][order]
    weights["block_1.attention.out.kernel"] = weights["block_1.attention.out.kernel"][order]
    swapped = dataclasses.replace(checkpoint, weights=weights)
    np.testing.assert_allclose(forward(swapped, images), forward(checkpoint, images), rtol=1e-9, atol=1e-12)


def _last_norm(checkpoint: Checkpoint, images: Array) -> tuple[Array, Array]:
    """What goes into the final norm and what comes out of it."""
    seen: dict[str, Array] = {}
    forward(checkpoint, images, hook=seen.__setitem__)
    return seen[f"block_{checkpoint.config.num_layers - 1}.ffn"], seen["norm"]


def test_band_rms_with_a_band_of_zero_is_ninety_five_hundredths_of_the_unit_vector(
    make_checkpoint: Callable[..., Checkpoint], images: Array
) -> None:
    checkpoint = make_checkpoint(normalization_type="band_rms", epsilon=1e-12)
    for band, factor in ((0.0, 0.95), (100.0, 1.0), (-100.0, 0.9), (0.2, 0.9 + 0.1 / (1 + math.exp(-1)))):
        weights = dict(checkpoint.weights) | {"norm.band": np.array(band, np.float32)}
        before, after = _last_norm(dataclasses.replace(checkpoint, weights=weights), images)
        rms = np.sqrt((before**2).mean(axis=-1, keepdims=True))
        np.testing.assert_allclose(after, before / rms * factor, rtol=1e-7, atol=1e-12)


def test_layer_norm_with_unit_weights_has_zero_mean_and_unit_variance(checkpoint: Checkpoint, images: Array) -> None:
    _, after = _last_norm(checkpoint, images)
    np.testing.assert_allclose(after.mean(axis=-1), 0, atol=1e-12)
    np.testing.assert_allclose(after.var(axis=-1), 1, rtol=0.01)


def test_layer_norm_does_not_see_a_constant_and_rms_norm_does(make_checkpoint: Callable[..., Checkpoint]) -> None:
    for kind, blind in (("layer_norm", True), ("rms_norm", False)):
        checkpoint = make_checkpoint(normalization_type=kind, num_layers=1)
        images = np.random.default_rng(0).standard_normal((1, 24, 32, 3))
        weights = dict(checkpoint.weights)
        weights["block_0.ffn.down.bias"] = weights["block_0.ffn.down.bias"] + np.float32(3)
        moved = dataclasses.replace(checkpoint, weights=weights)
        difference = np.abs(forward(moved, images) - forward(checkpoint, images)).max()
        assert (difference < 1e-6) == blind
