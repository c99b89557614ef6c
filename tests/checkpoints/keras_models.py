"""Small Keras models to save, whose weights no initializer gives."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from vit_deploy.model.vit import ViT

TINY: dict[str, Any] = {
    "input_shape": (8, 12, 3),
    "patch_size": (4, 3),
    "num_classes": 5,
    "embed_dim": 12,
    "num_heads": 3,
    "num_layers": 2,
    "mlp_dim": 20,
}
FEATURES = {"include_top": False, "pooling": "cls"}


def vit(**options: Any) -> ViT:
    return scrambled(ViT(**TINY | options))


def under(backbone: ViT, *layers: Any, **call: Any) -> Any:
    """A functional model: the backbone and the layers after it."""
    inputs = keras.Input(backbone.input_spec.shape[1:])
    x = backbone(inputs, **call)
    for layer in layers:
        x = layer(x)
    return scrambled(keras.Model(inputs, x, name="tuned"))


def sequence(*layers: Any) -> Any:
    return scrambled(keras.Sequential([keras.Input((8, 12, 3)), *layers], name="tuned"))


def scrambled(model: Any) -> Any:
    rng = np.random.default_rng(1)
    model.set_weights([value + noise(rng, value) for value in model.get_weights()])
    return model


def noise(rng: Any, value: Any) -> Any:
    return (0.1 * rng.standard_normal(value.shape)).astype(value.dtype)


def trained(model: Any) -> Any:
    """Compiled and fitted for a step, so that the file holds an optimizer and metrics as well."""
    rng = np.random.default_rng(2)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"], run_eagerly=True)
    model.fit(rng.standard_normal((4, 8, 12, 3)).astype(np.float32), rng.integers(0, 4, 4), verbose=0)
    return model
