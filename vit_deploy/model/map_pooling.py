"""Attention pooling: a learned probe that attends to all tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from vit_deploy.core.choices import PoolEnd
from vit_deploy.core.config import ViTConfig
from vit_deploy.model.feed_forward import FeedForward
from vit_deploy.model.layers import HALF_TYPES, NamedVariables, Projection, side_of, take_patches
from vit_deploy.model.norms import Norm
from vit_deploy.model.options import WeightOptions


@keras.saving.register_keras_serializable("vit_deploy")
class ProbeAttention(NamedVariables):
    """Multi-head attention of a probe `(1, width)` to tokens `(batch, tokens, dim)`, giving `(batch, width)`."""

    patches_of: ViTConfig | None = None
    """The config of a ViT whose prefix tokens are left out; None takes all. Set by the pooling."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        weights: WeightOptions | Mapping[str, Any] | None = None,
        prefix: str = "map_pool.attention",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_dim = embed_dim // num_heads
        self.weight_options = WeightOptions.of(weights)
        self.prefix = prefix
        self.query, self.key, self.value, self.out = (
            Projection(
                embed_dim, name=role, dtype=self.dtype_policy, **self.weight_options.projection(f"{prefix}.{role}")
            )
            for role in ("query", "key", "value", "out")
        )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build the four projections."""
        for projection in (self.query, self.out):
            projection.build((None, self.embed_dim))
        for projection in (self.key, self.value):
            projection.build((None, input_shape[-1]))

    def call(self, probe: Any, tokens: Any) -> Any:
        """The probe's view of every image."""
        # The probe is the same for all images: its query is (heads, 1, head dim), and broadcasts over the batch.
        query = ops.reshape(self.query(probe), (1, self.num_heads, 1, self.head_dim)) * (1 / math.sqrt(self.head_dim))
        key, value = (self._heads(role(tokens)) for role in (self.key, self.value))
        scores = ops.matmul(query, ops.transpose(key, (0, 2, 3, 1)))
        half = keras.backend.standardize_dtype(scores.dtype) in HALF_TYPES
        weights = ops.softmax(ops.cast(scores, "float32") if half else scores, axis=-1)
        weights = ops.cast(weights, scores.dtype) if half else weights
        mixed = ops.matmul(weights, ops.transpose(value, (0, 2, 1, 3)))
        return self.out(ops.reshape(mixed, (-1, self.embed_dim)))

    def _heads(self, values: Any) -> Any:
        # Left out behind the product, so that all tokens are rows of one matrix until then.
        taken = values if self.patches_of is None else take_patches(values, self.patches_of)
        return ops.reshape(taken, (-1, side_of(taken, 1), self.num_heads, self.head_dim))

    def compute_output_shape(
        self, probe_shape: tuple[int | None, ...], tokens_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """`(batch, width)`."""
        return (tokens_shape[0], self.embed_dim)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        config: dict[str, Any] = super().get_config()
        return config | {
            "embed_dim": self.embed_dim,
            "num_heads": self.num_heads,
            "weights": self.weight_options.to_config(),
            "prefix": self.prefix,
        }


@keras.saving.register_keras_serializable("vit_deploy")
class MapPooling(NamedVariables):
    """Multi-head attention pooling (Zhai et al. 2022): `(batch, tokens, dim)` to `(batch, width)`.

    Args:
        config: the config of the whole ViT.
        weights: initializers of the layer's weights.
    """

    def __init__(
        self,
        config: ViTConfig | Mapping[str, Any],
        weights: WeightOptions | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = config if isinstance(config, ViTConfig) else ViTConfig.from_dict(config)
        self.weight_options = WeightOptions.of(weights)
        own, policy = self.config, self.dtype_policy
        self.attention = ProbeAttention(
            own.pooled_dim, own.probe_heads, self.weight_options, "map_pool.attention", name="attention", dtype=policy
        )
        if own.pool_patches:
            self.attention.patches_of = own
        self.norm: Any = None
        self.ffn: Any = None
        if own.pool_end is not PoolEnd.NONE:
            self.norm = Norm(own.normalization_type, own.epsilon, name="norm", dtype=policy)
        if own.pool_end is PoolEnd.FFN:
            self.ffn = FeedForward(
                own.pooled_dim,
                own.probe_mlp_dim,
                activation=own.activation,
                weights=self.weight_options,
                prefix="map_pool.ffn",
                name="ffn",
                dtype=policy,
            )

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the probe (1, width) and build the parts."""
        dim = self.config.pooled_dim
        self.probe = self.add_weight(
            name="probe", shape=(1, dim), initializer=self.weight_options.drawn("map_pool.probe")
        )
        self.attention.build(input_shape)
        for layer in (self.norm, self.ffn):
            if layer is not None:
                layer.build((None, dim))

    def call(self, tokens: Any) -> Any:
        """One vector an image."""
        pooled = self.attention(ops.convert_to_tensor(self.probe), tokens)
        if self.norm is None:
            return pooled
        normed = self.norm(pooled)
        return normed if self.ffn is None else pooled + self.ffn(normed)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """`(batch, width)`."""
        return (input_shape[0], self.config.pooled_dim)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        config: dict[str, Any] = super().get_config()
        return config | {"config": self.config.to_dict(), "weights": self.weight_options.to_config()}
