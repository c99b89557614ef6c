"""From nothing to three proven files: build a small ViT, train it for a minute, export it, run what was exported.

python samples/01_quick_start.py [--epochs 10] [-o artifacts/digits]
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import digits
import keras
import numpy as np

import vit_deploy


def main(epochs: int, directory: Path) -> None:
    keras.utils.set_random_seed(0)
    data = digits.load()

    # 1. Build: 8x8 pixels in patches of 2x2 are 16 tokens. Sizes of one's own take the place of the scale's.
    model = vit_deploy.create_vision_transformer(
        "pico",
        input_shape=(8, 8, 1),
        patch_size=2,
        num_classes=10,
        embed_dim=64,
        num_heads=4,
        num_layers=3,
        kernel_initializer="glorot_uniform",  # suits a narrow model that is trained from nothing
        labels=[str(digit) for digit in range(10)],
    )

    # 2. Train, as any Keras model. The model knows how its images are normalised; the files will know it too.
    images = model.preprocess.normalize(digits.shifted(data.train_pixels))
    answers = np.tile(data.train_digits, 5)
    steps = epochs * -(-len(images) // 64)
    rate = keras.optimizers.schedules.CosineDecay(1e-4, steps, warmup_target=2e-3, warmup_steps=steps // 10)
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.05),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(images, answers, batch_size=64, epochs=epochs, verbose=2)

    # 3. Export: each file is compared with a float64 reference before it gets its name; a wrong one is an error.
    bundles = vit_deploy.export(model, directory, force=True)

    # 4. Use what was exported, in its own engine, and prove it again: this is what runs on the device.
    held_out = model.preprocess.normalize(data.test_pixels)
    for bundle in bundles:
        with vit_deploy.session(bundle) as session:
            accuracy = np.mean(session.infer(held_out).argmax(axis=-1) == data.test_digits)
        parity = vit_deploy.verify(bundle.directory).parity
        proof = f"max difference {parity.max_abs:.1e} of {parity.tolerance.max_abs:.1e}"
        print(f"{bundle.name:16} accuracy {accuracy:.4f}  {proof}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("-o", "--output", type=Path, default=Path("artifacts/digits"))
    options = parser.parse_args()
    main(options.epochs, options.output)
