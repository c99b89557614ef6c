"""The ViT in NumPy: the definition that every engine is compared with.

After Dosovitskiy et al. 2020 (arXiv 2010.11929), section 3.1. One block's weights are converted at a
time, so that a model needs its own weights and one block in the precision of the computation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vit_deploy.core.activation_functions import ACTIVATIONS, GATES, sigmoid, softmax
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import FFNType, NormalizationPosition, NormalizationType, PoolEnd, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.relative_positions import gathered
from vit_deploy.core.rotary_angles import angles, swapped, tables
from vit_deploy.core.summation import mean, product
from vit_deploy.core.weights import RELATIVE

Array = NDArray[Any]
Weights = Mapping[str, Array]
Hook = Callable[[str, Array], object]

HEAD_NORM_EPSILON = 1e-12  # added to the mean square; 1e-5 would change the answers of a classifier from words
BAND_WIDTH = 0.1  # w of band RMS


def forward(
    checkpoint: Checkpoint,
    images: Array,
    dtype: DTypeLike = np.float64,
    *,
    hook: Hook | None = None,
    detail: Hook | None = None,
    watch: Hook | None = None,
) -> Array:
    """The output of a ViT for a batch of images.

    Args:
        checkpoint: config and weights.
        images: `(batch, height, width, channels)`, normalised.
        dtype: float64, the definition, or float32, whose distance from it is the noise floor.
        hook: called with (name, activations) after `patch_embed`, `pos_embed`, each `block_<i>.attention`
            and `block_<i>.ffn` (the residual stream), `norm` and `head`.
        detail: called with (name, activations) for what is computed between two of these, by the later one's name and
            its own: `block_<i>.attention.query`, `block_<i>.ffn.up`, `head.pooled`, …
        watch: called with (name, values) for `block_<i>`, what a block gives, `tokens`, behind the last norm where it
            is that of tokens, and `features`, what a head reads.

    Returns:
        Logits `(batch, classes)`, features `(batch, embed dim)` or `(batch, tokens, embed dim)`.
    """
    config = checkpoint.config
    hook, detail, watch = hook or _no_hook, detail or _no_hook, watch or _no_hook

    def part(prefix: str) -> Weights:
        own = weights_of(prefix, checkpoint.weights)
        return {name: weight.astype(dtype, copy=False) for name, weight in own.items()}

    x = patch_embed(images.astype(dtype), part("patch_embed"), config, part("pixel_norm"))
    if config.patch_norm:
        x = norm(x, part("patch_norm"), config)
    hook("patch_embed", x)
    prefix = [np.broadcast_to(token, (len(x), *token.shape)) for token in part("class_token").values()]
    x = np.concatenate([*prefix, x], axis=1)
    detail("pos_embed.tokens", x)
    x = x + part("pos_embed")["table"]
    hook("pos_embed", x)
    if config.pre_norm:
        x = norm(x, part("pre_norm"), config)
    shared = {f"attention.{RELATIVE}.{name}": array for name, array in part(RELATIVE).items()}
    for index in range(config.num_layers):
        x = block(x, {**part(f"block_{index}"), **shared}, config, hook, f"block_{index}", detail)
        watch(f"block_{index}", x)
    if config.norm_after_pooling:
        watch("tokens", x)
        x = pool(x, part("map_pool"), config)
    if config.last_norm:
        _detail_unit(detail, "norm.unit", x, part("norm"), config)
        x = norm(x, part("norm"), config)
    hook("norm", x)  # the last tokens as they are, where no norm follows them
    if not config.norm_after_pooling:
        watch("tokens", x)
        x = pool(x, part("map_pool"), config)
    if config.pre_logits_dim:
        detail("head.pooled", x)
        dense = part("pre_logits")
        x = product(x, dense["kernel"], dense["bias"])
        x = x if config.pre_logits_linear else np.tanh(x)
    watch("features", x)
    if config.head_norm:
        x = _unit(x, HEAD_NORM_EPSILON)
    detail("head.pre_logits" if config.pre_logits_dim else "head.pooled", x)
    if config.include_top:
        head = part("head")
        x = product(x, head["kernel"], head["bias"])
    hook("head", x)
    return x


def patch_embed(images: Array, weights: Weights, config: ViTConfig, of_pixels: Weights | None = None) -> Array:
    """Cut into patches, each flattened as (height, width, channel), and project them: `(batch, patches, dim)`.

    Args:
        images: `(batch, height, width, channels)`.
        weights: of the projection.
        config: which patches.
        of_pixels: weights of the norm that each patch has first, where the config has one.
    """
    (rows, columns), (height, width) = config.grid, config.patch_size
    expected = (*config.image_size, config.channels)
    if images.shape[1:] != expected:
        raise ValueError(f"images are {images.shape[1:]}, the model takes {expected}")
    if edge := config.patch_padding:
        images = np.pad(images[:, :-edge, :-edge], ((0, 0), (edge, 0), (edge, 0), (0, 0)))
    cut = images.reshape(len(images), rows, height, columns, width, config.channels)
    patches = cut.transpose(0, 1, 3, 2, 4, 5).reshape(len(images), rows * columns, -1)
    if config.pixel_norm:
        patches = norm(patches, of_pixels or {}, config)
    return product(patches, weights["kernel"].reshape(-1, config.embed_dim), weights["bias"])


def block(x: Array, weights: Weights, config: ViTConfig, hook: Hook, name: str, detail: Hook) -> Array:
    """One encoder block: attention and feed-forward, each with a residual sum and a norm before, after or inside it."""
    if config.normalization_position is NormalizationPosition.PARALLEL:
        return _side_by_side(x, weights, config, hook, name, detail)
    x = _sublayer(attention, x, _Part("attention", 1, weights, name, hook, detail), config)
    return _sublayer(ffn, x, _Part("ffn", 2, weights, name, hook, detail), config)


@dataclass(frozen=True)
class _Part:
    """One sub-layer of a block.

    Args:
        role: "attention" or "ffn".
        number: the number of its norm and its layer scale.
        of_block: the weights of the block.
        name: the name of the block.
        hook: called with the residual stream behind the sub-layer.
        detail: called with what is computed within it.
    """

    role: str
    number: int
    of_block: Weights
    name: str
    hook: Hook
    detail: Hook

    @property
    def weights(self) -> Weights:
        """Its own weights."""
        return weights_of(self.role, self.of_block)

    @property
    def norm(self) -> Weights:
        """The weights of its norm."""
        return weights_of(f"norm{self.number}", self.of_block)

    def scaled(self, x: Array) -> Array:
        """`x` by the layer scale, where there is one."""
        gamma = self.of_block.get(f"scale{self.number}.gamma")
        return x if gamma is None else self.show("scaled", x * gamma)

    def show(self, name: str, values: Array) -> Array:
        """The values, once `detail` has seen them."""
        self.detail(f"{self.name}.{self.role}.{name}", values)
        return values


def _sublayer(
    compute: Callable[[Array, Weights, ViTConfig, Hook], Array], x: Array, part: _Part, config: ViTConfig
) -> Array:
    if config.normalization_position is NormalizationPosition.RES_POST:
        x = x + part.scaled(norm(compute(x, part.weights, config, part.show), part.norm, config))
    elif config.normalization_position is NormalizationPosition.PRE:
        normed = part.show("norm", norm(x, part.norm, config))
        _detail_unit(part.detail, f"{part.name}.{part.role}.unit", x, part.norm, config)
        x = x + part.scaled(compute(normed, part.weights, config, part.show))
    else:
        x = norm(part.show("sum", x + part.scaled(compute(x, part.weights, config, part.show))), part.norm, config)
    part.hook(f"{part.name}.{part.role}", x)
    return x


def _side_by_side(x: Array, weights: Weights, config: ViTConfig, hook: Hook, name: str, detail: Hook) -> Array:
    """Attention and feed-forward of what one norm gives, both added to the stream."""
    normed = norm(x, weights_of("norm1", weights), config)
    detail(f"{name}.attention.norm", normed)
    _detail_unit(detail, f"{name}.attention.unit", x, weights_of("norm1", weights), config)
    for compute, role, number in ((attention, "attention", 1), (ffn, "ffn", 2)):
        part = _Part(role, number, weights, name, hook, detail)
        x = x + part.scaled(compute(normed, part.weights, config, part.show))
        hook(f"{name}.{role}", x)
    return x


def _no_hook(name: str, values: Array) -> None:
    return None


def _detail_unit(detail: Hook, name: str, x: Array, weights: Weights, config: ViTConfig) -> None:
    # What a norm gives where its scale and its bias were moved into the products that follow.
    if detail is not _no_hook:
        neutral = {name: np.array(value, x.dtype) for name, value in (("scale", 1), ("bias", 0), ("band", np.inf))}
        detail(name, norm(x, {**weights, **neutral}, config))


def weights_of(part: str, weights: Weights) -> Weights:
    """The weights of one part, by their names within it."""
    return {name.removeprefix(f"{part}."): array for name, array in weights.items() if name.startswith(f"{part}.")}


def norm(x: Array, weights: Weights, config: ViTConfig) -> Array:
    """The normalization of each token over its features, see `normalized`."""
    return normalized(x, weights, config.normalization_type, config.epsilon)


def normalized(x: Array, weights: Weights, kind: NormalizationType, epsilon: float) -> Array:
    """The normalization of what is along the last axis.

    layer_norm is Ba et al. 2016; rms_norm Zhang and Sennrich 2019; dynamic_tanh Zhu et al. 2025;
    band_rms lets the mean square vary within a band of width w below one.
    """
    match kind:
        case NormalizationType.LAYER_NORM:
            x = _unit(x - mean(x), epsilon) * weights["scale"] + weights["bias"]
        case NormalizationType.RMS_NORM:
            x = _unit(x, epsilon) * weights["scale"]
        case NormalizationType.DYNAMIC_TANH:
            x = np.tanh(weights["alpha"] * x) * weights["scale"] + weights["bias"]
        case NormalizationType.BAND_RMS:
            x = _unit(x, epsilon) * (1 - BAND_WIDTH + BAND_WIDTH * sigmoid(5 * weights["band"]))
    return x


def _unit(x: Array, epsilon: float) -> Array:
    root: Array = np.sqrt(mean(np.square(x)) + epsilon)
    return x / root


def attention(x: Array, weights: Weights, config: ViTConfig, detail: Hook = _no_hook) -> Array:
    """Multi-head self-attention of the tokens `(batch, tokens, dim)`; with `qk_norm` as in Dehghani et al. 2023.

    Across heads, the norm of queries and keys is that of Chen et al. 2023 (InternVL, arXiv 2312.14238).
    """
    query, key, value = (_heads(x, weights, role, config, detail) for role in ("query", "key", "value"))
    if config.rotary is not None:
        query, key = (turned(rows, weights, config) for rows in (query, key))
    return _attended(query, key, value, weights, config, detail, _relative(weights_of(RELATIVE, weights), config))


def _relative(weights: Weights, config: ViTConfig) -> Array | float:
    """What relative positions add to the scores, nothing where there are none."""
    if "table" in weights:
        return gathered(weights["table"], config.grid, config.num_prefix_tokens)
    return weights.get("scores", 0.0)


def turned(x: Array, weights: Weights, config: ViTConfig) -> Array:
    """Queries or keys `(batch, heads, tokens, head_dim)` turned by the angles of their positions."""
    cosine, sine = (table.astype(x.dtype) for table in tables(angles(config, weights)))
    result: Array = x * cosine + swapped(x) * sine
    return result


def _heads(x: Array, weights: Weights, role: str, config: ViTConfig, detail: Hook = _no_hook) -> Array:
    values = product(x, weights[f"{role}.kernel"], weights.get(f"{role}.bias"))
    detail(role, values)
    if not config.qk_norm or role == "value":
        return _split(values, config.num_heads)
    own, how = weights_of(f"{role}_norm", weights), (config.query_norm_type, config.query_norm_epsilon)
    if config.qk_norm_across_heads:
        return _split(normalized(values, own, *how), config.num_heads)
    return normalized(_split(values, config.num_heads), own, *how)


def _split(values: Array, heads: int) -> Array:
    return values.reshape(*values.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def _inner_norm(x: Array, weights: Weights, config: ViTConfig) -> Array:
    """The norm in front of a sub-layer's last projection (Shleifer et al. 2021, arXiv 2110.09456), if any."""
    own = weights_of("norm", weights)
    return norm(x, own, config) if own else x


def _attended(
    query: Array,
    key: Array,
    value: Array,
    weights: Weights,
    config: ViTConfig,
    detail: Hook = _no_hook,
    relative: Array | float = 0.0,
) -> Array:
    """Vaswani et al. 2017: softmax(q k^T / sqrt(d)) v, heads side by side, projected; `relative` joins the scores."""
    batch, heads, queries, head_dim = query.shape
    scores = query @ key.swapaxes(-1, -2) / np.sqrt(np.array(head_dim, query.dtype)) + relative
    shares = softmax(scores)
    mixed = (shares @ value).transpose(0, 2, 1, 3).reshape(batch, queries, heads * head_dim)
    out = product(_inner_norm(mixed, weights, config), weights["out.kernel"], weights["out.bias"])
    for name, values in (("scores", scores), ("softmax", shares), ("mix", mixed), ("out", out)):
        detail(name, values)
    return out


def ffn(x: Array, weights: Weights, config: ViTConfig, detail: Hook = _no_hook) -> Array:
    """The feed-forward half; the gated ones are Shazeer 2020 (arXiv 2002.05202), with biases."""
    if config.ffn_type is FFNType.MLP:
        return mlp(x, weights, config, detail)
    gate = product(x, weights["gate.kernel"], weights["gate.bias"])
    up = product(x, weights["up.kernel"], weights["up.bias"])
    hidden = ACTIVATIONS[GATES[config.ffn_type]](gate) * up
    out = product(_inner_norm(hidden, weights, config), weights["down.kernel"], weights["down.bias"])
    for name, values in (("gate", gate), ("up", up), ("hidden", hidden), ("down", out)):
        detail(name, values)
    return out


def mlp(x: Array, weights: Weights, config: ViTConfig, detail: Hook = _no_hook) -> Array:
    """Up, the config's activation, down."""
    up = product(x, weights["up.kernel"], weights["up.bias"])
    hidden = ACTIVATIONS[config.activation](up)
    out = product(_inner_norm(hidden, weights, config), weights["down.kernel"], weights["down.bias"])
    for name, values in (("up", up), ("hidden", hidden), ("down", out)):
        detail(name, values)
    return out


def pool(x: Array, weights: Weights, config: ViTConfig) -> Array:
    """The sequence `(batch, tokens, dim)` as the pooling asked for; patches are what follows the prefix.

    Args:
        x: the tokens.
        weights: the weights of `map_pool`; empty for every other pooling.
        config: which pooling.
    """
    patches = x[:, config.num_prefix_tokens :]
    match config.effective_pooling:
        case Pooling.CLS:
            x = x[:, 0]
        case Pooling.MEAN:
            x = patches.mean(axis=1)
        case Pooling.MAX:
            x = patches.max(axis=1)
        case Pooling.CLS_DISTILLATION:
            x = np.concatenate([x[:, 0], x[:, 1]], axis=-1)
        case Pooling.CLS_MEAN:
            x = np.concatenate([x[:, 0], patches.mean(axis=1)], axis=-1)
        case Pooling.PREFIX_MEAN:
            x = x[:, : config.num_prefix_tokens].mean(axis=1)
        case Pooling.MAP:
            x = map_pool(patches if config.pool_patches else x, weights, config)
    return x


def map_pool(x: Array, weights: Weights, config: ViTConfig) -> Array:
    """Attention of a learned probe to all tokens, then what the config says: `(batch, width of the vector)`.

    The mlp with a residual sum is that of Zhai et al. 2022, and a plain one with the config's activation, whatever the
    blocks have.
    """
    own = weights_of("attention", weights)
    probe = np.broadcast_to(weights["probe"], (len(x), 1, config.pooled_dim))
    query, key, value = (
        _split(product(tokens, own[f"{role}.kernel"], own[f"{role}.bias"]), config.probe_heads)
        for role, tokens in (("query", probe), ("key", x), ("value", x))
    )
    pooled = _attended(query, key, value, own, config)[:, 0]
    if config.pool_end is PoolEnd.NONE:
        return pooled
    normed = norm(pooled, weights_of("norm", weights), config)
    if config.pool_end is PoolEnd.NORM:
        return normed
    result: Array = pooled + mlp(normed, weights_of("ffn", weights), config)
    return result
