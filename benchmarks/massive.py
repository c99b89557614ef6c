"""ViTs trained with massive activations, by what is published of them: `python -m benchmarks.massive -o DIR`.

Sun et al. 2024 (arXiv 2402.17762) call values massive that pass 100 and are some thousand times the median of their
hidden state. They stand in one to four channels that are always the same, at a few tokens; in CLIP and DINOv2 at
patches that say little, and at registers where there are some. An early feed-forward half writes them at once, and the
residual stream keeps them. In DINOv2-giant about 2 % of the patches are such tokens (Darcet et al. 2024, arXiv
2309.16588).

No rewrite of a trained model gives it such a stream, for norms take mean and variance over all channels. So the
mechanism is there before a ViT is trained on scikit-learn's digits, and it learns with it: the register and the patch
in the corner, which is always empty, are marked in one channel; a unit of an early feed-forward half sees the mark, and
writes two channels. What a rewrite can make massive is made so afterwards, see `planted`.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import digits
from benchmarks.accuracy import measure_model
from benchmarks.job import Job
from benchmarks.trained import on_massive
from vit_deploy import checkpoints
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.reference import forward

SEEDS = (0, 1, 2)
SIZES = {"embed_dim": 64, "num_heads": 4, "num_layers": 4, "register_tokens": 1}
BLOCK, UNIT = 1, 0  # whose feed-forward half writes them, and by which of its hidden units
MARK, WRITTEN = 5, (17, 42)  # channels: the one that is seen, and those that are written
CORNER = 0  # of the patches
MARKED, GAIN, THRESHOLD, WRITES = 8.0, 4.0, 12.0, 30.0
LOOKED_AT = 64  # images that statistics are of
PLANTED, FACTOR = 2, 300.0  # channels of each place, and how much larger they become


@dataclass(frozen=True)
class Massive:
    """How the residual stream looks behind the blocks, where it is most massive.

    Args:
        largest: absolute value.
        median: of all absolute values.
        tokens: share of the tokens that have a value above a third of the largest.
        channels: that have one.
    """

    largest: float
    median: float
    tokens: float
    channels: int


def train(data: digits.Digits, seed: int, epochs: int) -> Any:
    """A Keras ViT of digits with massive activations at its register and at the patch in the corner."""
    return digits.train(data, seed, epochs, prepare, **SIZES)


def prepare(model: Any) -> None:
    """Give a model that is not trained yet the weights that write massive activations."""
    prefix = model.config.num_prefix_tokens
    new = {name: np.asarray(variable).copy() for name, variable in model.canonical_variables().items()}
    new["pos_embed.table"][[prefix - 1, prefix + CORNER], MARK] += MARKED
    ffn = f"block_{BLOCK}.ffn"
    new[f"{ffn}.up.kernel"][:, UNIT] = GAIN * (np.arange(model.config.embed_dim) == MARK)
    new[f"{ffn}.up.bias"][UNIT] = -THRESHOLD
    new[f"{ffn}.down.kernel"][UNIT] = 0
    new[f"{ffn}.down.kernel"][UNIT, WRITTEN] = np.array([1, -1]) * WRITES
    for name, variable in model.canonical_variables().items():
        variable.assign(new[name])


def statistics(checkpoint: Checkpoint, images: NDArray[np.float32]) -> Massive:
    """Of the block whose output is most massive."""
    found: list[Massive] = []

    def look(name: str, values: NDArray[Any]) -> None:
        if not name.startswith("block_"):
            return
        sizes = np.abs(values)
        high = sizes > sizes.max() / 3
        tokens, channels = high.any(axis=-1).mean(), high.any(axis=tuple(range(high.ndim - 1))).sum()
        found.append(Massive(float(sizes.max()), float(np.median(sizes)), float(tokens), int(channels)))

    forward(checkpoint, images, np.float32, watch=look)
    return max(found, key=lambda massive: massive.largest / massive.median)


def planted(checkpoint: Checkpoint) -> Checkpoint:
    """The same function with two channels 300 times as large at each place of a block where that is possible.

    These are what attention and MLP read from their norms, queries (against keys), and attention's values (against what
    reads them). A GELU lets no factor through the inside of an MLP.
    """
    weights = {name: values.copy() for name, values in checkpoint.weights.items()}
    rng = np.random.default_rng(0)
    for index in range(checkpoint.config.num_layers):
        block = f"block_{index}"
        places: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
            ("norm1", ("scale", "bias"), ("attention.query", "attention.key", "attention.value")),
            ("norm2", ("scale", "bias"), ("ffn.up",)),
            ("attention.value", ("kernel", "bias"), ("attention.out",)),
        )
        for written, parts, readers in places:
            channels = rng.choice(checkpoint.config.embed_dim, PLANTED, replace=False)
            for part in parts:
                weights[f"{block}.{written}.{part}"][..., channels] *= FACTOR
            for reader in readers:
                weights[f"{block}.{reader}.kernel"][channels] /= FACTOR
        channels = rng.choice(checkpoint.config.embed_dim, PLANTED, replace=False)
        for part in ("kernel", "bias"):
            weights[f"{block}.attention.query.{part}"][..., channels] *= FACTOR
            weights[f"{block}.attention.key.{part}"][..., channels] /= FACTOR
    return dataclasses.replace(checkpoint, weights=weights)


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result a model: what each precision costs it as it was trained, and with more made massive by rewriting."""
    for model in on_massive(job):
        checkpoint = checkpoints.load(model)
        images = np.load(model.with_name("massive-test.npz"))["images"][:LOOKED_AT]
        found = statistics(checkpoint, checkpoint.preprocess.normalize(images))
        with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
            yield model.stem, {**measure_model(model, Path(folder), planted), "massive": dataclasses.asdict(found)}


if __name__ == "__main__":
    digits.main("massive", __doc__, seeds=SEEDS, training=train)
