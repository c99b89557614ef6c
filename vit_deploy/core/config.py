"""The config of a ViT: its shape and its variants, without its weights."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

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
from vit_deploy.errors import ConfigError, did_you_mean

if TYPE_CHECKING:  # few models have any, and a device that runs none of them goes without
    from vit_deploy.core.rotary import Rotary


Size = tuple[int, int]


class Scale(NamedTuple):
    """A named size: embed dim, heads, layers and hidden units as a multiple of the embed dim."""

    embed_dim: int
    num_heads: int
    num_layers: int
    mlp_ratio: float


# small to large: Dosovitskiy et al. 2020, table 1, and Touvron et al. 2021 (DeiT), table 1; huge as in
# the former; pico is half of tiny.
SCALE_CONFIGS: Mapping[str, Scale] = MappingProxyType(
    {
        "pico": Scale(192, 3, 6, 4.0),
        "tiny": Scale(192, 3, 12, 4.0),
        "small": Scale(384, 6, 12, 4.0),
        "base": Scale(768, 12, 12, 4.0),
        "large": Scale(1024, 16, 24, 4.0),
        "huge": Scale(1280, 16, 32, 4.0),
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


def in_words(size: Size) -> str:
    """A size as people write it: 384x512."""
    return f"{size[0]}x{size[1]}"


def is_count(value: object) -> TypeGuard[int]:
    """Whether `value` is a whole number, NumPy's included (shapes and sums are made of them), and no bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


@dataclass(frozen=True)
class ViTConfig:
    """Everything the function of a ViT depends on besides its weights.

    Args:
        image_size: (height, width) in pixels; each a multiple of the patch's.
        patch_size: (height, width) in pixels.
        channels: the number of channels of the input images.
        embed_dim: width of a token; a multiple of `num_heads` unless `head_width` is given.
        num_heads: attention heads a block.
        num_layers: encoder blocks.
        mlp_dim: hidden units of the feed-forward half.
        num_classes: outputs of the head.
        include_top: whether there is a head; without it the output is features.
        pooling: how tokens become one vector; None without a head gives the whole sequence, and with
            a head means the class token.
        normalization_type: which norm.
        normalization_position: before or after the halves of a block, or after them and before their sums.
        ffn_type: which feed-forward.
        activation: the activation of the `mlp` feed-forward (gated ones bring their own).
        epsilon: added to the variance, or to the mean square, before the root.
        qkv_bias: whether the query, key and value projections have a bias.
        class_token: whether a class token goes before the patches.
        distillation_token: whether a distillation token follows it.
        register_tokens: the number of registers (Darcet et al. 2023) after the class and distillation tokens.
        layer_scale: whether each half's output is scaled feature by feature before its residual sum.
        layer_scale_part: which half's, if not both.
        qk_norm: whether queries and keys are normalized, those of each head by themselves.
        qk_norm_across_heads: whether those of all heads are normalized together instead, over the whole width.
        qk_norm_type: the norm of queries and keys; None for `normalization_type`, and where it is that.
        qk_norm_epsilon: the epsilon of that norm; 0 for `epsilon`, and where it is that.
        pre_norm: whether the tokens are normalized before the first block.
        patch_padding: pixels of zeros above and left of the image; at the other ends as many are left unread.
        pixel_norm: whether the pixels of each patch are normalized before they are embedded.
        patch_norm: whether the patches are normalized once they are embedded, before tokens and positions join them.
        norm_after_pooling: whether the last norm is that of the pooled vector instead of that of the tokens.
        pre_logits_dim: width of a dense layer with tanh between pooling and head; 0 for none.
        rotary: the rotary positions of queries and keys, see `vit_deploy.core.rotary`; None for none. The position
            table stays beside them, and is zero in models that have none.
        relative_positions: what attention adds to its scores by the distance of two tokens.
        attention_norm: whether what the heads give is normalized before the last projection of the attention.
        ffn_norm: whether the hidden units are normalized before the last projection of the feed-forward.
        pool_heads: attention heads of `map` pooling; 0 for as many as a block has.
        pool_mlp_dim: hidden units of `map` pooling; 0 for as many as a block has.
        pool_dim: width of what `map` pooling gives; 0 for that of a token.
        pool_end: what follows the attention of `map` pooling.
        pool_patches: whether `map` pooling leaves the prefix tokens out.
        last_norm: whether a norm follows the last block; without one its tokens are pooled as they are.
        pre_logits_linear: whether the dense layer between pooling and head has no tanh, as a projection into the space
            of CLIP's images and texts.
        head_norm: whether the vector that the head reads is divided by its root mean square, so that a head of unit
            vectors gives cosines.
        probabilities: what makes probabilities of the logits; the logits themselves do not depend on it.
        head_width: width of one attention head; 0 for `embed_dim / num_heads`, and where it is that.

    Raises:
        ConfigError: no ViT has these options; the message lists all that is wrong.
    """

    image_size: tuple[int, int] = (224, 224)
    patch_size: tuple[int, int] = (16, 16)
    channels: int = 3
    embed_dim: int = 768
    num_heads: int = 12
    num_layers: int = 12
    mlp_dim: int = 3072
    num_classes: int = 1000
    include_top: bool = True
    pooling: Pooling | None = None
    normalization_type: NormalizationType = NormalizationType.LAYER_NORM
    normalization_position: NormalizationPosition = NormalizationPosition.PRE
    ffn_type: FFNType = FFNType.MLP
    activation: Activation = Activation.GELU
    epsilon: float = 1e-6
    qkv_bias: bool = True
    class_token: bool = True
    distillation_token: bool = False
    register_tokens: int = 0
    layer_scale: bool = False
    qk_norm: bool = False
    pre_norm: bool = False
    norm_after_pooling: bool = False
    pre_logits_dim: int = 0
    rotary: Rotary | None = None
    relative_positions: RelativePositions = RelativePositions.NONE
    attention_norm: bool = False
    ffn_norm: bool = False
    pool_heads: int = 0
    pool_mlp_dim: int = 0
    pool_dim: int = 0
    pool_end: PoolEnd = PoolEnd.FFN
    pool_patches: bool = False
    patch_norm: bool = False
    pixel_norm: bool = False
    patch_padding: int = 0
    last_norm: bool = True
    pre_logits_linear: bool = False
    head_norm: bool = False
    probabilities: Probabilities = Probabilities.SOFTMAX
    head_width: int = 0
    qk_norm_across_heads: bool = False
    qk_norm_type: NormalizationType | None = None
    qk_norm_epsilon: float = 0.0
    layer_scale_part: LayerScalePart = LayerScalePart.BOTH

    def __post_init__(self) -> None:
        problems = [*self._settle_choices(), *self._settle_numbers(), *self._settle_sizes(), *self._settle_rotary()]
        if not problems:
            problems += [*self._part_problems(), *self._pooling_problems(), *self._rotary_problems()]
        if problems:
            raise ConfigError("; ".join(problems), fix="correct the options named above")

    def _settle_choices(self) -> Iterator[str]:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            if value is None and name in OPTIONAL_CHOICES:
                continue
            if name == "activation":
                value = ACTIVATION_ALIASES.get(str(value), value)
            if value in list(choices):
                object.__setattr__(self, name, choices(value))
            else:
                yield f"{name} is {value!r}; expected one of {', '.join(choices)}"
        if self.qk_norm_type == self.normalization_type:
            object.__setattr__(self, "qk_norm_type", None)
        for name in FLAGS:
            if not isinstance(getattr(self, name), bool):
                yield f"{name} is {getattr(self, name)!r}; expected True or False"

    def _settle_numbers(self) -> Iterator[str]:
        unsound = set()
        for name in (*SIZES, *OPTIONAL_SIZES, "num_classes"):
            value = getattr(self, name)
            least = 0 if name in OPTIONAL_SIZES or (name == "num_classes" and not self.include_top) else 1
            if is_count(value) and value >= least:
                object.__setattr__(self, name, int(value))
            else:
                unsound.add(name)
                yield f"{name} is {value!r}; expected a {'positive ' if least else ''}whole number"
        if not unsound & {"embed_dim", "num_heads", "head_width"}:
            if self.head_width * self.num_heads == self.embed_dim:
                object.__setattr__(self, "head_width", 0)
            elif not self.head_width and self.embed_dim % self.num_heads:
                yield f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}, and head_width is 0"
        epsilon: object = self.epsilon
        if isinstance(epsilon, numbers.Real) and 0 < float(epsilon) < 1:
            object.__setattr__(self, "epsilon", float(epsilon))
        else:
            yield f"epsilon is {epsilon!r}; expected a number between 0 and 1"
        own: object = self.qk_norm_epsilon
        if isinstance(own, numbers.Real) and 0 <= float(own) < 1:
            object.__setattr__(self, "qk_norm_epsilon", 0.0 if own == self.epsilon else float(own))
        else:
            yield f"qk_norm_epsilon is {own!r}; expected 0, or a number below 1"

    def _settle_sizes(self) -> Iterator[str]:
        problems = []
        for name in ("image_size", "patch_size"):
            try:
                object.__setattr__(self, name, as_pair(getattr(self, name), name))
            except ConfigError as error:
                problems.append(error.message)
        if problems:
            yield from problems
            return
        sides = zip(("height", "width"), self.image_size, self.patch_size, strict=True)
        if wrong := [f"{name} {image} is not a multiple of {patch}" for name, image, patch in sides if image % patch]:
            yield f"Image height/width must be divisible by patch size: {', '.join(wrong)}"
        elif is_count(self.patch_padding) and 2 * self.patch_padding >= min(self.patch_size) and self.patch_padding:
            yield f"patch_padding is {self.patch_padding}; expected less than half a patch of {self.patch_size}"
        elif self.num_patches > MAX_PATCHES:
            yield f"an image of {self.image_size} has {self.num_patches} patches; expected at most {MAX_PATCHES}"

    def _settle_rotary(self) -> Iterator[str]:
        if self.rotary is None:
            return
        from vit_deploy.core.rotary import as_rotary

        try:
            object.__setattr__(self, "rotary", as_rotary(self.rotary))
        except ConfigError as error:
            yield error.message

    def _part_problems(self) -> Iterator[str]:
        if not self.qk_norm:
            of_norms = [name for name in OF_QK_NORM if getattr(self, name) != LATER[name]]
            yield from (f"{name} is {getattr(self, name)}, and qk_norm is False" for name in of_norms)
        if self.layer_scale_part is not LayerScalePart.BOTH and not self.layer_scale:
            yield f"layer_scale_part is {self.layer_scale_part}, and layer_scale is False"

    def _rotary_problems(self) -> Iterator[str]:
        if self.rotary is None:
            return
        parts = 2 if self.rotary.learns_frequencies else 4
        if self.head_dim % parts:
            yield f"rotary positions divide a head in {parts}, and head_dim is {self.head_dim}"
        if self.rotary.turns_class_token and not self.class_token:
            yield f"rotary is {self.rotary.convention}, which turns the class token, and class_token is False"
        if self.rotary.turns_class_token and self.distillation_token:
            yield f"rotary is {self.rotary.convention}, which has no distillation token, and distillation_token is True"

    def _pooling_problems(self) -> Iterator[str]:
        pooling = self.effective_pooling
        needs_class = pooling in (Pooling.CLS, Pooling.CLS_MEAN, Pooling.CLS_DISTILLATION)
        if needs_class and not self.class_token:
            yield f"pooling is {pooling}, and class_token is False; expected {', '.join(CLASSLESS_POOLINGS)}"
        if self.distillation_token and not self.class_token:
            yield "distillation_token is True, and class_token is False; the one stands beside the other"
        if pooling is Pooling.CLS_DISTILLATION and not self.distillation_token:
            yield f"pooling is {pooling}, and distillation_token is False"
        if not self.num_prefix_tokens and (pooling is Pooling.PREFIX_MEAN or self.pool_patches):
            what = "pool_patches is True" if self.pool_patches else f"pooling is {pooling}"
            yield f"{what}, and there are no prefix tokens"
        if pooling is Pooling.MAP and self.pooled_dim % self.probe_heads:
            width = "pool_dim" if self.pool_dim else "embed_dim"
            yield f"{width} {self.pooled_dim} is not a multiple of pool_heads {self.probe_heads}"
        if self.pool_mlp_dim and self.pool_end is not PoolEnd.FFN:
            yield f"pool_mlp_dim is {self.pool_mlp_dim}, and pool_end is {self.pool_end}"
        if self.patch_padding and self.pixel_norm:
            yield f"patch_padding is {self.patch_padding}, and pixel_norm is True; expected one of them at most"
        if self.norm_after_pooling and not self.last_norm:
            yield "norm_after_pooling is True, and last_norm is False: it is the last norm that follows the pooling"
        if self.pre_logits_linear and not self.pre_logits_dim:
            yield "pre_logits_linear is True, and pre_logits_dim is 0"
        if self.head_norm and not self.include_top:
            yield "head_norm is True, and there is no head"
        if pooling is not Pooling.MAP:
            of_a_map = [name for name in OF_A_MAP if getattr(self, name) != LATER[name]]
            yield from (f"{name} is {getattr(self, name)}, and pooling is {pooling}" for name in of_a_map)
        if pooling is None:
            of_a_vector = [name for name in ("norm_after_pooling", "pre_logits_dim") if getattr(self, name)]
            yield from (f"{name} is {getattr(self, name)}, and nothing is pooled" for name in of_a_vector)

    @property
    def grid(self) -> tuple[int, int]:
        """Patches along (height, width)."""
        return (self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1])

    @property
    def num_patches(self) -> int:
        """Patch tokens of an image."""
        return self.grid[0] * self.grid[1]

    @property
    def num_prefix_tokens(self) -> int:
        """Tokens in front of the patches: class, distillation and registers."""
        return self.class_token + self.distillation_token + self.register_tokens

    @property
    def patch_dim(self) -> int:
        """Numbers of a patch's pixels."""
        return self.patch_size[0] * self.patch_size[1] * self.channels

    @property
    def sequence_length(self) -> int:
        """Tokens an encoder block sees."""
        return self.num_prefix_tokens + self.num_patches

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.head_width or self.embed_dim // self.num_heads

    @property
    def attention_dim(self) -> int:
        """Width of the queries, keys or values of all heads of a block."""
        return self.num_heads * self.head_dim

    @property
    def query_norm_type(self) -> NormalizationType:
        """The norm of queries and keys, where they have one."""
        return self.qk_norm_type or self.normalization_type

    @property
    def query_norm_epsilon(self) -> float:
        """The epsilon of the norm of queries and keys, where they have one."""
        return self.qk_norm_epsilon or self.epsilon

    @property
    def query_norm_dim(self) -> int:
        """How many features of queries, or of keys, are normalized together."""
        return self.attention_dim if self.qk_norm_across_heads else self.head_dim

    @property
    def scaled_halves(self) -> tuple[str, ...]:
        """The halves of a block that have a layer scale, of "attention" and "ffn"."""
        if not self.layer_scale:
            return ()
        return HALVES if self.layer_scale_part is LayerScalePart.BOTH else (str(self.layer_scale_part),)

    @property
    def probe_heads(self) -> int:
        """Attention heads of `map` pooling."""
        return self.pool_heads or self.num_heads

    @property
    def probe_mlp_dim(self) -> int:
        """Hidden units of `map` pooling."""
        return self.pool_mlp_dim or self.mlp_dim

    @property
    def effective_pooling(self) -> Pooling | None:
        """`pooling`, with the class token where a head needs a vector and none was asked for."""
        return Pooling.CLS if self.include_top and self.pooling is None else self.pooling

    @property
    def num_tokens_read(self) -> int:
        """How many of the last block's tokens, from the first on, the output depends on."""
        match self.effective_pooling:
            case Pooling.CLS:
                return 1
            case Pooling.CLS_DISTILLATION:
                return 2
            case _:
                return self.sequence_length

    def turns_queries(self, block: int) -> bool:
        """Whether rotary positions turn any of the queries of a block that its output is computed from."""
        if self.rotary is None:
            return False
        few = block == self.num_layers - 1 and self.num_tokens_read <= self.num_prefix_tokens
        return self.rotary.turns_class_token or not few

    @property
    def projection_after_norm(self) -> str | None:
        """The projection that reads what the last norm gives, with no more in between than a choice of tokens."""
        of_a_choice = self.norm_after_pooling or self.effective_pooling in (Pooling.CLS, Pooling.CLS_DISTILLATION)
        if not (of_a_choice and self.last_norm):
            return None
        if self.pre_logits_dim:
            return "pre_logits"
        return "head" if self.include_top and not self.head_norm else None

    @property
    def projection_after_pool(self) -> str | None:
        """The projection that reads what `map` pooling gives, where that ends in a norm or in its attention."""
        ends = self.effective_pooling is Pooling.MAP and self.pool_end is not PoolEnd.FFN
        if not ends or self.norm_after_pooling:
            return None
        if self.pre_logits_dim:
            return "pre_logits"
        return "head" if self.include_top and not self.head_norm else None

    @property
    def pooled_dim(self) -> int:
        """Width of what the pooling gives."""
        if self.effective_pooling is Pooling.MAP and self.pool_dim:
            return self.pool_dim
        beside = self.effective_pooling in (Pooling.CLS_DISTILLATION, Pooling.CLS_MEAN)
        return 2 * self.embed_dim if beside else self.embed_dim

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Shape of one image's output: (classes,), (width of the vector,) or (tokens, embed dim)."""
        if self.include_top:
            return (self.num_classes,)
        if self.pooling is not None:
            return (self.pre_logits_dim or self.pooled_dim,)
        return (self.sequence_length, self.embed_dim)

    @property
    def output_name(self) -> str:
        """What an exported model calls its output."""
        return "logits" if self.include_top else "features"

    def replace(self, **changes: Any) -> ViTConfig:
        """A copy with some fields changed, validated again."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, one a field; without the fields of `LATER` that have their default.

        So versions that know no such field read the documents of models that do without.
        """
        plain = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        plain = {name: value for name, value in plain.items() if value != LATER.get(name, ...)}
        plain["rotary"] = None if self.rotary is None else self.rotary.to_dict()
        for name in ("image_size", "patch_size"):
            plain[name] = list(plain[name])
        return {name: str(value) if isinstance(value, StrEnum) else value for name, value in plain.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ViTConfig:
        """The inverse of `to_dict`.

        Raises:
            ConfigError: unknown fields, or values no ViT can have.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(
                f"unknown config fields: {', '.join(unknown)}; known are {', '.join(sorted(known))}",
                fix="remove them, or update vit-deploy if the file is newer than this version",
            )
        return cls(**values)

    @classmethod
    def from_scale(cls, scale: str, **overrides: Any) -> ViTConfig:
        """A named scale; any field can be overridden. The hidden units follow an overridden embed dim.

        Raises:
            ConfigError: there is no such scale, or the overrides do not fit.
        """
        if scale not in SCALE_CONFIGS:
            raise ConfigError(f"unknown scale {scale!r}", fix=did_you_mean(str(scale), SCALE_CONFIGS))
        size = SCALE_CONFIGS[scale]
        embed_dim = overrides.get("embed_dim", size.embed_dim)
        fields: dict[str, Any] = {
            "embed_dim": size.embed_dim,
            "num_heads": size.num_heads,
            "num_layers": size.num_layers,
            "mlp_dim": int((embed_dim if is_count(embed_dim) else size.embed_dim) * size.mlp_ratio),
        }
        return cls(**(fields | overrides))


MAX_PATCHES = 1 << 20  # attention compares each with each: no machine holds the scores of more

SIZES = ("channels", "embed_dim", "num_heads", "num_layers", "mlp_dim")
OF_A_MAP = ("pool_heads", "pool_mlp_dim", "pool_dim", "pool_end", "pool_patches")
OF_QK_NORM = ("qk_norm_across_heads", "qk_norm_type", "qk_norm_epsilon")
HALVES = ("attention", "ffn")
OPTIONAL_CHOICES = ("pooling", "qk_norm_type")  # None for none, or for what another field says
OPTIONAL_SIZES = (  # zero for none, or for what another size says
    *("register_tokens", "pre_logits_dim", *OF_A_MAP[:3], "patch_padding", "head_width"),
)
FLAGS = (
    *("include_top", "qkv_bias", "class_token", "distillation_token", "layer_scale", "qk_norm", "pre_norm"),
    *("norm_after_pooling", "attention_norm", "ffn_norm", "patch_norm", "pixel_norm", "last_norm"),
    *("pre_logits_linear", "head_norm", "pool_patches", "qk_norm_across_heads"),
)
LATER: Mapping[str, object] = MappingProxyType(
    {
        "relative_positions": RelativePositions.NONE,
        "patch_norm": False,
        "pixel_norm": False,
        "patch_padding": 0,
        **{"attention_norm": False, "ffn_norm": False, "pool_heads": 0, "pool_mlp_dim": 0},
        **{"pool_dim": 0, "pool_end": PoolEnd.FFN, "pool_patches": False},
        "last_norm": True,
        **{"pre_logits_linear": False, "head_norm": False, "probabilities": Probabilities.SOFTMAX},
        "head_width": 0,
        **{"qk_norm_across_heads": False, "qk_norm_type": None, "qk_norm_epsilon": 0.0},
        "layer_scale_part": LayerScalePart.BOTH,
    }
)
"""Fields that documents name only where they differ from this default."""
CLASSLESS_POOLINGS = (Pooling.MEAN, Pooling.MAX, Pooling.MAP)

_CHOICES: Mapping[str, type[StrEnum]] = MappingProxyType(
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
