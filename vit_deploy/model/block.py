"""The encoder block: attention and feed-forward on a residual stream."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import keras

from vit_deploy.core.choices import NormalizationPosition
from vit_deploy.core.config import ViTConfig
from vit_deploy.model.attention import Attention
from vit_deploy.model.feed_forward import FeedForward
from vit_deploy.model.layers import LayerScale, NamedVariables, take_tokens
from vit_deploy.model.norms import Norm
from vit_deploy.model.options import WeightOptions
from vit_deploy.model.relative import RelativeScores


@keras.saving.register_keras_serializable("vit_deploy")
class TransformerBlock(NamedVariables):
    """One encoder block: attention and feed-forward, each with a norm and a residual sum.

    Args:
        config: the config of the whole ViT.
        dropout_rate: after each half and inside the feed-forward, while training.
        attention_dropout_rate: the dropout rate of attention probabilities, while training.
        stochastic_depth_rate: chance that an image skips a half of this block (Huang et al. 2016), while training.
        flash_attention: see `Attention`.
        weights: initializers of the projections.
    """

    def __init__(
        self,
        config: ViTConfig | Mapping[str, Any],
        dropout_rate: float = 0.0,
        attention_dropout_rate: float = 0.0,
        stochastic_depth_rate: float = 0.0,
        flash_attention: bool | None = False,
        weights: WeightOptions | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = config if isinstance(config, ViTConfig) else ViTConfig.from_dict(config)
        self.dropout_rate = dropout_rate
        self.attention_dropout_rate = attention_dropout_rate
        self.stochastic_depth_rate = stochastic_depth_rate
        self.flash_attention = flash_attention
        self.weight_options = WeightOptions.of(weights)
        policy = self.dtype_policy
        both = self.config.normalization_position is NormalizationPosition.PARALLEL
        self.norm1: Any
        self.norm2: Any
        self.norm1, self.norm2 = (
            Norm(self.config.normalization_type, self.config.epsilon, name=name, dtype=policy) if needed else None
            for name, needed in (("norm1", True), ("norm2", not both))
        )
        self.attention = Attention(
            self.config.embed_dim,
            self.config.num_heads,
            qkv_bias=self.config.qkv_bias,
            qk_norm=str(self.config.query_norm_type) if self.config.qk_norm else "",
            epsilon=self.config.epsilon,
            flash_attention=flash_attention,
            dropout_rate=attention_dropout_rate,
            weights=self.weight_options,
            prefix=f"{self.name}.attention",
            norm=str(self.config.normalization_type) if self.config.attention_norm else "",
            positions=None if self.config.rotary is None else self.config,
            relative=RelativeScores.of_block(self.config, f"{self.name}.attention", self.weight_options, policy),
            head_width=self.config.head_width,
            qk_norm_across_heads=self.config.qk_norm_across_heads,
            qk_norm_epsilon=self.config.qk_norm_epsilon,
            name="attention",
            dtype=policy,
        )
        self.ffn = FeedForward(
            self.config.embed_dim,
            self.config.mlp_dim,
            ffn_type=self.config.ffn_type,
            activation=self.config.activation,
            dropout_rate=dropout_rate,
            weights=self.weight_options,
            prefix=f"{self.name}.ffn",
            norm=str(self.config.normalization_type) if self.config.ffn_norm else "",
            epsilon=self.config.epsilon,
            name="ffn",
            dtype=policy,
        )
        self.scale1, self.scale2 = (
            LayerScale(name=name, dtype=policy) if half in self.config.scaled_halves else None
            for name, half in (("scale1", "attention"), ("scale2", "ffn"))
        )
        self.dropout = keras.layers.Dropout(dropout_rate, name="dropout", dtype=policy)
        # One draw an image: the noise is broadcast over tokens and features.
        self.drop_path = keras.layers.Dropout(
            stochastic_depth_rate, noise_shape=(None, 1, 1), name="drop_path", dtype=policy
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build the norms, both halves and their scales."""
        for layer in (self.norm1, self.attention, self.scale1, self.norm2, self.ffn, self.scale2):
            if layer is not None:
                layer.build(input_shape)

    def call(self, x: Any, training: bool | None = None, shared: Any = None) -> Any:
        """`(batch, tokens, dim)` to the same, or to the first tokens alone, see `Attention.num_queries`."""
        position = self.config.normalization_position
        pre, inside = position is NormalizationPosition.PRE, position is NormalizationPosition.RES_POST
        attention: Any = self.attention if shared is None else functools.partial(self._attend, shared)
        halves = ((self.norm1, attention, self.scale1), (self.norm2, self.ffn, self.scale2))
        normed = self.norm1(x) if self.norm2 is None else None
        for norm, half, scale in halves:
            if normed is not None:
                normed = normed if normed.shape[1] == x.shape[1] else take_tokens(normed, 0, x.shape[1])
                change = half(normed, training=training)
            else:
                change = half(norm(x) if pre else x, training=training)
            change = norm(change) if inside else change
            change = self.dropout(change if scale is None else scale(change), training=training)
            x = x if change.shape[1] == x.shape[1] else take_tokens(x, 0, change.shape[1])
            x = x + self.drop_path(change, training=training)
            x = norm(x) if position is NormalizationPosition.POST else x
        return x

    def _attend(self, shared: Any, x: Any, training: bool | None = None) -> Any:
        return self.attention(x, training=training, shared=shared)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        config: dict[str, Any] = super().get_config()
        return config | {
            "config": self.config.to_dict(),
            "dropout_rate": self.dropout_rate,
            "attention_dropout_rate": self.attention_dropout_rate,
            "stochastic_depth_rate": self.stochastic_depth_rate,
            "flash_attention": self.flash_attention,
            "weights": self.weight_options.to_config(),
        }
