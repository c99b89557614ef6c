"""The config of a ViT: its shape and its variants, without its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from vit_deploy.core.choices import (
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
from vit_deploy.core.config_checks import is_count, settle
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


def in_words(size: Size) -> str:
    """A size as people write it: 384x512."""
    return f"{size[0]}x{size[1]}"


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
        if problems := settle(self):
            raise ConfigError("; ".join(problems), fix="correct the options named above")

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


HALVES = ("attention", "ffn")
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
