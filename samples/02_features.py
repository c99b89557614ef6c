"""A ViT without a head as a feature extractor, in every engine, with logistic regression on top.

The features are learned on the digits 0 to 4 and used to tell apart the digits 5 to 9, of which the ViT saw none.

python samples/02_features.py [--epochs 4] [-o artifacts/digit-features]
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
from sklearn.linear_model import LogisticRegression

import vit_deploy


def main(epochs: int, directory: Path) -> None:
    keras.utils.set_random_seed(0)

    # Without a head the output is features: one vector an image with a pooling, else the whole sequence of tokens.
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
    known = digits.load(0, 4)
    classifier = keras.Sequential([backbone, keras.layers.Dense(5)])
    classifier.compile(
        keras.optimizers.AdamW(1e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    images = backbone.preprocess.normalize(digits.shifted(known.train_pixels))
    classifier.fit(images, np.tile(known.train_digits, 5), batch_size=64, epochs=epochs, verbose=2)

    # The Dense was only there to train; the backbone alone is exported.
    new = digits.load(5, 9)
    train, test = (backbone.preprocess.normalize(pixels) for pixels in (new.train_pixels, new.test_pixels))
    for bundle in vit_deploy.export(backbone, directory, force=True):
        with vit_deploy.session(bundle) as session:
            regression = LogisticRegression(max_iter=2000).fit(session.infer(train), new.train_digits)
            features = session.infer(test)
        accuracy = regression.score(features, new.test_digits)
        print(f"{bundle.name:16} {features.shape[1]} features  accuracy on new digits {accuracy:.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("-o", "--output", type=Path, default=Path("artifacts/digit-features"))
    options = parser.parse_args()
    main(options.epochs, options.output)
