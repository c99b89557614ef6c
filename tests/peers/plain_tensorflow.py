"""A ViT as somebody else saves it with TensorFlow: `plain_tensorflow.py FILE.keras FOLDER` writes files there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

import vit_deploy

HEIGHT, WIDTH = 24, 32


class Saved(tf.Module):
    """The model behind other names, other layouts and other numbers, normalized to -1..1."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @tf.function(input_signature=[tf.TensorSpec((None, HEIGHT, WIDTH, 3), tf.float32)])
    def picture(self, picture: Any) -> Any:
        return {"scores": self.model(picture)}

    @tf.function(input_signature=[tf.TensorSpec((1, 3, HEIGHT, WIDTH), tf.float32)])
    def planes(self, planes: Any) -> Any:
        return self.model(tf.transpose(planes, [0, 2, 3, 1]))

    @tf.function(input_signature=[tf.TensorSpec((2, HEIGHT, WIDTH, 3), tf.uint8)])
    def pixels(self, pixels: Any) -> Any:
        return self.model(tf.cast(pixels, tf.float32) / 127.5 - 1)

    @tf.function(input_signature=[tf.TensorSpec((1, HEIGHT, WIDTH, 3), tf.float32)])
    def bright(self, bright: Any) -> Any:
        return self.model(bright / 127.5 - 1)


def _converter(saved: Saved, name: str) -> Any:
    frozen = convert_variables_to_constants_v2(getattr(saved, name).get_concrete_function())
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen], saved)


def main(checkpoint: str, folder: Path) -> None:
    """SavedModels and TFLite files, one of which has lost its weights."""
    model = vit_deploy.load(checkpoint)
    saved = Saved(model)
    for name in ("picture", "bright"):
        tf.saved_model.save(saved, str(folder / name), signatures={"serving_default": getattr(saved, name)})
    for name in ("planes", "pixels"):
        (folder / f"{name}.tflite").write_bytes(_converter(saved, name).convert())
    integers = _converter(saved, "planes")
    images = np.random.default_rng(0).uniform(-1, 1, (16, 1, 3, HEIGHT, WIDTH)).astype(np.float32)
    images[0], images[1] = -1, 1
    integers.optimizations = [tf.lite.Optimize.DEFAULT]
    integers.representative_dataset = lambda: ([image] for image in images)
    integers.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    integers.inference_input_type = integers.inference_output_type = tf.uint8
    (folder / "integers.tflite").write_bytes(integers.convert())
    concrete = saved.planes.get_concrete_function()
    lost = tf.lite.TFLiteConverter.from_concrete_functions([concrete], saved).convert()
    (folder / "lost.tflite").write_bytes(lost)
    model.export(str(folder / "keras.tflite"), format="litert", verbose=False)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
