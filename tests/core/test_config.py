from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vit_deploy.core.choices import (
    ACTIVATION_ALIASES,
    Activation,
    FFNType,
    NormalizationPosition,
    NormalizationType,
    Pooling,
)
from vit_deploy.core.config import SCALE_CONFIGS, ViTConfig
from vit_deploy.core.config_checks import as_pair
from vit_deploy.errors import ConfigError, VitDeployError


@st.composite
def configs(draw: st.DrawFn) -> ViTConfig:
    patch = (draw(st.integers(1, 20)), draw(st.integers(1, 20)))
    grid = (draw(st.integers(1, 9)), draw(st.integers(1, 9)))
    heads = draw(st.integers(1, 8))
    class_token = draw(st.booleans())
    distillation_token = class_token and draw(st.booleans())
    include_top = draw(st.booleans())
    poolings = [Pooling.MEAN, Pooling.MAX, Pooling.MAP]
    poolings += [Pooling.CLS, Pooling.CLS_MEAN] if class_token else []
    poolings += [Pooling.CLS_DISTILLATION] if distillation_token else []
    pooling = draw(st.sampled_from(poolings if include_top and not class_token else [None, *poolings]))
    pooled = include_top or pooling is not None
    return ViTConfig(
        image_size=(patch[0] * grid[0], patch[1] * grid[1]),
        patch_size=patch,
        channels=draw(st.integers(1, 13)),
        embed_dim=heads * draw(st.integers(1, 16)),
        num_heads=heads,
        num_layers=draw(st.integers(1, 5)),
        mlp_dim=draw(st.integers(1, 64)),
        num_classes=draw(st.integers(1, 50)),
        include_top=include_top,
        pooling=pooling,
        class_token=class_token,
        distillation_token=distillation_token,
        register_tokens=draw(st.integers(0, 4)),
        layer_scale=draw(st.booleans()),
        qk_norm=draw(st.booleans()),
        pre_norm=draw(st.booleans()),
        norm_after_pooling=pooled and draw(st.booleans()),
        pre_logits_dim=draw(st.integers(0, 9)) if pooled else 0,
        normalization_type=draw(st.sampled_from(list(NormalizationType))),
        normalization_position=draw(st.sampled_from(list(NormalizationPosition))),
        ffn_type=draw(st.sampled_from(list(FFNType))),
        activation=draw(st.sampled_from(list(Activation))),
        epsilon=draw(st.floats(1e-12, 0.1)),
        qkv_bias=draw(st.booleans()),
    )


def test_the_scales_are_those_of_the_papers() -> None:
    assert {name: tuple(scale) for name, scale in SCALE_CONFIGS.items()} == {
        "pico": (192, 3, 6, 4.0),
        "tiny": (192, 3, 12, 4.0),
        "small": (384, 6, 12, 4.0),
        "base": (768, 12, 12, 4.0),
        "large": (1024, 16, 24, 4.0),
        "huge": (1280, 16, 32, 4.0),
    }


def test_a_scale_can_be_read_by_name_and_by_index() -> None:
    pico = SCALE_CONFIGS["pico"]
    assert pico[0] == pico.embed_dim == 192
    assert pico[1] == pico.num_heads == 3
    assert pico[2] == pico.num_layers == 6
    assert pico[3] == pico.mlp_ratio == 4.0


def test_the_table_of_scales_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        SCALE_CONFIGS["mine"] = SCALE_CONFIGS["pico"]


def test_overrides_replace_what_the_scale_says_and_the_hidden_units_follow_the_width() -> None:
    config = ViTConfig.from_scale("tiny", embed_dim=96, num_layers=3)
    assert (config.embed_dim, config.num_heads, config.num_layers, config.mlp_dim) == (96, 3, 3, 384)
    assert ViTConfig.from_scale("tiny", embed_dim=96, mlp_dim=100).mlp_dim == 100


def test_an_unknown_scale_is_answered_with_the_one_it_resembles() -> None:
    with pytest.raises(ConfigError, match=r"unknown scale 'bse'\n  fix: did you mean 'base'\?"):
        ViTConfig.from_scale("bse")
    with pytest.raises(ConfigError, match="choose one of pico, tiny, small, base, large, huge"):
        ViTConfig.from_scale("xyzzy")


def test_the_grid_and_the_sequence_come_from_rectangles_side_by_side(config: ViTConfig) -> None:
    assert config.grid == (3, 8)
    assert config.num_patches == 24
    assert config.sequence_length == 25
    assert config.head_dim == 4


def test_one_number_means_height_and_width() -> None:
    config = ViTConfig(image_size=32, patch_size=8)
    assert (config.image_size, config.patch_size) == ((32, 32), (8, 8))


def test_sizes_and_counts_may_be_numpy_numbers_and_become_plain_ones() -> None:
    config = ViTConfig(image_size=np.int64(32), patch_size=(np.int32(8), 16), embed_dim=np.int64(24), num_heads=3)
    assert config.image_size == (32, 32)
    assert type(config.embed_dim) is int
    assert json.loads(json.dumps(config.to_dict()))["patch_size"] == [8, 16]


@pytest.mark.parametrize(
    ("image_size", "patch_size", "named"),
    [
        ((30, 32), (8, 8), ["height 30 is not a multiple of 8"]),
        ((32, 30), (8, 4), ["width 30 is not a multiple of 4"]),
        ((30, 33), (8, 4), ["height 30 is not a multiple of 8", "width 33 is not a multiple of 4"]),
    ],
)
def test_a_size_that_the_patch_does_not_divide_is_an_error_naming_both_numbers(
    image_size: tuple[int, int], patch_size: tuple[int, int], named: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        ViTConfig(image_size=image_size, patch_size=patch_size)
    assert caught.value.message == f"Image height/width must be divisible by patch size: {', '.join(named)}"


def test_all_problems_are_listed_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        ViTConfig(
            image_size=(30, 32),
            patch_size=(8, 8),
            channels=0,
            embed_dim=10,
            num_heads=3,
            num_layers=-1,
            mlp_dim=2.5,
            num_classes=True,
            pooling="avg",
            normalization_type="batch_norm",
            normalization_position="middle",
            ffn_type="moe",
            activation="sine",
            epsilon=0.0,
            include_top=1,
            qkv_bias="no",
        )
    message = str(caught.value)
    for problem in (
        "height 30 is not a multiple of 8",
        "channels is 0; expected a positive whole number",
        "embed_dim 10 is not a multiple of num_heads 3",
        "num_layers is -1",
        "mlp_dim is 2.5",
        "num_classes is True",
        "pooling is 'avg'; expected one of cls, mean, max",
        "normalization_type is 'batch_norm'; expected one of layer_norm, rms_norm, dynamic_tanh, band_rms",
        "normalization_position is 'middle'; expected one of pre, post",
        "ffn_type is 'moe'; expected one of mlp, swiglu, geglu, glu",
        "activation is 'sine'; expected one of gelu, gelu_tanh",
        "epsilon is 0.0",
        "include_top is 1; expected True or False",
        "qkv_bias is 'no'; expected True or False",
        "fix: correct the options named above",
    ):
        assert problem in message


@pytest.mark.parametrize("size", [0, -8, 2.5, None, True, "16", (8,), (8, 8, 3), (8, None), (8, 0), []])
def test_a_size_that_is_none_is_refused_by_name(size: object) -> None:
    with pytest.raises(ConfigError, match=r"patch_size is .*; expected a positive whole number or"):
        as_pair(size, "patch_size")
    with pytest.raises(ConfigError, match=r"num_heads is 0.*patch_size is "):
        ViTConfig(patch_size=size, num_heads=0)


@pytest.mark.parametrize("epsilon", [float("nan"), 1.0, -1e-6, "1e-6", None, float("inf")])
def test_an_epsilon_that_no_norm_can_have_is_refused(epsilon: object) -> None:
    with pytest.raises(ConfigError, match="epsilon is "):
        ViTConfig(epsilon=epsilon)


def test_a_config_error_is_both_ours_and_a_value_error() -> None:
    with pytest.raises(VitDeployError):
        ViTConfig(num_layers=0)
    with pytest.raises(ValueError, match="num_layers"):
        ViTConfig(num_layers=0)


@pytest.mark.parametrize("alias", ACTIVATION_ALIASES)
def test_an_activation_is_known_by_its_other_name(alias: str) -> None:
    assert ViTConfig(activation=alias).activation == ACTIVATION_ALIASES[alias]


def test_without_a_head_the_number_of_classes_does_not_matter() -> None:
    assert ViTConfig(include_top=False, num_classes=0).num_classes == 0
    with pytest.raises(ConfigError, match="num_classes is 0"):
        ViTConfig(include_top=True, num_classes=0)


@pytest.mark.parametrize(
    ("include_top", "pooling", "effective", "shape", "name"),
    [
        (True, None, "cls", (5,), "logits"),
        (True, "mean", "mean", (5,), "logits"),
        (False, "max", "max", (12,), "features"),
        (False, None, None, (25, 12), "features"),
    ],
)
def test_the_output_follows_head_and_pooling(
    config: ViTConfig,
    include_top: bool,
    pooling: str | None,
    effective: str | None,
    shape: tuple[int, ...],
    name: str,
) -> None:
    changed = config.replace(include_top=include_top, pooling=pooling)
    assert changed.effective_pooling == effective
    assert changed.output_shape == shape
    assert changed.output_name == name


@pytest.mark.parametrize(
    ("changes", "prefix", "shape"),
    [
        ({"register_tokens": 3}, 4, (5,)),
        ({"distillation_token": True, "pooling": "cls_distillation", "include_top": False}, 2, (24,)),
        ({"pooling": "cls_mean", "include_top": False}, 1, (24,)),
        ({"class_token": False, "pooling": "map", "include_top": False}, 0, (12,)),
        ({"class_token": False, "register_tokens": 2, "include_top": False}, 2, (26, 12)),
        ({"pre_logits_dim": 7, "pooling": "cls_mean", "include_top": False}, 1, (7,)),
        ({"pre_logits_dim": 7}, 1, (5,)),
    ],
)
def test_prefix_and_output_follow_the_tokens_and_the_pooling(
    config: ViTConfig, changes: dict[str, Any], prefix: int, shape: tuple[int, ...]
) -> None:
    changed = config.replace(**changes)
    assert changed.num_prefix_tokens == prefix
    assert changed.sequence_length == 24 + prefix
    assert changed.output_shape == shape


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"class_token": False}, "pooling is cls, and class_token is False; expected mean, max, map"),
        ({"class_token": False, "pooling": "cls_mean"}, "pooling is cls_mean, and class_token is False"),
        ({"pooling": "cls_distillation"}, "pooling is cls_distillation, and distillation_token is False"),
        (
            {"class_token": False, "distillation_token": True, "pooling": "mean"},
            "distillation_token is True, and class_token is False; the one stands beside the other",
        ),
        ({"include_top": False, "norm_after_pooling": True}, "norm_after_pooling is True, and nothing is pooled"),
        ({"include_top": False, "pre_logits_dim": 4}, "pre_logits_dim is 4, and nothing is pooled"),
        ({"pre_logits_linear": True}, "pre_logits_linear is True, and pre_logits_dim is 0"),
        ({"include_top": False, "pooling": "cls", "head_norm": True}, "head_norm is True, and there is no head"),
        ({"probabilities": "sparsemax"}, "probabilities is 'sparsemax'; expected one of softmax, sigmoid"),
        ({"head_width": -4}, "head_width is -4; expected a whole number"),
        ({"qk_norm_across_heads": True}, "qk_norm_across_heads is True, and qk_norm is False"),
        ({"qk_norm_type": "rms_norm"}, "qk_norm_type is rms_norm, and qk_norm is False"),
        ({"qk_norm": True, "qk_norm_type": "group_norm"}, "qk_norm_type is 'group_norm'; expected one of layer_norm"),
        ({"qk_norm": True, "qk_norm_epsilon": 1.5}, "qk_norm_epsilon is 1.5; expected 0, or a number below 1"),
        ({"layer_scale_part": "ffn"}, "layer_scale_part is ffn, and layer_scale is False"),
        ({"layer_scale": True, "layer_scale_part": "head"}, "layer_scale_part is 'head'; expected one of both"),
        ({"num_heads": 5}, "embed_dim 12 is not a multiple of num_heads 5"),
        (
            {"num_heads": 5, "head_width": 4, "class_token": False, "pooling": "map"},
            "embed_dim 12 is not a multiple of pool_heads 5",
        ),
        ({"head_width": 6, "rotary": "dinov3"}, "rotary positions divide a head in 4, and head_dim is 6"),
        ({"register_tokens": -1}, "register_tokens is -1; expected a whole number"),
        ({"register_tokens": True}, "register_tokens is True; expected a whole number"),
        ({"pre_logits_dim": 1.5}, "pre_logits_dim is 1.5; expected a whole number"),
        ({"layer_scale": 1e-5}, "layer_scale is 1e-05; expected True or False"),
        ({"qk_norm": "yes", "pre_norm": None}, "qk_norm is 'yes'; expected True or False; pre_norm is None; expected"),
    ],
)
def test_tokens_and_norms_that_do_not_fit_together_are_refused(
    config: ViTConfig, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config.replace(**changes)
    assert problem in caught.value.message


@given(configs())
@settings(max_examples=100, deadline=None)
def test_a_config_survives_the_trip_through_json(config: ViTConfig) -> None:
    assert ViTConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(configs())
@settings(max_examples=50, deadline=None)
def test_patches_cover_the_image_exactly(config: ViTConfig) -> None:
    rows, columns = config.grid
    assert (rows * config.patch_size[0], columns * config.patch_size[1]) == config.image_size
    assert config.head_dim * config.num_heads == config.embed_dim


def test_unknown_fields_of_a_file_are_refused_by_name(config: ViTConfig) -> None:
    with pytest.raises(ConfigError, match="unknown config fields: depth, window; known are activation"):
        ViTConfig.from_dict(config.to_dict() | {"window": 7, "depth": 2})


def test_equal_configs_are_equal_and_usable_as_keys(config: ViTConfig) -> None:
    assert {config: 1}[config.replace()] == 1
    assert config.replace(pooling="mean") != config


def test_a_replacement_is_validated_again(config: ViTConfig) -> None:
    with pytest.raises(ConfigError, match="embed_dim 13 is not a multiple of num_heads 3"):
        config.replace(embed_dim=13)


def test_heads_may_be_wider_or_narrower_than_their_share_of_a_token(config: ViTConfig) -> None:
    changed = config.replace(num_heads=5, head_width=4)
    assert (changed.head_dim, changed.attention_dim) == (4, 20)
    assert changed.to_dict()["head_width"] == 4
    assert ViTConfig.from_dict(changed.to_dict()) == changed


def test_a_norm_of_queries_that_is_the_blocks_is_not_named(config: ViTConfig) -> None:
    plain = config.replace(qk_norm=True)
    named = config.replace(qk_norm=True, qk_norm_type=config.normalization_type, qk_norm_epsilon=config.epsilon)
    assert named == plain
    assert "qk_norm_type" not in named.to_dict()
    assert "qk_norm_epsilon" not in named.to_dict()


def test_a_norm_of_queries_of_its_own_stays_when_the_blocks_norm_is_changed(config: ViTConfig) -> None:
    own = config.replace(qk_norm=True, qk_norm_type="rms_norm", qk_norm_across_heads=True, qk_norm_epsilon=1e-3)
    assert ViTConfig.from_dict(own.to_dict()) == own
    assert own.to_dict()["qk_norm_type"] == "rms_norm"
    assert (own.query_norm_dim, own.query_norm_epsilon) == (config.attention_dim, 1e-3)
    assert own.replace(normalization_type="dynamic_tanh").query_norm_type == "rms_norm"


def test_a_layer_scale_is_of_both_halves_unless_it_says_which(config: ViTConfig) -> None:
    assert config.scaled_halves == ()
    assert config.replace(layer_scale=True).scaled_halves == ("attention", "ffn")
    assert config.replace(layer_scale=True, layer_scale_part="ffn").scaled_halves == ("ffn",)


def test_a_head_width_that_the_other_sizes_say_is_not_named(config: ViTConfig) -> None:
    share = config.embed_dim // config.num_heads
    assert config.replace(head_width=share) == config
    assert "head_width" not in config.replace(head_width=share).to_dict()
