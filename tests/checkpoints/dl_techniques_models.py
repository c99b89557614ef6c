"""Stand-ins for the ViT of NikolasMarkou/dl_techniques, which is not on a package registry.

Written here from what its public source says, and nothing else of it: the registered name and module of the model, the
names of the attributes that hold layers and variables (which are the paths in the HDF5 file), the shapes, the arguments
in `get_config`, and the order of the computations. Files that were read: models/vit/model.py; in layers:
transformers/transformer.py, attention/multi_head_attention.py and multi_head_cross_attention.py, ffn/mlp.py,
swiglu_ffn.py, geglu_ffn.py and glu_ffn.py, norms/factory.py, rms_norm.py, band_rms.py and dynamic_tanh.py,
embedding/patch_embedding.py and positional_embedding.py, layer_scale.py; utils/keras_registration.py. Layers that keep
no variables are left out, and all scales but the smallest, beside which there is a smaller one.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import vit_deploy.core.config
from vit_deploy.core.config import SCALE_CONFIGS, Scale

SCALES = {"pico": (192, 3, 6), "femto": (12, 3, 2)}
EPSILON = 1e-6  # which its factory of norms hands to each of them


def know_the_smallest_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the scale that no file has to those of vit-deploy, for models that are made in a second."""
    scales = {**SCALE_CONFIGS, "femto": Scale(*SCALES["femto"], 4.0)}
    monkeypatch.setattr(vit_deploy.core.config, "SCALE_CONFIGS", scales)


class PatchEmbedding2D(keras.layers.Layer):
    def __init__(self, patch_size: tuple[int, int], dim: int) -> None:
        super().__init__()
        self.proj = keras.layers.Conv2D(dim, patch_size, patch_size, name="projection")

    def call(self, images: Any) -> Any:
        x = self.proj(images)
        return ops.reshape(x, (ops.shape(x)[0], -1, x.shape[-1]))


class PositionalEmbedding(keras.layers.Layer):
    def __init__(self, tokens: int, dim: int) -> None:
        super().__init__()
        self.pos_embedding = self.add_weight((1, tokens, dim), name="pos_embedding")

    def call(self, x: Any) -> Any:
        return x + self.pos_embedding


class RMSNorm(keras.layers.Layer):
    def __init__(self, epsilon: float = EPSILON, use_scale: bool = True) -> None:
        super().__init__()
        self.epsilon, self.use_scale = epsilon, use_scale

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight((shape[-1],), name="scale") if self.use_scale else None

    def call(self, x: Any) -> Any:
        x = x / ops.sqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon)
        return x * self.scale if self.use_scale else x


class BandRMS(keras.layers.Layer):
    def build(self, shape: Any) -> None:
        self.band_param = self.add_weight((), name="band_param")

    def call(self, x: Any) -> Any:
        rms = ops.maximum(ops.sqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + EPSILON), EPSILON)
        return x / rms * (0.9 + 0.1 * ops.sigmoid(5 * self.band_param))


class DynamicTanh(keras.layers.Layer):
    def build(self, shape: Any) -> None:
        self.alpha = self.add_weight((), name="alpha")
        self.weight = self.add_weight((shape[-1],), name="weight")
        self.bias = self.add_weight((shape[-1],), name="bias")

    def call(self, x: Any) -> Any:
        return ops.tanh(self.alpha * x) * self.weight + self.bias


def norm_of(kind: str, options: dict[str, Any]) -> Any:
    if kind == "layer_norm":
        return keras.layers.LayerNormalization(**{"epsilon": EPSILON, **options})
    return {"rms_norm": RMSNorm, "band_rms": BandRMS, "dynamic_tanh": DynamicTanh}[kind](**options)


class SelfAttention(keras.layers.Layer):
    """Its heart; a first version of the repository had it under other names, and without the house around it."""

    def __init__(self, dim: int, heads: int, first_version: bool) -> None:
        super().__init__()
        self.dim, self.heads, self.first_version = dim, heads, first_version
        packed, out = keras.layers.Dense(3 * dim, name="qkv"), keras.layers.Dense(dim, name="proj")
        if first_version:
            self.qkv, self.proj = packed, out
        else:
            self.qkv_dense, self.proj_dense = packed, out

    def call(self, x: Any) -> Any:
        packed, out = (self.qkv, self.proj) if self.first_version else (self.qkv_dense, self.proj_dense)
        tokens = x.shape[1]
        split = ops.reshape(packed(x), (-1, tokens, 3, self.heads, self.dim // self.heads))
        query, key, value = (part[0] for part in ops.split(ops.transpose(split, (2, 0, 3, 1, 4)), 3))
        shares = ops.softmax(ops.matmul(query, ops.swapaxes(key, -1, -2)) * (self.dim // self.heads) ** -0.5)
        return out(ops.reshape(ops.transpose(ops.matmul(shares, value), (0, 2, 1, 3)), (-1, tokens, self.dim)))


class MultiHeadAttention(keras.layers.Layer):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.cross_attention = SelfAttention(dim, heads, first_version=False)

    def call(self, x: Any) -> Any:
        return self.cross_attention(x)


class MLPBlock(keras.layers.Layer):
    def __init__(self, hidden: int, dim: int, activation: str) -> None:
        super().__init__()
        self.activation_fn = keras.activations.get(activation)
        self.fc1, self.fc2 = keras.layers.Dense(hidden), keras.layers.Dense(dim)

    def call(self, x: Any) -> Any:
        return self.fc2(self.activation_fn(self.fc1(x)))


class SwiGLUFFN(keras.layers.Layer):
    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = -(-int(dim * 4 * 2 / 3) // 256) * 256
        self.gate_proj = keras.layers.Dense(hidden, use_bias=False)
        self.up_proj = keras.layers.Dense(hidden, use_bias=False)
        self.down_proj = keras.layers.Dense(dim, use_bias=False)

    def call(self, x: Any) -> Any:
        return self.down_proj(ops.silu(self.gate_proj(x)) * self.up_proj(x))


class GeGLUFFN(keras.layers.Layer):
    def __init__(self, hidden: int, dim: int, activation: str) -> None:
        super().__init__()
        self.activation = keras.activations.get(activation)
        self.input_proj, self.output_proj = keras.layers.Dense(2 * hidden), keras.layers.Dense(dim)

    def call(self, x: Any) -> Any:
        gate, value = ops.split(self.input_proj(x), 2, axis=-1)
        return self.output_proj(self.activation(gate) * value)


class GLUFFN(keras.layers.Layer):
    def __init__(self, hidden: int, dim: int, activation: str) -> None:
        super().__init__()
        self.activation = keras.activations.get(activation)
        self.gate_proj, self.value_proj = keras.layers.Dense(hidden), keras.layers.Dense(hidden)
        self.output_proj = keras.layers.Dense(dim)

    def call(self, x: Any) -> Any:
        return self.output_proj(self.activation(self.gate_proj(x)) * self.value_proj(x))


class LearnableMultiplier(keras.layers.Layer):
    def build(self, shape: Any) -> None:
        self.gamma = self.add_weight((shape[-1],), name="gamma")

    def call(self, x: Any) -> Any:
        return x * self.gamma


def ffn_of(kind: str, dim: int, activation: str) -> Any:
    match kind:
        case "swiglu":
            return SwiGLUFFN(dim)
        case "geglu":
            return GeGLUFFN(4 * dim, dim, activation)
        case "glu":
            return GLUFFN(4 * dim, dim, activation)
    return MLPBlock(4 * dim, dim, activation)


class TransformerLayer(keras.layers.Layer):
    def __init__(self, dim: int, heads: int, options: dict[str, Any], first_version: bool) -> None:
        super().__init__()
        self.pre = options["normalization_position"] == "pre"
        self.attention_norm = norm_of(options["normalization_type"], options["normalization_kwargs"])
        self.output_norm = norm_of(options["normalization_type"], options["normalization_kwargs"])
        self.attention = SelfAttention(dim, heads, True) if first_version else MultiHeadAttention(dim, heads)
        self.ffn_layer = ffn_of(options["ffn_type"], dim, options["activation"])
        self.dropout = keras.layers.Dropout(options["dropout_rate"])  # keeps the state of its random numbers
        self.attention_layer_scale = LearnableMultiplier() if options["use_layer_scale"] else None
        self.ffn_layer_scale = LearnableMultiplier() if options["use_layer_scale"] else None

    def call(self, x: Any) -> Any:
        halves = (
            (self.attention_norm, self.attention, self.attention_layer_scale),
            (self.output_norm, self.ffn_layer, self.ffn_layer_scale),
        )
        for norm, half, scale in halves:
            y = self.dropout(half(norm(x) if self.pre else x))
            y = scale(y) if scale is not None else y
            x = x + y if self.pre else norm(x + y)
        return x


@keras.saving.register_keras_serializable(package="dl_techniques.models.vit.model")
class ViT(keras.Model):
    def __init__(self, first_version: bool = False, **options: Any) -> None:
        super().__init__(name=f"vision_transformer_{options['scale']}")
        self.options, (self.dim, heads, layers) = options, SCALES[options["scale"]]
        (height, width, _), patch = options["input_shape"], options["patch_size"]
        tokens = (height // patch[0]) * (width // patch[1]) + 1
        self.patch_embed = PatchEmbedding2D(patch, self.dim)
        self.pos_embed = PositionalEmbedding(tokens, self.dim)
        self.transformer_layers = [TransformerLayer(self.dim, heads, options, first_version) for _ in range(layers)]
        self.norm = norm_of(options["normalization_type"], options["normalization_kwargs"])
        self.head = keras.layers.Dense(options["num_classes"], name="head") if options["include_top"] else None
        self.cls_token = self.add_weight((1, 1, self.dim), name="cls_token")

    def call(self, images: Any) -> Any:
        x = self.patch_embed(images)
        token = ops.broadcast_to(self.cls_token, (ops.shape(x)[0], 1, self.dim))
        x = self.pos_embed(ops.concatenate([token, x], axis=1))
        for layer in self.transformer_layers:
            x = layer(x)
        x = self.norm(x)
        if self.head is not None:
            return self.head(x[:, 0])
        match self.options["pooling"]:
            case "cls":
                return x[:, 0]
            case "mean":
                return ops.mean(x[:, 1:], axis=1)
            case "max":
                return ops.max(x[:, 1:], axis=1)
        return x

    def get_config(self) -> dict[str, Any]:
        return super().get_config() | self.options


ViT.__module__ = "dl_techniques.models.vit.model"

DEFAULTS: dict[str, Any] = {
    "input_shape": (16, 48, 3),
    "num_classes": 5,
    "scale": "femto",
    "patch_size": (8, 16),
    "include_top": True,
    "pooling": None,
    "dropout_rate": 0.0,
    "attention_dropout_rate": 0.0,
    "pos_dropout_rate": 0.0,
    "kernel_initializer": None,
    "kernel_regularizer": None,
    "bias_initializer": None,
    "bias_regularizer": None,
    "normalization_type": "layer_norm",
    "normalization_kwargs": {},
    "normalization_position": "post",
    "ffn_type": "mlp",
    "activation": "gelu",
    "use_layer_scale": False,
    "layer_scale_init_value": 1e-5,
}
INITIALIZER = {"module": "keras.initializers", "class_name": "HeNormal", "config": {"seed": None}}


def vit(first_version: bool = False, **changes: Any) -> Any:
    """A model with random weights, none of which is at a value that would hide it."""
    options = DEFAULTS | {"kernel_initializer": INITIALIZER, "bias_initializer": INITIALIZER} | changes
    model = ViT(first_version, **options)
    model(np.zeros((1, *options["input_shape"]), np.float32))
    rng = np.random.default_rng(3)
    for variable in model.trainable_variables:
        about = 1.0 if variable.path.rsplit("/", 1)[-1] in ("gamma", "scale", "weight") else 0.0
        spread = 0.7 / np.sqrt(variable.shape[-2]) if len(variable.shape) == 2 else 0.3
        variable.assign(about + spread * rng.standard_normal(variable.shape))
    return model
