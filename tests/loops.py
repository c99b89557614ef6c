"""A ViT computed one image, one token, one head and one number at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.rotary_loops import loop_turned
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig

Array = NDArray[Any]

TOKEN_KINDS = ("class", "distillation", "registers")
SCALAR_ACTIVATIONS: Mapping[str, Callable[[float], float]] = {
    "gelu": lambda x: x * 0.5 * math.erfc(-x / math.sqrt(2)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
    "relu": lambda x: max(x, 0.0),
    "relu6": lambda x: min(max(x, 0.0), 6.0),
    "leaky_relu": lambda x: x if x > 0 else 0.2 * x,
    "leaky_relu_0.01": lambda x: x if x > 0 else 0.01 * x,
    "squared_relu": lambda x: max(x, 0.0) ** 2,
    "gelu_clipped": lambda x: min(max(x * 0.5 * math.erfc(-x / math.sqrt(2)), -10.0), 10.0),
    "mish": lambda x: x * math.tanh(math.log1p(math.exp(x))),
    "elu": lambda x: x if x > 0 else math.exp(x) - 1,
    "silu": lambda x: x / (1 + math.exp(-x)),
    "hard_silu": lambda x: x * min(max(x / 6 + 0.5, 0.0), 1.0),
    "sigmoid": lambda x: 1 / (1 + math.exp(-x)),
    "tanh": math.tanh,
}


def loop_norm(token: Array, name: str, config: ViTConfig, w: Mapping[str, Array]) -> Array:
    """One token's."""
    kind, epsilon = config.normalization_type, config.epsilon
    if name.endswith(("query_norm", "key_norm")):
        kind, epsilon = config.qk_norm_type or kind, config.qk_norm_epsilon or epsilon
    match kind:
        case "layer_norm":
            mean = sum(token) / len(token)
            variance = sum((value - mean) ** 2 for value in token) / len(token)
            unit = (token - mean) / math.sqrt(variance + epsilon)
            return unit * w[f"{name}.scale"] + w[f"{name}.bias"]
        case "dynamic_tanh":
            alpha = float(w[f"{name}.alpha"])
            return np.array([math.tanh(alpha * v) for v in token]) * w[f"{name}.scale"] + w[f"{name}.bias"]
        case kind:
            unit = token / math.sqrt(sum(value**2 for value in token) / len(token) + epsilon)
            if kind == "rms_norm":
                return unit * w[f"{name}.scale"]
            band = float(w[f"{name}.band"])
            return unit * (1 - 0.1 + 0.1 / (1 + math.exp(-5 * band)))


def loop_pool(tokens: list[Array], prefix: int, pooling: str) -> Array:
    """One vector of the tokens of one image."""
    patches = tokens[prefix:]
    mean = sum(patches) / len(patches)
    ways = {
        "cls": lambda: tokens[0],
        "mean": lambda: mean,
        "max": lambda: np.array(patches).max(axis=0),
        "cls_distillation": lambda: np.array([*tokens[0], *tokens[1]]),
        "cls_mean": lambda: np.array([*tokens[0], *mean]),
        "prefix_mean": lambda: sum(tokens[:prefix]) / prefix,
    }
    return ways[pooling]()


def loop_patches(image: Array, config: ViTConfig, w: Mapping[str, Array]) -> list[Array]:
    """The patch tokens of one image."""
    height, width = config.patch_size
    tokens = []
    if edge := config.patch_padding:
        shifted = np.zeros_like(image)
        shifted[edge:, edge:] = image[:-edge, :-edge]
        image = shifted
    for row in range(config.image_size[0] // height):
        for column in range(config.image_size[1] // width):
            patch = image[row * height : (row + 1) * height, column * width : (column + 1) * width]
            if config.pixel_norm:
                patch = loop_norm(patch.ravel(), "pixel_norm", config, w).reshape(patch.shape)
            token = w["patch_embed.bias"].copy()
            for y, x, c in np.ndindex(patch.shape):
                token += patch[y, x, c] * w["patch_embed.kernel"][y, x, c]
            tokens.append(token)
    return tokens


def loop_row(query: int, key: int, prefix: int, config: ViTConfig) -> int:
    """The row of a table of relative positions for two tokens."""
    height, width = (config.image_size[side] // config.patch_size[side] for side in (0, 1))
    between_patches = (2 * height - 1) * (2 * width - 1)
    if query < prefix or key < prefix:
        return between_patches + (2 if query < prefix and key < prefix else 0 if query < prefix else 1)
    down, across = (divmod(query - prefix, width)[side] - divmod(key - prefix, width)[side] for side in (0, 1))
    return (down + height - 1) * (2 * width - 1) + across + width - 1


def loop_forward(checkpoint: Checkpoint, image: Array) -> Array:
    """One image, one token, one head and one number at a time, as the papers write it."""
    config, w = checkpoint.config, {name: value.astype(np.float64) for name, value in checkpoint.weights.items()}
    tokens = [token for kind in TOKEN_KINDS for token in w.get(f"class_token.{kind}", ())]
    prefix = len(tokens)
    patches = loop_patches(image, config, w)
    tokens += [loop_norm(token, "patch_norm", config, w) for token in patches] if config.patch_norm else patches
    tokens = [token + position for token, position in zip(tokens, w["pos_embed.table"], strict=True)]

    def norm(token: Array, name: str) -> Array:
        return loop_norm(token, name, config, w)

    def inner(token: Array, name: str) -> Array:
        return norm(token, name) if any(each.startswith(f"{name}.") for each in w) else token

    def dense(token: Array, name: str) -> Array:
        out = np.array([token @ column for column in w[f"{name}.kernel"].T])
        return out + w[f"{name}.bias"] if f"{name}.bias" in w else out

    def head_of(token: Array, part: slice, name: str) -> Array:
        if not config.qk_norm or "map_pool" in name:
            return token[part]
        return norm(token, name)[part] if config.qk_norm_across_heads else norm(token[part], name)

    def relative(name: str, head: int, query: int, keys: int) -> list[float]:
        for owner in (f"{name}.", ""):
            if f"{owner}relative.table" in w and "map_pool" not in name:
                return [
                    float(w[f"{owner}relative.table"][loop_row(query, key, prefix, config), head])
                    for key in range(keys)
                ]
        return [0.0] * keys

    def attention(asking: list[Array], sequence: list[Array], name: str) -> list[Array]:
        query = [dense(token, f"{name}.query") for token in asking]
        key, value = ([dense(token, f"{name}.{role}") for token in sequence] for role in ("key", "value"))
        heads = config.pool_heads if config.pool_heads and "map_pool" in name else config.num_heads
        size = len(value[0]) // heads
        mixed = [np.zeros(len(value[0])) for _ in asking]
        for head in range(heads):
            part = slice(head * size, (head + 1) * size)
            keys = [head_of(k, part, f"{name}.key_norm") for k in key]
            queries = [head_of(q, part, f"{name}.query_norm") for q in query]
            if config.rotary is not None and "map_pool" not in name:
                own = {each: w[f"{name}.{each}"] for each in ("frequencies", "class_angles") if f"{name}.{each}" in w}
                queries, keys = (loop_turned(side, config, head, own) for side in (queries, keys))
            for index, q in enumerate(queries):
                added = relative(name, head, index, len(keys))
                scores = [math.exp(q @ k / math.sqrt(size) + more) for k, more in zip(keys, added, strict=True)]
                for score, v in zip(scores, value, strict=True):
                    mixed[index][part] += score / sum(scores) * v[part]
        return [dense(inner(token, f"{name}.norm"), f"{name}.out") for token in mixed]

    def feed_forward(token: Array, name: str, ffn_type: str = config.ffn_type) -> Array:
        hidden = dense(token, f"{name}.up")
        if ffn_type == "mlp":
            hidden = np.array([SCALAR_ACTIVATIONS[config.activation](value) for value in hidden])
        else:
            opened = SCALAR_ACTIVATIONS[{"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}[ffn_type]]
            hidden = hidden * np.array([opened(value) for value in dense(token, f"{name}.gate")])
        return dense(inner(hidden, f"{name}.norm"), f"{name}.down")

    tokens = [norm(token, "pre_norm") for token in tokens] if config.pre_norm else tokens
    read: list[Array] = []
    for index in range(config.num_layers):
        block = f"block_{index}"
        for half in ("attention", "ffn"):
            name = f"{block}.{'norm1' if half == 'attention' else 'norm2'}"
            pre = config.normalization_position == "pre"
            inputs = [norm(token, name) for token in tokens] if pre else tokens
            if config.normalization_position == "parallel":
                read = [norm(token, name) for token in tokens] if half == "attention" else read
                inputs = read
            if half == "attention":
                outputs = attention(inputs, inputs, f"{block}.attention")
            else:
                outputs = [feed_forward(token, f"{block}.ffn") for token in inputs]
            if config.normalization_position == "res_post":
                outputs = [norm(output, name) for output in outputs]
            if config.layer_scale and config.layer_scale_part in ("both", half):
                gamma = w[f"{block}.scale{1 if half == 'attention' else 2}.gamma"]
                outputs = [output * gamma for output in outputs]
            tokens = [token + output for token, output in zip(tokens, outputs, strict=True)]
            tokens = [norm(token, name) for token in tokens] if config.normalization_position == "post" else tokens
    normed = config.last_norm and not config.norm_after_pooling
    tokens = [norm(token, "norm") for token in tokens] if normed else tokens
    pooling = config.pooling or ("cls" if config.include_top else None)
    if pooling is None:
        return np.array(tokens)
    if pooling == "map":
        attended = tokens[prefix:] if config.pool_patches else tokens
        (pooled,) = attention(list(w["map_pool.probe"]), attended, "map_pool.attention")
        normed_vector = pooled if config.pool_end == "none" else norm(pooled, "map_pool.norm")
        of_ffn = config.pool_end == "ffn"
        pooled = pooled + feed_forward(normed_vector, "map_pool.ffn", "mlp") if of_ffn else normed_vector
    else:
        pooled = loop_pool(tokens, prefix, pooling)
    pooled = norm(pooled, "norm") if config.norm_after_pooling else pooled
    if config.pre_logits_dim:
        pooled = dense(pooled, "pre_logits")
        pooled = pooled if config.pre_logits_linear else np.array([math.tanh(value) for value in pooled])
    if config.head_norm:
        pooled = pooled / math.sqrt(sum(value * value for value in pooled) / len(pooled))
    return dense(pooled, "head") if config.include_top else pooled
