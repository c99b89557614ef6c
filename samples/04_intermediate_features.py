"""What every block of a ViT computes: a functional model with one output a block, held against the reference.

python samples/04_intermediate_features.py
"""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np

import vit_deploy
from vit_deploy.core.reference import forward


def main() -> None:
    vit = vit_deploy.ViT(input_shape=(32, 48, 3), patch_size=(16, 8), scale="pico", num_classes=10)

    # The layers of a ViT are its attributes: calling them one after the other rebuilds it with outputs of one's own.
    inputs = keras.Input((32, 48, 3))
    x = vit.pos_embed(vit.class_token(vit.patch_embed(inputs)))
    outputs = []
    for block in vit.transformer_layers:
        x = block(x)
        outputs.append(x)
    blocks = keras.Model(inputs, outputs)

    # The reference is the same function in NumPy, float64, and tells of every step on its way.
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    images = vit.preprocess.normalize(pixels)
    activations: dict[str, np.ndarray] = {}
    forward(vit.to_checkpoint(), images, hook=activations.__setitem__)
    for index, features in enumerate(blocks.predict(images, verbose=0)):
        difference = np.abs(features - activations[f"block_{index}.ffn"]).max()
        print(f"block_{index}  {features.shape}  max difference to the reference {difference:.1e}")


if __name__ == "__main__":
    main()
