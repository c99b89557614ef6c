"""Run some ViTs on the backend of KERAS_BACKEND and write what they answer: `on_one_backend.py OUT.npz FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tests.features import FAMILIES, as_arguments
from tests.model.tiny import TINY
from vit_deploy.model.vit import ViT

CASES: dict[str, dict[str, Any]] = {
    "default": {},
    **{kind: {"normalization_type": kind} for kind in ("rms_norm", "dynamic_tanh", "band_rms")},
    **{kind: {"ffn_type": kind} for kind in ("swiglu", "geglu", "glu")},
    **{
        kind: {"activation": kind}
        for kind in ("gelu_tanh", "quick_gelu", "relu", "relu6", "leaky_relu", "elu", "silu", "hard_silu", "sigmoid")
    },
    "tanh": {"activation": "tanh"},
    "post": {"normalization_position": "post", "pooling": "mean"},
    "max": {"pooling": "max", "attention_args": {"qkv_bias": False}},
    "sequence": {"include_top": False},
    "features": {"include_top": False, "pooling": "mean", "epsilon": 1e-3},
    "gray": {"input_shape": (24, 32, 1)},
    "own_choice": {"attention_args": {"flash_attention": None}},
    **{name: as_arguments(changes) for name, changes in FAMILIES.items()},
}


def as_array(tensor: Any) -> Any:
    return np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(tensor, "float32")))


def answers() -> dict[str, Any]:
    """Logits or features of every case, with weights that no option leaves at its first value."""
    found = {}
    for name, options in CASES.items():
        model = ViT(**TINY | options)
        rng = np.random.default_rng(1)
        for variable in model.canonical_variables().values():
            value = keras.ops.convert_to_numpy(variable)
            variable.assign(value + 0.2 * rng.standard_normal(value.shape).astype(np.float32))
        images = rng.standard_normal((2, *model.config.image_size, model.config.channels)).astype(np.float32)
        found[f"answer/{name}"] = as_array(model(images))
        if name in ("default", "own_choice"):
            np.testing.assert_allclose(model.predict(images, verbose=0), found[f"answer/{name}"], rtol=0, atol=1e-5)
    return found


def first_weights() -> dict[str, Any]:
    """The seeded random weights."""
    families = as_arguments(FAMILIES["post-norm, RMS, probe"]) | {"distillation_token": True, "register_tokens": 2}
    model = ViT(**TINY, **families, seed=12)
    return {f"first/{name}": as_array(variable) for name, variable in model.canonical_variables().items()}


def trained(folder: Path, dtype: str) -> dict[str, Any]:
    """Weights after one step of plain gradient descent, saved and loaded on the way."""
    rng = np.random.default_rng(2)
    images, labels = rng.standard_normal((8, 24, 32, 3)).astype(np.float32), rng.integers(0, 5, 8)
    model = ViT(**TINY, register_tokens=2, layer_scale=True, qk_norm=True, pre_norm=True, pooling="map", dtype=dtype)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    before = {name: as_array(variable) for name, variable in model.canonical_variables().items()}
    assert np.isfinite(model.fit(images, labels, batch_size=8, verbose=0).history["loss"]).all()
    model.save(folder / f"{dtype}.keras")
    again = keras.saving.load_model(folder / f"{dtype}.keras")
    np.testing.assert_array_equal(as_array(again(images)), as_array(model(images)))
    found = {name: as_array(variable) for name, variable in again.canonical_variables().items()}
    return {f"step/{dtype}/{name}": found[name] - before[name] for name in found}


def drops_only_while_training() -> None:
    """Every kind of dropout changes the output of a training call and of no other."""
    images = np.random.default_rng(3).standard_normal((4, 24, 32, 3)).astype(np.float32)
    expected = as_array(ViT(**TINY)(images))
    for rate in ("dropout_rate", "attention_dropout_rate", "pos_dropout_rate", "stochastic_depth_rate"):
        model = ViT(**TINY, **{rate: 0.5})
        np.testing.assert_array_equal(as_array(model(images, training=False)), expected)
        assert (as_array(model(images, training=True)) != expected).any(), rate


def walked() -> None:
    """The parts make a functional model with one output a block."""
    model = ViT(**TINY)
    inputs = keras.Input((24, 32, 3))
    x = model.pos_embed(model.class_token(model.patch_embed(inputs)))
    outputs = [x := block(x) for block in model.transformer_layers]
    images = np.ones((2, 24, 32, 3), np.float32)
    found = keras.Model(inputs, [*outputs, model.head(model.norm(x)[:, 0])])(images)
    np.testing.assert_allclose(as_array(found[-1]), as_array(model(images)), rtol=0, atol=1e-6)


if __name__ == "__main__":
    drops_only_while_training()
    walked()
    folder = Path(sys.argv[2])
    results = answers() | first_weights() | trained(folder, "float32") | trained(folder, "mixed_bfloat16")
    np.savez(sys.argv[1], **{name.replace("/", "|"): array for name, array in results.items()})
