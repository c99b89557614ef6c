"""A trained ViT, frozen under a new head; the fine-tuned functional model is exported as one ViT.

python samples/03_fine_tune.py [--epochs 4] [-o artifacts/fine-tuned]
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


def train(model: keras.Model, images: np.ndarray, answers: np.ndarray, rate: float, epochs: int) -> None:
    model.compile(
        keras.optimizers.AdamW(rate), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    model.fit(images, answers, batch_size=32, epochs=epochs, verbose=2)


def main(epochs: int, directory: Path) -> None:
    keras.utils.set_random_seed(0)
    directory.mkdir(parents=True, exist_ok=True)

    # A backbone that somebody has trained (here: on the digits 0 to 4) and saved without its head.
    backbone = vit_deploy.ViT(
        input_shape=(8, 8, 1),
        patch_size=2,
        scale="pico",
        include_top=False,
        pooling="cls",
        embed_dim=64,
        num_heads=4,
        num_layers=2,
        kernel_initializer="glorot_uniform",
    )
    old = digits.load(0, 4)
    images = backbone.preprocess.normalize(old.train_pixels)
    train(keras.Sequential([backbone, keras.layers.Dense(5)]), images, old.train_digits, 1e-3, epochs)
    backbone.save(directory / "backbone.keras")

    # A new head on the frozen backbone, for the digits 5 to 9; then everything together, slowly.
    backbone = vit_deploy.load(directory / "backbone.keras")
    backbone.trainable = False
    inputs = keras.Input((8, 8, 1))
    features = keras.layers.Dropout(0.1)(backbone(inputs))
    model = keras.Model(inputs, keras.layers.Dense(5, name="five_to_nine")(features))
    new = digits.load(5, 9)
    images, answers = backbone.preprocess.normalize(new.train_pixels), new.train_digits - 5
    train(model, images, answers, 1e-2, epochs)
    backbone.trainable = True
    train(model, images, answers, 5e-4, epochs)
    model.save(directory / "fine_tuned.keras")

    # The file holds a functional model around the ViT. Dropout does nothing once trained, and Dense is what a head
    # is, so it is exported as one ViT with a head. Any other layer would be an error that names it.
    (bundle,) = vit_deploy.export(directory / "fine_tuned.keras", directory, formats=["onnx"], force=True)
    held_out = backbone.preprocess.normalize(new.test_pixels)
    with vit_deploy.session(bundle) as session:
        logits = session.infer(held_out)
    difference = np.abs(logits - model.predict(held_out, verbose=0)).max()
    accuracy = np.mean(logits.argmax(axis=-1) == new.test_digits - 5)
    print(f"{bundle.name:16} accuracy {accuracy:.4f}  max difference to the Keras model {difference:.1e}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("-o", "--output", type=Path, default=Path("artifacts/fine-tuned"))
    options = parser.parse_args()
    main(options.epochs, options.output)
