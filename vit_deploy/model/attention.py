"""Multi-head self-attention, with rotary and relative positions."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
from keras import ops

from vit_deploy.core.config import ViTConfig
from vit_deploy.errors import ConfigError
from vit_deploy.model.layers import HALF_TYPES, NamedVariables, Projection, side_of, take_tokens
from vit_deploy.model.norms import Norm
from vit_deploy.model.options import WeightOptions
from vit_deploy.model.relative import RelativeScores
from vit_deploy.model.rotary import (
    HEADS_FIRST,
    TOKENS_FIRST,
    TRANSPOSED,
    Layout,
    Tables,
    fixed_tables,
    learned_tables,
    turned,
)


@keras.saving.register_keras_serializable("vit_deploy")
class Attention(NamedVariables):
    """Multi-head self-attention with projections of their own for query, key and value.

    Args:
        embed_dim: width of a token.
        num_heads: that share it equally, unless `head_width` says more.
        qkv_bias: whether query, key and value have a bias.
        qk_norm: kind of the norm of each head's queries and keys; empty for none.
        epsilon: the epsilon of the norms.
        flash_attention: True asks for the backend's fused kernel and fails where there is none; None lets
            Keras choose; False spells the products out, which is what converters need.
        dropout_rate: the dropout rate of attention probabilities, while training.
        weights: initializers of the projections, from the block that owns this layer.
        prefix: canonical name of this layer.
        norm: kind of the norm in front of the last projection; empty for none.
        positions: the config of the whole ViT, where queries and keys have rotary positions; None for none.
        relative: the layer of its own relative positions, or its config; None for none.
        head_width: width of one head; 0 for an equal share of `embed_dim`.
        qk_norm_across_heads: whether the queries, and the keys, of all heads are normalized together.
        qk_norm_epsilon: the epsilon of the norm of queries and keys; 0 for `epsilon`.
    """

    num_queries: int | None = None
    """How many tokens, from the first on, attend to all; None for every token. Set where the others are not read."""

    transposed_product: Callable[[Any, Any], Any] | None = None
    """From `(…, rows, n)` and `(…, columns, n)` to `(…, rows, columns)`; set where it has to be a single operator."""

    tables: Tables | None = None
    """Cosine and sine of rotary positions as constants; set where they must not be computed from variables."""

    turned_first = False
    """Whether rotary positions turn tokens before their heads are moved in front of them, where one operator computes
    attention from tokens."""

    queries_read: int | None = None
    """How many queries, from the first on, are read at all; None for every one. The others need not be turned."""

    norms_by_rows = False
    """Whether the norms of queries and keys see the heads of all tokens as rows of three axes: some accelerators reduce
    the last of no more."""

    probabilities: list[Any] | None = None
    """Where the attention probabilities of calls go; None for nowhere."""

    @contextlib.contextmanager
    def observed(self) -> Iterator[list[Any]]:
        """Keep the attention probabilities `(batch, heads, queries, tokens)` of the calls in this block of code.

        Raises:
            ConfigError: a fused kernel computes the attention, and gives no probabilities.
        """
        if self.flash_attention is not False:
            raise ConfigError(
                f"flash_attention is {self.flash_attention}, and a fused kernel gives no attention probabilities",
                fix="make the model with attention_args={'flash_attention': False}",
            )
        kept: list[Any] = []
        object.__setattr__(self, "probabilities", kept)  # Keras would track the list
        try:
            yield kept
        finally:
            object.__setattr__(self, "probabilities", None)

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        qk_norm: str = "",
        epsilon: float = 1e-6,
        flash_attention: bool | None = False,
        dropout_rate: float = 0.0,
        weights: WeightOptions | Mapping[str, Any] | None = None,
        prefix: str = "attention",
        norm: str = "",
        positions: ViTConfig | Mapping[str, Any] | None = None,
        relative: RelativeScores | Mapping[str, Any] | None = None,
        head_width: int = 0,
        qk_norm_across_heads: bool = False,
        qk_norm_epsilon: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.embed_dim = embed_dim
        self.num_heads = num_heads
        self.head_width = head_width
        self.head_dim = head_width or embed_dim // num_heads
        self.attention_dim = num_heads * self.head_dim
        self.qkv_bias = qkv_bias
        self.qk_norm = qk_norm
        self.qk_norm_across_heads = qk_norm_across_heads
        self.qk_norm_epsilon = qk_norm_epsilon
        self.epsilon = epsilon
        self.flash_attention = flash_attention
        self.dropout_rate = dropout_rate
        self.weight_options = WeightOptions.of(weights)
        self.prefix = prefix
        self.norm = Norm(norm, epsilon, name="norm", dtype=self.dtype_policy) if norm else None
        self.positions = ViTConfig.from_dict(positions) if isinstance(positions, Mapping) else positions
        self.query, self.key, self.value, self.out = (
            Projection(
                embed_dim if role == "out" else self.attention_dim,
                use_bias=qkv_bias or role == "out",
                name=role,
                dtype=self.dtype_policy,
                **self.weight_options.projection(f"{prefix}.{role}"),
            )
            for role in ("query", "key", "value", "out")
        )
        self.query_norm, self.key_norm = (
            Norm(qk_norm, qk_norm_epsilon or epsilon, name=name, dtype=self.dtype_policy) if qk_norm else None
            for name in ("query_norm", "key_norm")
        )
        self.relative = RelativeScores.of(relative)
        self.dropout = keras.layers.Dropout(dropout_rate, name="dropout", dtype=self.dtype_policy)

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Build the four projections, the norms of queries and keys, and the relative positions."""
        if self.relative is not None:
            self.relative.build()
        for projection in (self.query, self.key, self.value):
            projection.build(input_shape)
        mixed = (*input_shape[:-1], self.attention_dim)
        self.out.build(mixed)
        heads = (self.attention_dim,) if self.qk_norm_across_heads else (self.num_heads, self.head_dim)
        for norm in (self.query_norm, self.key_norm):
            if norm is not None:
                norm.build((None, None, *heads))
        if self.norm is not None:
            self.norm.build(mixed)
        rotary = None if self.positions is None else self.positions.rotary
        shapes = {} if rotary is None else rotary.weight_shapes(self.num_heads, self.head_dim)
        self.learned = {
            name: self.add_weight(
                name=name,
                shape=shape,
                initializer=self.weight_options.drawn(f"{self.prefix}.{name}"),
                autocast=False,
            )
            for name, shape in shapes.items()
        }

    def call(self, x: Any, training: bool | None = None, shared: Any = None) -> Any:
        """`(batch, tokens, dim)` to the same, or to its first `num_queries` tokens.

        Args:
            x: the tokens.
            training: whether some values are dropped.
            shared: what all blocks add to their scores `(heads, tokens, tokens)`, if anything.
        """
        relative = shared if self.relative is None else self.relative.scores_of_pairs()
        asking = x if self.num_queries is None else take_tokens(x, 0, self.num_queries)
        query, key, value = (
            self._heads(role, norm, given)
            for role, norm, given in (
                (self.query, self.query_norm, asking),
                (self.key, self.key_norm, x),
                (self.value, None, x),
            )
        )
        if self.flash_attention is False:
            mixed = self._products(query, key, value, training, relative)
        else:
            mixed = self._fused(*self._turned(query, key), value, relative)
        mixed = ops.reshape(mixed, (-1, side_of(asking, 1), self.attention_dim))
        return self.out(mixed if self.norm is None else self.norm(mixed))

    def _heads(self, role: Projection, norm: Norm | None, x: Any) -> Any:
        """Queries, keys or values of tokens `(batch, tokens, dim)`: `(batch, tokens, heads, head_dim)`."""
        values = role(x)
        if norm is not None and self.qk_norm_across_heads:
            values, norm = norm(values), None
        heads = ops.reshape(values, (-1, side_of(x, 1), self.num_heads, self.head_dim))
        return heads if norm is None else self._normed(norm, heads)

    def _normed(self, norm: Norm, heads: Any) -> Any:
        """The norm of each head of queries or keys `(batch, tokens, heads, head_dim)`."""
        if not self.norms_by_rows:
            return norm(heads)
        tokens = side_of(heads, 1)
        rows = ops.reshape(heads, (-1, tokens * self.num_heads, self.head_dim))
        return ops.reshape(norm(rows), (-1, tokens, self.num_heads, self.head_dim))

    def _fused(self, query: Any, key: Any, value: Any, relative: Any = None) -> Any:
        bias = None if relative is None else ops.cast(relative, query.dtype)[None, :, : query.shape[1]]
        try:
            return ops.dot_product_attention(query, key, value, bias=bias, flash_attention=self.flash_attention)
        except (RuntimeError, ValueError, NotImplementedError) as error:
            if not self.flash_attention:
                raise
            # Each backend has its own words for it, JAX for one "cuDNN is not detected".
            raise ConfigError(
                f"flash_attention=True, and the {keras.backend.backend()} backend cannot do it here: {error}",
                fix="use None, which takes it where there is one, or False",
            ) from error

    def _rotary_tables(self) -> Tables | None:
        if self.positions is None or self.tables is not None:
            return self.tables
        for name, weight in self.learned.items():
            return learned_tables(self.positions, name, ops.convert_to_tensor(weight))
        return fixed_tables(self.positions)

    def _turned(self, query: Any, key: Any) -> tuple[Any, Any]:
        """Queries and keys `(batch, tokens, heads, head_dim)`, turned where there are rotary positions."""
        tables = self._rotary_tables()
        if tables is None:
            return query, key
        return turned(query, tables, TOKENS_FIRST), turned(key, tables, TOKENS_FIRST)

    def _products(self, query: Any, key: Any, value: Any, training: bool | None, relative: Any = None) -> Any:
        # The scale goes on the query, which is smaller than the scores wherever there are more tokens than
        # features in a head; half precision takes the softmax in float32, as it does the norms.
        scores = self._scores(query, key, 1 / math.sqrt(self.head_dim))
        if relative is not None:
            relative = relative if self.num_queries is None else relative[:, : self.num_queries]
            scores = scores + ops.cast(relative, scores.dtype)
        half = keras.backend.standardize_dtype(scores.dtype) in HALF_TYPES
        weights = ops.softmax(ops.cast(scores, "float32") if half else scores, axis=-1)
        if self.probabilities is not None:
            self.probabilities.append(weights)
        weights = self.dropout(ops.cast(weights, scores.dtype) if half else weights, training=training)
        return ops.transpose(self._times(weights, value, (0, 2, 1, 3)), (0, 2, 1, 3))

    def _scores(self, query: Any, key: Any, scale: float) -> Any:
        """From queries and keys `(batch, tokens, heads, head_dim)`."""
        tables = self._rotary_tables()
        if tables is None:
            return self._times(ops.transpose(query, (0, 2, 1, 3)) * scale, key, (0, 2, 3, 1))
        if self.turned_first:
            query = ops.transpose(self._turned_queries(query, tables, TOKENS_FIRST, scale), (0, 2, 1, 3))
            return self._times(query, turned(key, tables, TOKENS_FIRST), (0, 2, 3, 1))
        # Keys are turned in the layout that the product reads them in, and the scale is part of the queries' tables.
        query = self._turned_queries(ops.transpose(query, (0, 2, 1, 3)), tables, HEADS_FIRST, scale)
        if self.transposed_product is None:
            return ops.matmul(query, turned(ops.transpose(key, (0, 2, 3, 1)), tables, TRANSPOSED))
        return self.transposed_product(query, turned(ops.transpose(key, (0, 2, 1, 3)), tables, HEADS_FIRST))

    def _turned_queries(self, query: Any, tables: Tables, layout: Layout, scale: float) -> Any:
        if self.queries_read is None:
            return turned(query, tables, layout, scale=scale)
        assert self.positions is not None and self.positions.rotary is not None  # there are tables
        if not self.positions.rotary.turns_class_token:
            return query * scale
        cosine, sine = tables
        return turned(query, (cosine[:1], sine[:1]), layout, scale=scale)

    def _times(self, left: Any, right: Any, axes: tuple[int, int, int, int]) -> Any:
        """A product of each head, whose right side has these axes of `right`."""
        if self.transposed_product is None:
            return ops.matmul(left, ops.transpose(right, axes))
        batch, head, inner, column = axes
        return self.transposed_product(left, ops.transpose(right, (batch, head, column, inner)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """What `from_config` takes."""
        config: dict[str, Any] = super().get_config()
        return config | {
            "embed_dim": self.embed_dim,
            "num_heads": self.num_heads,
            "qkv_bias": self.qkv_bias,
            "qk_norm": self.qk_norm,
            "epsilon": self.epsilon,
            "flash_attention": self.flash_attention,
            "dropout_rate": self.dropout_rate,
            "weights": self.weight_options.to_config(),
            "prefix": self.prefix,
            "norm": "" if self.norm is None else str(self.norm.kind),
            "positions": None if self.positions is None else self.positions.to_dict(),
            **({} if self.relative is None else {"relative": self.relative.get_config()}),
            **({"head_width": self.head_width} if self.head_width else {}),
            **({"qk_norm_across_heads": True} if self.qk_norm_across_heads else {}),
            **({"qk_norm_epsilon": self.qk_norm_epsilon} if self.qk_norm_epsilon else {}),
        }
