"""How is a small ViT trained on real digits, for measuring what a precision costs it?

python -m benchmarks.digits -o DIR writes `digits-<seed>.keras` for each seed, `digits-train.npz` (to calibrate with)
and `digits-test.npz` (held out: what accuracy is measured on), both with `images` (uint8, NHWC) and `labels`.

The images are scikit-learn's 1797 handwritten digits of 8x8 grey pixels.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SEEDS = (0, 1, 2, 3, 4)
TEST_IMAGES = 597


class Digits(NamedTuple):
    """Pixels `(images, 8, 8, 1)`, uint8, and labels `(images,)`; a third is held out. The split is always the same."""

    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def load() -> Digits:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    data = load_digits()
    pixels = np.round(data.images[..., None] * (255 / 16)).astype(np.uint8)  # scikit-learn's go to 16
    train, test, train_labels, test_labels = train_test_split(
        pixels, data.target, test_size=TEST_IMAGES, stratify=data.target, random_state=0
    )
    return Digits(train, train_labels, test, test_labels)


def shifted(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every image five times: as it is, and moved by one pixel to each side. A digit stays the same digit."""
    padded = np.pad(pixels, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moves = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
    return np.concatenate([padded[:, y : y + 8, x : x + 8] for y, x in moves])


def train(
    data: Digits, seed: int, epochs: int, prepare: Callable[[Any], None] = lambda model: None, **sizes: int
) -> Any:
    """A Keras ViT of 16 tokens and three blocks, or of other sizes, trained from nothing.

    Args:
        data: what it is trained on.
        seed: of its weights and of the order of the images.
        epochs: passes over the images, each of which is there five times.
        prepare: called with the model before it is trained.
        sizes: of the model, where they are others.
    """
    import keras

    import vit_deploy

    keras.utils.set_random_seed(seed)
    model = vit_deploy.create_vision_transformer(
        "pico",
        input_shape=(8, 8, 1),
        patch_size=2,
        num_classes=10,
        kernel_initializer="glorot_uniform",
        labels=[str(digit) for digit in range(10)],
        **{"embed_dim": 64, "num_heads": 4, "num_layers": 3, **sizes},
    )
    prepare(model)
    images = model.preprocess.normalize(shifted(data.train_images))
    steps = epochs * -(-len(images) // 64)
    rate = keras.optimizers.schedules.CosineDecay(1e-4, steps, warmup_target=2e-3, warmup_steps=steps // 10)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(images, np.tile(data.train_labels, 5), batch_size=64, epochs=epochs, verbose=0)
    return model


Training = Callable[[Digits, int, int], Any]  # of a model: the images, a seed, and the epochs


def write(
    directory: Path,
    seeds: Sequence[int] = SEEDS,
    epochs: int = 12,
    *,
    name: str = "digits",
    training: Training = train,
) -> list[tuple[Path, float]]:
    """Train and save `<name>-<seed>.keras` beside its images; gives each file with its accuracy on those held out."""
    data = load()
    directory.mkdir(parents=True, exist_ok=True)
    np.savez(directory / f"{name}-train.npz", images=data.train_images, labels=data.train_labels)
    np.savez(directory / f"{name}-test.npz", images=data.test_images, labels=data.test_labels)
    found = []
    for seed in seeds:
        model = training(data, seed, epochs)
        answers = model.predict(model.preprocess.normalize(data.test_images), verbose=0).argmax(axis=-1)
        path = directory / f"{name}-{seed}.keras"
        model.save(path)
        found.append((path, float(np.mean(answers == data.test_labels))))
        print(f"{path}: {found[-1][1]:.4f} of the held-out images right", flush=True)
    return found


def main(name: str, about: str | None, *, seeds: Sequence[int] = SEEDS, training: Training = train) -> None:
    """Train what the command line asks for, as `python -m benchmarks.<name>`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=about)
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, action="append", help=f"repeat for more; default 0 to {seeds[-1]}")
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    write(options.output, options.seed or seeds, options.epochs, name=name, training=training)


if __name__ == "__main__":
    main("digits", __doc__)
