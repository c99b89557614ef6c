from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from tests.features import FAMILIES
from tests.model.tiny import TINY
from vit_deploy.core import cost
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, Pooling
from vit_deploy.core.config import SCALE_CONFIGS, ViTConfig
from vit_deploy.core.outputs import outputs_of_model
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.reference import forward
from vit_deploy.core.reference_outputs import forward_outputs
from vit_deploy.core.weights import draw_weights, weight_specs
from vit_deploy.errors import ConfigError
from vit_deploy.model.vit import ViT

AXES: dict[str, tuple[Any, ...]] = {
    "normalization_type": ("layer_norm", "rms_norm", "dynamic_tanh", "band_rms"),
    "normalization_position": ("pre", "post"),
    "ffn_type": ("mlp", "swiglu", "geglu", "glu"),
    "pooling": (None, "cls", "mean", "max"),
    "include_top": (True, False),
    "qkv_bias": (True, False),
    "channels": (3, 1, 5),
}


# Every value of every axis, and every pair of norm and position, feed-forward and position, pooling and head.
QUICK: list[dict[str, Any]] = [
    *(
        {"normalization_type": kind, "normalization_position": position}
        for kind, position in itertools.product(AXES["normalization_type"], AXES["normalization_position"])
    ),
    *(
        {"ffn_type": kind, "normalization_position": position}
        for kind, position in itertools.product(AXES["ffn_type"], AXES["normalization_position"])
    ),
    *({"pooling": kind, "include_top": top} for kind, top in itertools.product(AXES["pooling"], AXES["include_top"])),
    *({"activation": kind} for kind in Activation),
    {"epsilon": 1e-2},
    {"epsilon": 1e-2, "normalization_type": "rms_norm"},
    {"qkv_bias": False},
    {"channels": 1},
    {"channels": 5, "image_size": (9, 20), "patch_size": (3, 20)},
    {"image_size": (16, 16), "patch_size": (16, 16)},
    {"num_heads": 1},
    {"num_heads": 12},
    {"num_layers": 1, "mlp_dim": 1},
    *FAMILIES.values(),
]


TOKENS: list[dict[str, Any]] = [
    {"class_token": token, "distillation_token": distilled, "register_tokens": count}
    for token, distilled, count in (
        (True, False, 0),
        (True, True, 3),
        (True, False, 1),
        (False, False, 0),
        (False, False, 2),
    )
]


SWITCHES = ("layer_scale", "qk_norm", "pre_norm", "norm_after_pooling", "include_top")


def assert_the_reference_agrees(checkpoint: Checkpoint) -> None:
    config = checkpoint.config
    images = np.random.default_rng(5).standard_normal((2, *config.image_size, config.channels)).astype(np.float32)
    expected = forward(checkpoint, images)
    found = keras.ops.convert_to_numpy(ViT.from_checkpoint(checkpoint)(images))
    assert found.shape == expected.shape == (2, *config.output_shape)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("changes", QUICK, ids=lambda changes: "-".join(map(str, changes.values())))
def test_the_model_computes_the_reference(make_checkpoint: Callable[..., Checkpoint], changes: dict[str, Any]) -> None:
    assert_the_reference_agrees(make_checkpoint(**changes))


@pytest.mark.slow
@pytest.mark.parametrize("kind", AXES["normalization_type"])
@pytest.mark.parametrize("ffn_type", AXES["ffn_type"])
def test_the_model_computes_the_reference_for_the_whole_product_of_options(
    make_checkpoint: Callable[..., Checkpoint], kind: str, ffn_type: str
) -> None:
    names = ("normalization_position", "pooling", "include_top", "qkv_bias", "channels")
    activations = itertools.cycle(Activation if ffn_type == "mlp" else [Activation.GELU])
    epsilons = itertools.cycle([1e-6, 1e-3, 1e-5, 1e-2, 1e-12])
    for values in itertools.product(*(AXES[name] for name in names)):
        changes = dict(zip(names, values, strict=True)) | {"activation": next(activations), "epsilon": next(epsilons)}
        assert_the_reference_agrees(make_checkpoint(normalization_type=kind, ffn_type=ffn_type, **changes))


@pytest.mark.slow
@pytest.mark.parametrize("tokens", TOKENS, ids=lambda tokens: "-".join(map(str, tokens.values())))
@pytest.mark.parametrize("pooling", [None, *Pooling])
def test_the_model_computes_the_reference_for_every_combination_of_features(
    make_checkpoint: Callable[..., Checkpoint], tokens: dict[str, Any], pooling: Pooling | None
) -> None:
    kinds, positions, widths = (itertools.cycle(each) for each in (AXES["normalization_type"], ("pre", "post"), (0, 7)))
    made = 0
    for values in itertools.product((False, True), repeat=len(SWITCHES)):
        changes = dict(zip(SWITCHES, values, strict=True)) | tokens | {"pooling": pooling}
        changes |= {"normalization_type": next(kinds), "pre_logits_dim": next(widths)}
        changes |= {"normalization_position": next(positions)} if changes["pre_norm"] else {}
        try:
            checkpoint = make_checkpoint(**changes)
        except ConfigError:
            continue
        assert_the_reference_agrees(checkpoint)
        made += 1
    needs_class = pooling in (Pooling.CLS, Pooling.CLS_MEAN, Pooling.CLS_DISTILLATION)
    possible = tokens["class_token"] or not needs_class
    possible = possible and (pooling is not Pooling.CLS_DISTILLATION or tokens["distillation_token"])
    assert (made > 0) == possible


@pytest.mark.parametrize(
    ("scale", "patch_size", "millions"), [("tiny", 16, 5.72), ("small", 16, 22.05), ("base", 16, 86.57)]
)
def test_a_scale_has_the_published_size(scale: str, patch_size: int, millions: float) -> None:
    assert round(ViT(scale=scale, patch_size=patch_size, seed=None).count_params() / 1e6, 2) == millions


@pytest.mark.slow
@pytest.mark.parametrize(("scale", "patch_size", "millions"), [("large", 16, 304.33), ("huge", 14, 632.05)])
def test_a_large_scale_has_the_published_size(scale: str, patch_size: int, millions: float) -> None:
    assert round(ViT(scale=scale, patch_size=patch_size, seed=None).count_params() / 1e6, 2) == millions


def test_the_defaults_are_vit_base() -> None:
    config = ViT(seed=None).config
    assert config == ViTConfig.from_scale("base")
    assert (config.image_size, config.patch_size, config.num_classes) == ((224, 224), (16, 16), 1000)


def test_the_table_of_scales_hangs_on_the_class() -> None:
    assert ViT.SCALE_CONFIGS["pico"][0] == ViT.SCALE_CONFIGS["pico"].embed_dim == 192
    assert list(ViT.SCALE_CONFIGS) == list(SCALE_CONFIGS)


def test_every_variable_carries_its_canonical_name_shape_and_first_value() -> None:
    model = ViT(**TINY, seed=9)
    variables = model.canonical_variables()
    assert list(variables) == list(weight_specs(model.config))
    for name, value in draw_weights(model.config, 9):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variables[name]), value)
        assert f"vit.{name}" == variables[name].path.replace("/", ".")


def test_canonical_names_do_not_depend_on_the_scope_that_a_model_is_made_in() -> None:
    with keras.name_scope("vit"), keras.name_scope("head"):
        model = ViT(**TINY, name="vit")
    assert list(model.canonical_variables()) == list(weight_specs(model.config))
    assert list(ViT(**TINY, name="block_0").canonical_variables()) == list(weight_specs(model.config))


def test_the_random_states_of_dropout_are_no_weights() -> None:
    model = ViT(**TINY, dropout_rate=0.1, attention_dropout_rate=0.1, pos_dropout_rate=0.1, stochastic_depth_rate=0.1)
    assert list(model.canonical_variables()) == list(weight_specs(model.config))
    assert model.count_params() == cost.num_parameters(model.config)


def test_without_a_seed_kernels_tokens_and_positions_are_zero() -> None:
    model = ViT(**TINY, seed=None)
    for name, variable in model.canonical_variables().items():
        assert (keras.ops.convert_to_numpy(variable) == name.endswith("scale")).all(), name
    assert model.provenance == ()


def test_a_model_and_its_checkpoint_hold_the_same(make_checkpoint: Callable[..., Checkpoint]) -> None:
    checkpoint = make_checkpoint(normalization_type="dynamic_tanh", qkv_bias=False, pooling="max")
    model = ViT.from_checkpoint(checkpoint, dropout_rate=0.2, attention_args={"flash_attention": None})
    assert model.rates["dropout_rate"] == 0.2
    assert model.attention_args == {"qkv_bias": False, "flash_attention": None}
    again = model.to_checkpoint()
    assert again.config == checkpoint.config
    assert again.digest() == checkpoint.digest()
    assert again.provenance == checkpoint.provenance


def test_what_travels_with_a_model_goes_into_its_checkpoint() -> None:
    preprocess = Preprocess((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), resize=40, crop=True)
    model = ViT(**TINY, preprocess=preprocess, labels=["a", "b", "c", "d", "e"], seed=4)
    checkpoint = model.to_checkpoint()
    assert checkpoint.preprocess == preprocess
    assert checkpoint.labels == ("a", "b", "c", "d", "e")
    assert [step.to_dict() for step in checkpoint.provenance] == [{"action": "random", "seed": 4}]
    assert checkpoint.digest() == Checkpoint.random(model.config, 4).digest()


def test_the_parts_can_be_walked_to_a_functional_model_with_one_output_a_block() -> None:
    model = ViT(**TINY)
    inputs = keras.Input((24, 32, 3))
    x = model.pos_embed(model.class_token(model.patch_embed(inputs)))
    outputs = []
    for block in model.transformer_layers:
        x = block(x)
        outputs.append(x)
    outputs.append(model.head(model.norm(x)[:, 0]))
    walked = keras.Model(inputs, outputs)
    assert [tuple(output.shape) for output in walked.outputs] == [(None, 25, 12), (None, 25, 12), (None, 5)]
    images = np.random.default_rng(0).standard_normal((2, 24, 32, 3)).astype(np.float32)
    seen: dict[str, Any] = {}
    expected = forward(model.to_checkpoint(), images, hook=seen.__setitem__)
    for found, wanted in zip(walked(images), (seen["block_0.ffn"], seen["block_1.ffn"], expected), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found), wanted, rtol=0, atol=1e-5)


def test_attention_left_to_keras_is_the_same_function(make_checkpoint: Callable[..., Checkpoint]) -> None:
    checkpoint = make_checkpoint()
    images = np.random.default_rng(0).standard_normal((2, 24, 32, 3)).astype(np.float32)
    found = ViT.from_checkpoint(checkpoint, attention_args={"flash_attention": None})(images)
    expected = forward(checkpoint, images)
    assert np.abs(keras.ops.convert_to_numpy(found) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_first_axis_of_the_positions_is_the_prefix() -> None:
    # Row 0 belongs to the class token: changing it moves the first token alone.
    model = ViT(**TINY)
    zeros = keras.ops.zeros((1, 25, 12))
    table = keras.ops.convert_to_numpy(model.canonical_variables()["pos_embed.table"]).copy()
    table[0] += 1
    before = keras.ops.convert_to_numpy(model.pos_embed(zeros))
    model.canonical_variables()["pos_embed.table"].assign(table)
    moved = np.abs(keras.ops.convert_to_numpy(model.pos_embed(zeros)) - before).max(axis=-1)[0]
    assert moved[0] > 0.5
    assert not moved[1:].any()


def test_outputs_by_name_are_those_of_the_reference(make_checkpoint: Any, images: Any) -> None:
    checkpoint = make_checkpoint(register_tokens=1, layer_scale=True)
    names = ["probabilities", "features", "map", "block_0.normed.class_token", "block_1", "block_0.attention"]
    model = ViT.from_checkpoint(checkpoint)
    found = model.outputs_by_name(images, names)
    given = keras.Input(images.shape[1:])
    by_functional = keras.Model(given, model.outputs_by_name(given, names[:-1]))(images)
    expected = forward_outputs(checkpoint, images, outputs_of_model(names, checkpoint.config))
    assert list(found) == names
    for name in names:
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found[name]), expected[name], atol=2e-5)
    for name in names[:-1]:
        np.testing.assert_allclose(keras.ops.convert_to_numpy(by_functional[name]), expected[name], atol=2e-5)
    with pytest.raises(ConfigError, match="on a symbolic input no layer computes"):
        model.outputs_by_name(given, names)


def test_a_fused_attention_has_no_probabilities_to_give(make_checkpoint: Any, images: Any) -> None:
    model = ViT.from_checkpoint(make_checkpoint(), attention_args={"flash_attention": None})
    with pytest.raises(ConfigError, match="a fused kernel gives no attention probabilities"):
        model.outputs_by_name(images, ["block_0.attention", "tokens"])
