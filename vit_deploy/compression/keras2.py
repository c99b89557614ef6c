"""A Keras 2 model, with a Dense layer for every projection, that computes what a checkpoint computes.

tensorflow-model-optimization wraps layers of `tf_keras`. The twin is a functional model that is built around the
weights of a checkpoint; each Dense layer can be wrapped as it is made, so that nothing has to be cloned. All options of
a config have a twin; what is learned of rotary positions is frozen. After `vit_deploy.core.reference`, which it is
compared with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from vit_deploy.core.activation_functions import GATES, GELU_LIMIT
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, FFNType, NormalizationPosition, NormalizationType, PoolEnd, Pooling
from vit_deploy.core.config import HALVES, ViTConfig
from vit_deploy.core.reference import BAND_WIDTH, HEAD_NORM_EPSILON, weights_of
from vit_deploy.core.relative_positions import relative_index
from vit_deploy.core.rotary_angles import angles, tables
from vit_deploy.core.weights import OF_BLOCKS, RELATIVE, SHARED, Float32, learned_positions, weight_specs

Tensor = Any
Wrap = Callable[[str, Any], Callable[[Tensor], Tensor]]
"""From the name of a layer and a Dense layer that has its weights, to what is called in its place."""

ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    Activation.GELU: lambda x: tf.nn.gelu(x, approximate=False),
    Activation.GELU_TANH: lambda x: tf.nn.gelu(x, approximate=True),
    Activation.QUICK_GELU: lambda x: x * tf.sigmoid(1.702 * x),
    Activation.RELU: tf.nn.relu,
    Activation.RELU6: tf.nn.relu6,
    Activation.LEAKY_RELU: lambda x: tf.nn.leaky_relu(x, alpha=0.2),
    Activation.LEAKY_RELU_TORCH: lambda x: tf.nn.leaky_relu(x, alpha=0.01),
    Activation.SQUARED_RELU: lambda x: tf.square(tf.nn.relu(x)),
    Activation.GELU_CLIPPED: lambda x: tf.clip_by_value(tf.nn.gelu(x, approximate=False), -GELU_LIMIT, GELU_LIMIT),
    Activation.MISH: lambda x: x * tf.tanh(tf.nn.softplus(x)),
    Activation.ELU: tf.nn.elu,
    Activation.SILU: lambda x: x * tf.sigmoid(x),
    Activation.HARD_SILU: lambda x: x * tf.clip_by_value(x + 3, 0, 6) / 6,
    Activation.SIGMOID: tf.sigmoid,
    Activation.TANH: tf.tanh,
}


@dataclass(frozen=True, eq=False)
class Twin:
    """A model and the weights in it.

    Args:
        model: the Keras model from normalised images `(batch, height, width, channels)` to the output.
        checkpoint: that it was made of.
        variables: canonical name to variable; kernels of Dense layers are `(inputs, outputs)`.
        stream: the tokens in front of the first block and behind each, those of the last that are read.
    """

    model: Any
    checkpoint: Checkpoint
    variables: Mapping[str, Any]
    stream: Sequence[Tensor]

    def weights(self, changed: Mapping[str, Float32] | None = None) -> dict[str, Float32]:
        """What the variables hold now, in canonical shapes.

        Args:
            changed: values that stand for some of them.
        """
        specs = weight_specs(self.checkpoint.config)
        values = {name: variable.numpy() for name, variable in self.variables.items()} | dict(changed or {})
        values |= {name: self.checkpoint.weights[name] for name in learned_positions(self.checkpoint.config)}
        return {name: np.asarray(values[name], np.float32).reshape(spec.shape) for name, spec in specs.items()}


def build(checkpoint: Checkpoint, wrap: Wrap = lambda name, dense: dense, frozen: Collection[str] = ()) -> Twin:
    """The twin of a checkpoint.

    Args:
        checkpoint: config and weights.
        wrap: what is to be called in place of each Dense layer.
        frozen: canonical names of weights that training leaves alone; none of a Dense layer.
    """
    config = checkpoint.config
    make = _Maker(checkpoint, wrap, frozenset(frozen))
    images = tf_keras.Input((*config.image_size, config.channels), name="images")
    patches = _op(lambda images: _patches(images, config))(images)
    x = make.dense("patch_embed", make.norm("pixel_norm", patches) if config.pixel_norm else patches)
    if config.patch_norm:
        x = make.norm("patch_norm", x)
    x = make.owning(["class_token", "pos_embed"], _with_tokens)(x)
    make.share_relative_positions()
    if config.pre_norm:
        x = make.norm("pre_norm", x)
    stream = [x]
    for index in range(config.num_layers):
        last = index + 1 == config.num_layers
        x = _block(make, f"block_{index}", x, config.num_tokens_read if last else config.sequence_length)
        stream.append(x)
    if config.norm_after_pooling:
        x = _pooled(make, x)
    if config.last_norm:
        x = make.norm("norm", x)
    if not config.norm_after_pooling:
        x = _pooled(make, x)
    if config.pre_logits_dim:
        x = make.dense("pre_logits", x)
        x = x if config.pre_logits_linear else _op(tf.tanh)(x)
    if config.head_norm:
        x = _op(lambda x: _unit(x, HEAD_NORM_EPSILON))(x)
    if config.include_top:
        x = make.dense("head", x)
    return Twin(tf_keras.Model(images, x), checkpoint, make.variables, stream)


class _Owning(tf_keras.layers.Layer):  # type: ignore[misc]
    """A function of its input and of weights that are not a Dense layer's."""

    def __init__(self, name: str, values: Mapping[str, Float32], frozen: Collection[str], function: Any) -> None:
        super().__init__(name=name)
        self.function = function
        self.own = {
            part: self.add_weight(
                part.replace(".", "_"),
                value.shape,
                initializer=tf_keras.initializers.Constant(value),
                trainable=part not in frozen,
            )
            for part, value in values.items()
        }

    def call(self, x: Tensor) -> Tensor:
        return self.function(x, self.own)


@dataclass
class _Maker:
    """Makes layers from the weights of a checkpoint, and keeps their variables."""

    checkpoint: Checkpoint
    wrap: Wrap
    frozen: frozenset[str]

    def __post_init__(self) -> None:
        self.variables: dict[str, Any] = {}
        self.shared: Any = None

    @property
    def config(self) -> ViTConfig:
        return self.checkpoint.config

    def dense(self, name: str, x: Tensor) -> Tensor:
        """A projection of the last axis."""
        kernel, bias = self.checkpoint.weights[f"{name}.kernel"], self.checkpoint.weights.get(f"{name}.bias")
        flat = kernel.reshape(-1, kernel.shape[-1])
        layer = tf_keras.layers.Dense(flat.shape[1], use_bias=bias is not None, name=name)
        layer.build((None, flat.shape[0]))
        layer.set_weights([flat] if bias is None else [flat, bias])
        self.variables[f"{name}.kernel"] = layer.kernel
        if bias is not None:
            self.variables[f"{name}.bias"] = layer.bias
        return self.wrap(name, layer)(x)

    def owning(self, prefixes: list[str], function: Callable[[Tensor, Mapping[str, Any]], Tensor]) -> Any:
        """A layer with the weights that have these prefixes, by their canonical names."""
        starts = tuple(f"{prefix}." for prefix in prefixes)
        values = {name: weight for name, weight in self.checkpoint.weights.items() if f"{name}.".startswith(starts)}
        layer = _Owning(prefixes[0], values, self.frozen, function)
        self.variables |= dict(layer.own)
        return layer

    def norm(self, name: str, x: Tensor) -> Tensor:
        """A normalization of the last axis."""
        how = (self.config.normalization_type, self.config.epsilon)
        return self.owning([name], lambda values, own: _norm(values, own, name, *how))(x)

    def norm_of_queries(self, name: str, x: Tensor) -> Tensor:
        """Likewise, of queries or keys."""
        how = (self.config.query_norm_type, self.config.query_norm_epsilon)
        return self.owning([name], lambda values, own: _norm(values, own, name, *how))(x)

    def share_relative_positions(self) -> None:
        """Make the layer of the relative positions that all blocks add, if there are such."""
        if self.config.relative_positions in SHARED:
            self.shared = self.owning([RELATIVE], self._plus_relative)

    def relative(self, attention: str) -> Any:
        """What adds relative positions to the scores `(batch, heads, queries, keys)`; None where there are none."""
        own = self.config.relative_positions in OF_BLOCKS
        return self.owning([f"{attention}.{RELATIVE}"], self._plus_relative) if own else self.shared

    def _plus_relative(self, scores: Tensor, own: Mapping[str, Any]) -> Tensor:
        ((name, kept),) = own.items()
        if name.endswith(".table"):
            index = relative_index(self.config.grid, self.config.num_prefix_tokens)
            kept = tf.transpose(tf.gather(kept, index), [2, 0, 1])
        return scores + kept[:, : scores.shape[2]]


def _op(function: Callable[[Tensor], Tensor]) -> Any:
    return tf_keras.layers.Lambda(function)


def _patches(images: Tensor, config: ViTConfig) -> Tensor:
    (rows, columns), (height, width) = config.grid, config.patch_size
    if edge := config.patch_padding:
        images = tf.pad(images[:, :-edge, :-edge], [[0, 0], [edge, 0], [edge, 0], [0, 0]])
    cut = tf.reshape(images, [-1, rows, height, columns, width, config.channels])
    return tf.reshape(tf.transpose(cut, [0, 1, 3, 2, 4, 5]), [-1, rows * columns, height * width * config.channels])


def _with_tokens(x: Tensor, own: Mapping[str, Any]) -> Tensor:
    tokens = [weight for name, weight in own.items() if name.startswith("class_token.")]
    repeated = [tf.repeat(token[None], tf.shape(x)[0], axis=0) for token in tokens]
    return tf.concat([*repeated, x], axis=1) + own["pos_embed.table"]


def _unit(values: Tensor, epsilon: float) -> Tensor:
    return values * tf.math.rsqrt(tf.reduce_mean(tf.square(values), axis=-1, keepdims=True) + epsilon)


def _norm(x: Tensor, own: Mapping[str, Any], name: str, kind: NormalizationType, epsilon: float) -> Tensor:
    def unit(values: Tensor) -> Tensor:
        return _unit(values, epsilon)

    def weight(part: str) -> Tensor:
        return own[f"{name}.{part}"]

    if kind is NormalizationType.LAYER_NORM:
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        return unit(centred) * weight("scale") + weight("bias")
    if kind is NormalizationType.RMS_NORM:
        return unit(x) * weight("scale")
    if kind is NormalizationType.DYNAMIC_TANH:
        return tf.tanh(weight("alpha") * x) * weight("scale") + weight("bias")
    return unit(x) * (1 - BAND_WIDTH + BAND_WIDTH * tf.sigmoid(5 * weight("band")))


def _block(make: _Maker, name: str, x: Tensor, count: int) -> Tensor:
    """The first `count` tokens: an exported file computes no others either, and ranges are learned of what is read."""
    config = make.config
    if config.normalization_position is NormalizationPosition.PARALLEL:
        return _side_by_side(make, name, x, count)
    for half, number in ((_attention, 1), (_ffn, 2)):
        position, norm = config.normalization_position, f"{name}.norm{number}"
        change = half(make, name, make.norm(norm, x) if position is NormalizationPosition.PRE else x, count)
        change = make.norm(norm, change) if position is NormalizationPosition.RES_POST else change
        if HALVES[number - 1] in config.scaled_halves:
            change = make.owning([f"{name}.scale{number}"], _scaled)(change)
        x = tf_keras.layers.Add()([_first(x, count), change])
        x = make.norm(norm, x) if position is NormalizationPosition.POST else x
    return x


def _side_by_side(make: _Maker, name: str, x: Tensor, count: int) -> Tensor:
    normed = make.norm(f"{name}.norm1", x)
    x = _first(x, count)
    for half, number in ((_attention, 1), (_ffn, 2)):
        change = half(make, name, normed, count)
        if HALVES[number - 1] in make.config.scaled_halves:
            change = make.owning([f"{name}.scale{number}"], _scaled)(change)
        x = tf_keras.layers.Add()([x, change])
    return x


def _first(x: Tensor, count: int) -> Tensor:
    return x if x.shape[1] == count else _op(lambda tokens: tokens[:, :count])(x)


def _scaled(x: Tensor, own: Mapping[str, Any]) -> Tensor:
    (gamma,) = own.values()
    return x * gamma


def _attention(make: _Maker, name: str, x: Tensor, count: int) -> Tensor:
    config, prefix = make.config, f"{name}.attention"
    roles = (("query", _first(x, count)), ("key", x), ("value", x))
    projected = {role: make.dense(f"{prefix}.{role}", tokens) for role, tokens in roles}
    if config.qk_norm_across_heads:
        projected |= {role: make.norm_of_queries(f"{prefix}.{role}_norm", projected[role]) for role in ("query", "key")}
    query, key, value = (_op(_split(config.num_heads))(values) for values in projected.values())
    if config.qk_norm and not config.qk_norm_across_heads:
        query, key = (
            make.norm_of_queries(f"{prefix}.{role}_norm", heads) for role, heads in (("query", query), ("key", key))
        )
    if config.rotary is not None:
        query, key = (_op(_turned(make, prefix))(heads) for heads in (query, key))
    mixed = _mixed(query, key, value, make.relative(prefix))
    return make.dense(f"{prefix}.out", make.norm(f"{prefix}.norm", mixed) if config.attention_norm else mixed)


def _split(heads: int) -> Callable[[Tensor], Tensor]:
    def split(values: Tensor) -> Tensor:
        return tf.transpose(tf.reshape(values, [-1, values.shape[1], heads, values.shape[2] // heads]), [0, 2, 1, 3])

    return split


def _turned(make: _Maker, prefix: str) -> Callable[[Tensor], Tensor]:
    """Turns heads `(batch, heads, tokens, head_dim)` by their positions, of which all learned parts are frozen."""
    config, weights = make.config, weights_of(prefix, make.checkpoint.weights)
    cosine, sine = (table.astype(np.float32) for table in tables(angles(config, weights)))

    def turn(x: Tensor) -> Tensor:
        count, half = x.shape[2], config.head_dim // 2
        swapped = tf.concat([x[..., half:], x[..., :half]], axis=-1)
        return x * cosine[..., :count, :] + swapped * sine[..., :count, :]

    return turn


def _mixed(query: Tensor, key: Tensor, value: Tensor, relative: Any = None) -> Tensor:
    def scored(pair: list[Tensor]) -> Tensor:
        return tf.matmul(pair[0], pair[1], transpose_b=True) / math.sqrt(query.shape[3])

    def mix(pair: list[Tensor]) -> Tensor:
        mixed = tf.transpose(tf.matmul(tf.nn.softmax(pair[0]), pair[1]), [0, 2, 1, 3])
        return tf.reshape(mixed, [-1, query.shape[2], query.shape[1] * query.shape[3]])

    scores = _op(scored)([query, key])
    return _op(mix)([scores if relative is None else relative(scores), value])


def _ffn(make: _Maker, name: str, x: Tensor, count: int) -> Tensor:
    config, prefix = make.config, f"{name}.ffn"
    x = _first(x, count)
    if config.ffn_type is FFNType.MLP:
        return _mlp(make, prefix, x, normed=config.ffn_norm)
    gate = ACTIVATIONS[GATES[config.ffn_type]]
    hidden = _op(lambda both: gate(both[0]) * both[1])([make.dense(f"{prefix}.gate", x), make.dense(f"{prefix}.up", x)])
    return make.dense(f"{prefix}.down", make.norm(f"{prefix}.norm", hidden) if config.ffn_norm else hidden)


def _mlp(make: _Maker, prefix: str, x: Tensor, *, normed: bool = False) -> Tensor:
    hidden = _op(ACTIVATIONS[make.config.activation])(make.dense(f"{prefix}.up", x))
    return make.dense(f"{prefix}.down", make.norm(f"{prefix}.norm", hidden) if normed else hidden)


def _pooled(make: _Maker, x: Tensor) -> Tensor:
    first = make.config.num_prefix_tokens
    match make.config.effective_pooling:
        case None:
            return x
        case Pooling.CLS:
            return _op(lambda tokens: tokens[:, 0])(x)
        case Pooling.MEAN:
            return _op(lambda tokens: tf.reduce_mean(tokens[:, first:], axis=1))(x)
        case Pooling.MAX:
            return _op(lambda tokens: tf.reduce_max(tokens[:, first:], axis=1))(x)
        case Pooling.CLS_DISTILLATION:
            return _op(lambda tokens: tf.concat([tokens[:, 0], tokens[:, 1]], axis=-1))(x)
        case Pooling.CLS_MEAN:
            return _op(lambda tokens: tf.concat([tokens[:, 0], tf.reduce_mean(tokens[:, first:], axis=1)], axis=-1))(x)
        case Pooling.PREFIX_MEAN:
            return _op(lambda tokens: tf.reduce_mean(tokens[:, :first], axis=1))(x)
        case Pooling.MAP:
            return _map_pooled(make, _op(lambda tokens: tokens[:, first:])(x) if make.config.pool_patches else x)


def _map_pooled(make: _Maker, x: Tensor) -> Tensor:
    name, config = "map_pool", make.config

    def repeated(values: Tensor, own: Mapping[str, Any]) -> Tensor:
        return tf.repeat(own[f"{name}.probe"][None], tf.shape(values)[0], axis=0)

    probe = make.owning([f"{name}.probe"], repeated)(x)
    roles = (("query", probe), ("key", x), ("value", x))
    split = _split(config.probe_heads)
    query, key, value = (_op(split)(make.dense(f"{name}.attention.{role}", tokens)) for role, tokens in roles)
    mixed = make.dense(f"{name}.attention.out", _mixed(query, key, value))
    pooled = _op(lambda tokens: tokens[:, 0])(mixed)
    if config.pool_end is PoolEnd.NONE:
        return pooled
    normed = make.norm(f"{name}.norm", pooled)
    if config.pool_end is PoolEnd.NORM:
        return normed
    return tf_keras.layers.Add()([pooled, _mlp(make, f"{name}.ffn", normed)])
