"""Make the golden files of Google's dialect with Flax: `python tests/peers/make_google_golden.py`.

The modules below are written here after the published programs; the axes of the heads, the GELU and the epsilon are
those of Flax.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

sys.path.append(str(Path(__file__).parents[1] / "checkpoints"))

import google_vit as plain

FOLDER = Path(__file__).parent / "golden" / "google"
CASES = {
    "imagenet21k": (plain.VARIANTS["imagenet21k"], "opt/target/"),
    "big_vision": (plain.VARIANTS["big_vision"], "params/"),
    "siglip": (plain.VARIANTS["SigLIP"], "params/img/"),
}


class MlpBlock(nn.Module):
    """Dense, GELU, dense."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        hidden = nn.gelu(nn.Dense(plain.HIDDEN)(x))
        return nn.Dense(x.shape[-1])(hidden)


class Block(nn.Module):
    """One encoder block; vision_transformer keeps the names of an early Flax, which counted all parts together."""

    names: plain.Names

    @nn.compact
    def __call__(self, x: Any) -> Any:
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=plain.HEADS, name=self.names.attention)(y, y)
        y = nn.LayerNorm(name=self.names.norm2)(x)
        return x + MlpBlock(name=self.names.mlp)(y)


class Positions(nn.Module):
    """Adds a table."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        return x + self.param("pos_embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))


class Encoder(nn.Module):
    """All blocks and the last norm, with the positions in front where the program has them here."""

    names: plain.Names

    @nn.compact
    def __call__(self, x: Any) -> Any:
        if self.names.class_position:
            x = Positions(name="posembed_input")(x)
        for index in range(plain.DEPTH):
            x = Block(self.names, name=f"encoderblock_{index}")(x)
        return nn.LayerNorm(name="encoder_norm")(x)


class MAPHead(nn.Module):
    """Attention of a probe, and an mlp."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        probe = self.param("probe", nn.initializers.xavier_uniform(), (1, 1, x.shape[-1]))
        x = nn.MultiHeadDotProductAttention(num_heads=plain.HEADS)(jnp.tile(probe, (len(x), 1, 1)), x)
        return (x + MlpBlock()(nn.LayerNorm()(x)))[:, 0]


class ViT(nn.Module):
    """The whole model."""

    variant: plain.Variant

    @nn.compact
    def __call__(self, images: Any) -> Any:
        names, pool = self.variant.names, self.variant.pool
        x = nn.Conv(plain.DIM, plain.PATCH_SIZE, plain.PATCH_SIZE, padding="VALID", name="embedding")(images)
        x = x.reshape(len(x), -1, plain.DIM)
        if not names.class_position:
            x = x + self.param("pos_embedding", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        if pool == "tok":
            token = self.param("cls", nn.initializers.zeros, (1, 1, plain.DIM))
            x = jnp.concatenate([jnp.tile(token, (len(x), 1, 1)), x], axis=1)
        x = Encoder(names, name="Transformer")(x)
        x = {"tok": lambda: x[:, 0], "gap": lambda: x.mean(1), "map": lambda: MAPHead()(x)}[pool]()
        if self.variant.pre_logits:
            x = nn.tanh(nn.Dense(self.variant.pre_logits, name="pre_logits")(x))
        return nn.Dense(self.variant.classes, name="head")(x) if self.variant.classes else x


def answered(variant: plain.Variant) -> tuple[plain.Params, plain.Array]:
    """Parameters by Flax's names, and what Flax computes with them."""
    images = plain.draw_images()
    model = ViT(variant)
    own = flax.traverse_util.flatten_dict(model.init(jax.random.key(0), images)["params"], sep="/")
    params = plain.draw(variant)
    assert {name: value.shape for name, value in own.items()} == {name: value.shape for name, value in params.items()}
    tree = flax.traverse_util.unflatten_dict(params, sep="/")
    with jax.default_matmul_precision("highest"):
        return params, np.asarray(model.apply({"params": tree}, images))


def main() -> None:
    """Write a checkpoint and Flax's answers to `draw_images` for each case."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, (variant, prefix) in CASES.items():
        params, answers = answered(variant)
        np.savez(FOLDER / f"{name}.npz", **{prefix + tensor: value for tensor, value in params.items()})
        np.save(FOLDER / f"{name}_answers.npy", answers)


if __name__ == "__main__":
    main()
