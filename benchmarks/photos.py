"""How is a small ViT trained on real photographs, for measuring what a precision costs it?

python -m benchmarks.photos --data FOLDER|FILE.zip -o DIR writes `photos-<seed>.keras`, `photos-train.npz` (to calibrate
with) and `photos-test.npz` (held out: what agreement is measured on), both with `images` (uint8, NHWC) and `labels`.

The data hold a folder a class, of images of one size. Nine tenths are trained on, always the same ones.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

SUFFIXES = (".jpg", ".jpeg", ".png")
HELD_OUT = 0.1  # of the images
SPLIT_SEED = 0


def read(data: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]:
    """Images `(n, height, width, 3)`, the class of each, and the classes' names in sorted order."""
    from PIL import Image

    images, classes = [], []
    for name, content in _files(data):
        images.append(np.asarray(Image.open(io.BytesIO(content)).convert("RGB"), np.uint8))
        classes.append(name.parent.name)
    names = sorted(set(classes))
    return np.stack(images), np.array([names.index(each) for each in classes]), names


def _files(data: Path) -> Iterator[tuple[PurePosixPath, bytes]]:
    if data.is_dir():
        for path in sorted(each for each in data.rglob("*") if each.suffix.lower() in SUFFIXES):
            yield PurePosixPath(path.as_posix()), path.read_bytes()
        return
    with zipfile.ZipFile(data) as archive:
        for name in sorted(each for each in archive.namelist() if each.lower().endswith(SUFFIXES)):
            yield PurePosixPath(name), archive.read(name)


def train(
    images: NDArray[np.uint8], labels: NDArray[np.int64], names: list[str], seed: int, epochs: int, **sizes: int
) -> Any:
    """A Keras ViT of five blocks, or of other sizes, and patches of 4x4 pixels, trained with flips and shifts."""
    import keras

    import vit_deploy

    keras.utils.set_random_seed(seed)
    model = vit_deploy.create_vision_transformer(
        "pico",
        input_shape=images.shape[1:],
        patch_size=4,
        num_classes=len(names),
        kernel_initializer="glorot_uniform",
        labels=names,
        **{"embed_dim": 128, "num_heads": 4, "num_layers": 5, "mlp_dim": 384, **sizes},
    )
    steps = epochs * -(-len(images) // 64)
    rate = keras.optimizers.schedules.CosineDecay(1e-4, steps, warmup_target=1e-3, warmup_steps=steps // 10)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        seen = model.preprocess.normalize(_moved(images, rng))
        history = model.fit(seen, labels, batch_size=64, epochs=1, verbose=0)
        print(f"epoch {epoch + 1}/{epochs}: {history.history['accuracy'][0]:.3f}", file=sys.stderr, flush=True)
    return model


def _moved(images: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Each image flipped or not, and shifted by up to four pixels."""
    pad, (height, width) = 4, images.shape[1:3]
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect")
    flips, tops, lefts = rng.random(len(images)) < 0.5, *rng.integers(0, 2 * pad + 1, (2, len(images)))
    moved = [
        each[top : top + height, left : left + width][:, :: -1 if flip else 1]
        for each, flip, top, left in zip(padded, flips, tops, lefts, strict=True)
    ]
    return np.stack(moved)


def write(data: Path, directory: Path, seed: int, epochs: int) -> float:
    """Train and save; gives the accuracy on the held-out images."""
    images, labels, names = read(data)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    test, rest = np.split(order, [round(HELD_OUT * len(images))])
    directory.mkdir(parents=True, exist_ok=True)
    np.savez(directory / "photos-train.npz", images=images[rest], labels=labels[rest])
    np.savez(directory / "photos-test.npz", images=images[test], labels=labels[test])
    model = train(images[rest], labels[rest], names, seed, epochs)
    answers = model.predict(model.preprocess.normalize(images[test]), verbose=0).argmax(axis=-1)
    model.save(directory / f"photos-{seed}.keras")
    accuracy = float(np.mean(answers == labels[test]))
    print(f"{directory / f'photos-{seed}.keras'}: {accuracy:.4f} of the held-out images right", flush=True)
    return accuracy


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    parser = argparse.ArgumentParser(prog="python -m benchmarks.photos", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER|FILE.zip")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=25)
    options = parser.parse_args()
    write(options.data, options.output, options.seed, options.epochs)
