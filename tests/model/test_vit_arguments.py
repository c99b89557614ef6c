"""Arguments of the model and of its factory: shapes that are known at once, what cannot be, and the summary."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import vit_deploy
from tests.features import FAMILIES, as_arguments
from tests.model.tiny import TINY
from vit_deploy.core import cost
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.errors import ConfigError
from vit_deploy.model.factory import create_vision_transformer
from vit_deploy.model.vit import ViT

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
    behind = [name for name in ("norm", "head") if name in names][:1]
    assert names.index("block_1") == names.index("block_0") + 1
    assert not behind or names.index(behind[0]) == names.index("block_1") + 1
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
