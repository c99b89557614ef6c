"""Checks of a ViT's config, which bring its fields into their types and name everything that no ViT has."""

from __future__ import annotations

import numbers
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeGuard

from vit_deploy.core.choices import (
    ACTIVATION_ALIASES,
    Activation,
    FFNType,
    LayerScalePart,
    NormalizationPosition,
    NormalizationType,
    PoolEnd,
    Pooling,
    Probabilities,
    RelativePositions,
)
from vit_deploy.core.older_python import StrEnum
from vit_deploy.errors import ConfigError

if TYPE_CHECKING:
    from vit_deploy.core.config import ViTConfig

MAX_PATCHES = 1 << 20  # attention compares each with each: no machine holds the scores of more

SIZES = ("channels", "embed_dim", "num_heads", "num_layers", "mlp_dim")
OF_A_MAP = ("pool_heads", "pool_mlp_dim", "pool_dim", "pool_end", "pool_patches")
OF_QK_NORM = ("qk_norm_across_heads", "qk_norm_type", "qk_norm_epsilon")
OPTIONAL_CHOICES = ("pooling", "qk_norm_type")  # None for none, or for what another field says
OPTIONAL_SIZES = (  # zero for none, or for what another size says
    *("register_tokens", "pre_logits_dim", *OF_A_MAP[:3], "patch_padding", "head_width"),
)
FLAGS = (
    *("include_top", "qkv_bias", "class_token", "distillation_token", "layer_scale", "qk_norm", "pre_norm"),
    *("norm_after_pooling", "attention_norm", "ffn_norm", "patch_norm", "pixel_norm", "last_norm"),
    *("pre_logits_linear", "head_norm", "pool_patches", "qk_norm_across_heads"),
)
CLASSLESS_POOLINGS = (Pooling.MEAN, Pooling.MAX, Pooling.MAP)

CHOICES: Mapping[str, type[StrEnum]] = MappingProxyType(
    {
        "pooling": Pooling,
        "normalization_type": NormalizationType,
        "qk_norm_type": NormalizationType,
        "layer_scale_part": LayerScalePart,
        "normalization_position": NormalizationPosition,
        "ffn_type": FFNType,
        "activation": Activation,
        "relative_positions": RelativePositions,
        "pool_end": PoolEnd,
        "probabilities": Probabilities,
    }
)


def as_pair(value: object, name: str) -> tuple[int, int]:
    """`value` as (height, width); one number means both.

    Raises:
        ConfigError: it is not one or two positive whole numbers.
    """
    pair = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(pair) != 2 or not all(is_count(side) and side > 0 for side in pair):
        raise ConfigError(
            f"{name} is {value!r}; expected a positive whole number or (height, width)",
            fix=f"give {name} as 16 or (8, 16)",
        )
    return (int(pair[0]), int(pair[1]))


def is_count(value: object) -> TypeGuard[int]:
    """Whether `value` is a whole number, NumPy's included (shapes and sums are made of them), and no bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def settle(config: ViTConfig) -> list[str]:
    """Bring the fields of a config that is being made into their types.

    Args:
        config: the config, whose fields are as they were given.

    Returns:
        All that is wrong with it, in words; empty if nothing is.
    """
    wrong = [*_settle_choices(config), *_settle_numbers(config), *_settle_sizes(config), *_settle_rotary(config)]
    return wrong or [*_part_problems(config), *_pooling_problems(config), *_rotary_problems(config)]


def _default_of(config: ViTConfig, name: str) -> object:
    default: object = config.__dataclass_fields__[name].default
    return default


def _settle_choices(config: ViTConfig) -> Iterator[str]:
    for name, choices in CHOICES.items():
        value = getattr(config, name)
        if value is None and name in OPTIONAL_CHOICES:
            continue
        if name == "activation":
            value = ACTIVATION_ALIASES.get(str(value), value)
        if value in list(choices):
            object.__setattr__(config, name, choices(value))
        else:
            yield f"{name} is {value!r}; expected one of {', '.join(choices)}"
    if config.qk_norm_type == config.normalization_type:
        object.__setattr__(config, "qk_norm_type", None)
    for name in FLAGS:
        if not isinstance(getattr(config, name), bool):
            yield f"{name} is {getattr(config, name)!r}; expected True or False"


def _settle_numbers(config: ViTConfig) -> Iterator[str]:
    unsound = set()
    for name in (*SIZES, *OPTIONAL_SIZES, "num_classes"):
        value = getattr(config, name)
        least = 0 if name in OPTIONAL_SIZES or (name == "num_classes" and not config.include_top) else 1
        if is_count(value) and value >= least:
            object.__setattr__(config, name, int(value))
        else:
            unsound.add(name)
            yield f"{name} is {value!r}; expected a {'positive ' if least else ''}whole number"
    if not unsound & {"embed_dim", "num_heads", "head_width"}:
        if config.head_width * config.num_heads == config.embed_dim:
            object.__setattr__(config, "head_width", 0)
        elif not config.head_width and config.embed_dim % config.num_heads:
            yield f"embed_dim {config.embed_dim} is not a multiple of num_heads {config.num_heads}"
    epsilon: object = config.epsilon
    if isinstance(epsilon, numbers.Real) and 0 < float(epsilon) < 1:
        object.__setattr__(config, "epsilon", float(epsilon))
    else:
        yield f"epsilon is {epsilon!r}; expected a number between 0 and 1"
    own: object = config.qk_norm_epsilon
    if isinstance(own, numbers.Real) and 0 <= float(own) < 1:
        object.__setattr__(config, "qk_norm_epsilon", 0.0 if own == config.epsilon else float(own))
    else:
        yield f"qk_norm_epsilon is {own!r}; expected 0, or a number below 1"


def _settle_sizes(config: ViTConfig) -> Iterator[str]:
    problems = []
    for name in ("image_size", "patch_size"):
        try:
            object.__setattr__(config, name, as_pair(getattr(config, name), name))
        except ConfigError as error:
            problems.append(error.message)
    if problems:
        yield from problems
        return
    sides = zip(("height", "width"), config.image_size, config.patch_size, strict=True)
    if wrong := [f"{name} {image} is not a multiple of {patch}" for name, image, patch in sides if image % patch]:
        yield f"Image height/width must be divisible by patch size: {', '.join(wrong)}"
    elif is_count(config.patch_padding) and 2 * config.patch_padding >= min(config.patch_size) and config.patch_padding:
        yield f"patch_padding is {config.patch_padding}; expected less than half a patch of {config.patch_size}"
    elif config.num_patches > MAX_PATCHES:
        yield f"an image of {config.image_size} has {config.num_patches} patches; expected at most {MAX_PATCHES}"


def _settle_rotary(config: ViTConfig) -> Iterator[str]:
    if config.rotary is None:
        return
    from vit_deploy.core.rotary import as_rotary

    try:
        object.__setattr__(config, "rotary", as_rotary(config.rotary))
    except ConfigError as error:
        yield error.message


def _part_problems(config: ViTConfig) -> Iterator[str]:
    if not config.qk_norm:
        of_norms = [name for name in OF_QK_NORM if getattr(config, name) != _default_of(config, name)]
        yield from (f"{name} is {getattr(config, name)}, and qk_norm is False" for name in of_norms)
    if config.layer_scale_part is not LayerScalePart.BOTH and not config.layer_scale:
        yield f"layer_scale_part is {config.layer_scale_part}, and layer_scale is False"


def _rotary_problems(config: ViTConfig) -> Iterator[str]:
    if config.rotary is None:
        return
    parts = 2 if config.rotary.learns_frequencies else 4
    if config.head_dim % parts:
        yield f"rotary positions divide a head in {parts}, and head_dim is {config.head_dim}"
    if config.rotary.turns_class_token and not config.class_token:
        yield f"rotary is {config.rotary.convention}, which turns the class token, and class_token is False"
    if config.rotary.turns_class_token and config.distillation_token:
        yield f"rotary is {config.rotary.convention}, which has no distillation token, and distillation_token is True"


def _pooling_problems(config: ViTConfig) -> Iterator[str]:
    pooling = config.effective_pooling
    needs_class = pooling in (Pooling.CLS, Pooling.CLS_MEAN, Pooling.CLS_DISTILLATION)
    if needs_class and not config.class_token:
        yield f"pooling is {pooling}, and class_token is False; expected {', '.join(CLASSLESS_POOLINGS)}"
    if config.distillation_token and not config.class_token:
        yield "distillation_token is True, and class_token is False; the one stands beside the other"
    if pooling is Pooling.CLS_DISTILLATION and not config.distillation_token:
        yield f"pooling is {pooling}, and distillation_token is False"
    if not config.num_prefix_tokens and (pooling is Pooling.PREFIX_MEAN or config.pool_patches):
        what = "pool_patches is True" if config.pool_patches else f"pooling is {pooling}"
        yield f"{what}, and there are no prefix tokens"
    if pooling is Pooling.MAP and config.pooled_dim % config.probe_heads:
        width = "pool_dim" if config.pool_dim else "embed_dim"
        yield f"{width} {config.pooled_dim} is not a multiple of pool_heads {config.probe_heads}"
    if config.pool_mlp_dim and config.pool_end is not PoolEnd.FFN:
        yield f"pool_mlp_dim is {config.pool_mlp_dim}, and pool_end is {config.pool_end}"
    if config.patch_padding and config.pixel_norm:
        yield f"patch_padding is {config.patch_padding}, and pixel_norm is True; expected one of them at most"
    if config.norm_after_pooling and not config.last_norm:
        yield "norm_after_pooling is True, and last_norm is False: it is the last norm that follows the pooling"
    if config.pre_logits_linear and not config.pre_logits_dim:
        yield "pre_logits_linear is True, and pre_logits_dim is 0"
    if config.head_norm and not config.include_top:
        yield "head_norm is True, and there is no head"
    if pooling is not Pooling.MAP:
        of_a_map = [name for name in OF_A_MAP if getattr(config, name) != _default_of(config, name)]
        yield from (f"{name} is {getattr(config, name)}, and pooling is {pooling}" for name in of_a_map)
    if pooling is None:
        of_a_vector = [name for name in ("norm_after_pooling", "pre_logits_dim") if getattr(config, name)]
        yield from (f"{name} is {getattr(config, name)}, and nothing is pooled" for name in of_a_vector)
