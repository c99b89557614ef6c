"""The Keras 2 twin computes what the reference computes, and its weights become the checkpoint again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("tf_keras")

from vit_deploy.compression.keras2 import build
from vit_deploy.core import reference
from vit_deploy.core.choices import Activation, FFNType, NormalizationPosition, NormalizationType, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.errors import ConfigError

VARIANTS = {
    "plain": {},
    "norms around the patches": {"pixel_norm": True, "patch_norm": True},
    "a padded image": {"patch_padding": 1},
    "no class token, mean": {"class_token": False, "pooling": "mean"},
    "all prefix tokens": {"distillation_token": True, "register_tokens": 2, "pooling": "cls_distillation"},
    "map pooling": {"pooling": "map", "class_token": False, "activation": "gelu_tanh"},
    "rms, swiglu, norms of heads, layer scale": {
        "normalization_type": "rms_norm",
        "ffn_type": "swiglu",
        "qk_norm": True,
        "layer_scale": True,
        "pre_norm": True,
    },
    "dynamic tanh after each half, geglu": {
        "normalization_type": "dynamic_tanh",
        "normalization_position": "post",
        "ffn_type": "geglu",
        "pooling": "max",
    },
    "band rms, glu, no qkv bias": {
        "normalization_type": "band_rms",
        "ffn_type": "glu",
        "qkv_bias": False,
        "pooling": "cls_mean",
    },
    "pre-logits, norm after pooling": {"pre_logits_dim": 7, "norm_after_pooling": True, "activation": "quick_gelu"},
    "a probe of another width, a norm": {"pooling": "map", "pool_dim": 10, "pool_heads": 2, "pool_end": "norm"},
    "a probe alone": {"pooling": "map", "pool_end": "none", "pool_patches": True},
    "norms of queries across heads, one layer scale": {
        "qk_norm": True,
        "qk_norm_across_heads": True,
        "qk_norm_type": "rms_norm",
        "qk_norm_epsilon": 1e-3,
        "layer_scale": True,
        "layer_scale_part": "ffn",
    },
    "features": {"include_top": False, "activation": "hard_silu"},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_the_twin_answers_what_the_reference_answers(make_checkpoint, images, changes):
    checkpoint = make_checkpoint(**changes)
    exact = reference.forward(checkpoint, images)
    found = build(checkpoint).model(images).numpy()
    floor = np.abs(reference.forward(checkpoint, images, np.float32) - exact).max()
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() <= 10 * max(floor, np.spacing(np.float32(np.abs(exact).max())))


@pytest.mark.parametrize("activation", ["relu", "relu6", "leaky_relu", "elu", "silu", "sigmoid", "tanh"])
def test_the_twin_has_every_activation(make_checkpoint, images, activation):
    checkpoint = make_checkpoint(activation=activation, num_layers=1)
    exact = reference.forward(checkpoint, images)
    np.testing.assert_allclose(build(checkpoint).model(images), exact, atol=1e-5)


OPTIONS = {
    "normalization_type": list(NormalizationType),
    "normalization_position": list(NormalizationPosition),
    "ffn_type": list(FFNType),
    "activation": list(Activation),
    "class_token": [True, False],
    "distillation_token": [False, True],
    "register_tokens": [0, 3],
    "pooling": [*Pooling, None],
    "layer_scale": [False, True],
    "qk_norm": [False, True],
    "qkv_bias": [True, False],
    "pre_norm": [False, True],
    "norm_after_pooling": [False, True],
    "pre_logits_dim": [0, 5],
    "include_top": [True, False],
    "epsilon": [1e-6, 1e-3],
}


def drawn(seed: int) -> dict[str, Any]:
    """Any values of all options that go together."""
    rng = np.random.default_rng(seed)
    while True:
        changes = {name: values[rng.integers(len(values))] for name, values in OPTIONS.items()}
        try:
            ViTConfig(image_size=(24, 32), patch_size=(8, 4), embed_dim=12, num_heads=3, mlp_dim=20, **changes)
        except ConfigError:
            continue
        return changes


@pytest.mark.parametrize("seed", [*range(4), *(pytest.param(index, marks=pytest.mark.slow) for index in range(4, 40))])
def test_the_twin_has_all_options_in_any_company(make_checkpoint, images, seed):
    checkpoint = make_checkpoint(**drawn(seed))
    exact = reference.forward(checkpoint, images)
    found = build(checkpoint).model(images).numpy()
    floor = np.abs(reference.forward(checkpoint, images, np.float32) - exact).max()
    assert np.abs(found - exact).max() <= 10 * max(floor, np.spacing(np.float32(np.abs(exact).max())))


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_its_weights_are_the_checkpoints(make_checkpoint, changes):
    checkpoint = make_checkpoint(**changes)
    weights = build(checkpoint).weights()
    assert list(weights) == list(checkpoint.weights)
    for name, values in checkpoint.weights.items():
        np.testing.assert_array_equal(weights[name], values)


def test_frozen_weights_are_not_trained(make_checkpoint):
    twin = build(make_checkpoint(), frozen=["norm.scale"])
    trained = {id(variable) for variable in twin.model.trainable_variables}
    assert id(twin.variables["norm.scale"]) not in trained
    assert id(twin.variables["norm.bias"]) in trained
