from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

import vit_deploy
from tests.features import FAMILIES, as_arguments
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
from vit_deploy.model.factory import create_vision_transformer
from vit_deploy.model.vit import ViT

TINY: dict[str, Any] = {
    "input_shape": (24, 32, 3),
    "patch_size": (8, 4),
    "num_classes": 5,
    "embed_dim": 12,
    "num_heads": 3,
    "num_layers": 2,
    "mlp_dim": 20,
}

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
    expected = forward(model.to_checkpoint(), images, tap=seen.__setitem__)
    for found, wanted in zip(walked(images), (seen["block_0.ffn"], seen["block_1.ffn"], expected), strict=True):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(found), wanted, rtol=0, atol=1e-5)


SHAPED = [{}, {"include_top": False}, {"include_top": False, "pooling": "mean"}, *map(as_arguments, FAMILIES.values())]


@pytest.mark.parametrize("options", SHAPED)
def test_the_shape_is_known_before_anything_is_computed(options: dict[str, Any]) -> None:
    model = ViT(**{**TINY, **options})
    assert model.compute_output_shape((None, 24, 32, 3)) == (None, *model.config.output_shape)
    assert model(keras.Input((24, 32, 3))).shape == (None, *model.config.output_shape)
    assert model(keras.Input((24, 32, 3), batch_size=3)).shape == (3, *model.config.output_shape)
    assert model(np.zeros((3, 24, 32, 3), np.float32)).shape == (3, *model.config.output_shape)
    assert ViT(**TINY, include_top=False).head is None


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected shape=\(None, 24, 32, 3\), found shape=\(1, 32, 24, 3\)"):
        ViT(**TINY)(np.zeros((1, 32, 24, 3), np.float32))


def test_a_size_that_the_patch_does_not_divide_is_named_with_it() -> None:
    with pytest.raises(
        ConfigError,
        match="Image height/width must be divisible by patch size: height 30 is not a multiple of 8, "
        "width 33 is not a multiple of 4",
    ):
        ViT(**TINY | {"input_shape": (30, 33, 3)})


def test_all_wrong_options_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ViT(
            **TINY | {"input_shape": (30, 32, 3)},
            pooling="avg",
            dropout_rate=1.0,
            stochastic_depth_rate=-0.1,
            attention_args={"flash": True, "flash_attention": "yes", "qkv_bias": 3},
            seed=-1,
        )
    for problem in (
        "height 30 is not a multiple of 8",
        "pooling is 'avg'; expected one of cls, mean, max",
        "dropout_rate is 1.0; expected 0 <= rate < 1",
        "stochastic_depth_rate is -0.1; expected 0 <= rate < 1",
        "attention_args has flash; known are flash_attention, qkv_bias",
        "flash_attention is 'yes'; expected True, False or None",
        "qkv_bias is 3; expected True or False",
        "seed is -1; expected a whole number from 0 on, or None",
    ):
        assert problem in caught.value.message


@pytest.mark.parametrize("shape", [None, (24, 32), 24, (24, 32, 3, 1)])
def test_an_input_shape_is_three_numbers(shape: Any) -> None:
    with pytest.raises(ConfigError, match=r"input_shape is .*; expected \(height, width, channels\)"):
        ViT(input_shape=shape)


def test_an_open_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"image_size is \(None, None\)"):
        ViT(input_shape=(None, None, 3))


def test_labels_and_preprocessing_have_to_fit() -> None:
    with pytest.raises(
        ConfigError, match="preprocess is for 1 channels, input_shape has 3; labels has 2 names for 5 cl"
    ):
        ViT(**TINY, labels=["a", "b"], preprocess=Preprocess.for_channels(1))


def test_flash_attention_excludes_attention_dropout() -> None:
    with pytest.raises(ConfigError, match="flash_attention computes no attention weights"):
        ViT(**TINY, attention_dropout_rate=0.1, attention_args={"flash_attention": None})


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the other backends have a fused kernel")
def test_flash_attention_is_refused_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match="flash_attention=True, and the tensorflow backend has none"):
        ViT(**TINY, attention_args={"flash_attention": True})


def test_attention_left_to_keras_is_the_same_function(make_checkpoint: Callable[..., Checkpoint]) -> None:
    checkpoint = make_checkpoint()
    images = np.random.default_rng(0).standard_normal((2, 24, 32, 3)).astype(np.float32)
    found = ViT.from_checkpoint(checkpoint, attention_args={"flash_attention": None})(images)
    expected = forward(checkpoint, images)
    assert np.abs(keras.ops.convert_to_numpy(found) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_the_factory_makes_what_the_class_makes() -> None:
    options = {key: value for key, value in TINY.items() if key != "input_shape"}
    made = create_vision_transformer("tiny", input_shape=(24, 32, 3), pooling="mean", **options)
    assert isinstance(made, ViT)
    assert made.get_config() == ViT(scale="tiny", **TINY, pooling="mean").get_config()


def test_the_factory_answers_a_misspelt_option_with_the_one_it_resembles() -> None:
    with pytest.raises(ConfigError) as caught:
        create_vision_transformer("tiny", drop_out_rate=0.1, poolin="cls")
    assert str(caught.value) == (
        "unknown ViT options: drop_out_rate, poolin\n  fix: did you mean 'dropout_rate'?; did you mean 'pooling'?"
    )


def test_the_factory_checks_the_scale() -> None:
    with pytest.raises(ConfigError, match=r"unknown scale 'larg'\n  fix: did you mean 'large'\?"):
        create_vision_transformer("larg")


def test_the_top_of_the_package_gives_model_and_factory_lazily() -> None:
    assert vit_deploy.ViT is ViT
    assert vit_deploy.create_vision_transformer is create_vision_transformer


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"include_top": False, "ffn_type": "glu", "normalization_type": "band_rms"},
        *map(as_arguments, FAMILIES.values()),
    ],
)
def test_the_detailed_summary_adds_up_to_parameters_and_multiply_accumulates(options: dict[str, Any]) -> None:
    lines: list[str] = []
    model = ViT(**{**TINY, **options})
    model.summary_detailed(print_fn=lines.append)
    position = model.config.normalization_position
    assert lines[0].startswith(
        f"vit: a scale of its own, 24x32x3 in patches of 8x4, {model.config.num_heads} heads, {position}-"
    )
    rows = [line.split() for line in lines[2:]]
    attributes = [
        "patch_embed",
        "class_token",
        "pos_embed",
        "pre_norm",
        "norm",
        "map_pool",
        "pre_logits",
        "head",
        "relative",
        "patch_norm",
        "pixel_norm",
    ]
    layers = {name: getattr(model, name) for name in attributes if getattr(model, name) is not None}
    layers |= {block.name: block for block in model.transformer_layers}
    names = [row[0] for row in rows[:-1]]
    assert set(names) == {name for name, layer in layers.items() if layer.weights}
    behind = "norm" if model.config.last_norm else "head"
    assert names.index("block_1") == names.index("block_0") + 1 == names.index(behind) - 1
    parameters = [int(row[2].replace(",", "")) for row in rows]
    assert sum(parameters[:-1]) == parameters[-1] == model.count_params()
    assert rows[-1][1] == "x".join(map(str, model.config.output_shape))
    for name, shown in zip(names, parameters[:-1], strict=True):
        assert shown == layers[name].count_params()


def test_the_detailed_summary_names_the_scale_and_shows_the_cost(capsys: pytest.CaptureFixture[str]) -> None:
    ViT.from_structure(ViTConfig.from_scale("pico", image_size=(32, 64))).summary_detailed()
    printed = capsys.readouterr().out
    macs = cost.macs(ViTConfig.from_scale("pico", image_size=(32, 64)))
    assert printed.startswith("vit: pico, 32x64x3 in patches of 16x16")
    assert printed.rstrip().endswith(f" {macs / 1e6:,.1f}")


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
