"""Exported fp32 files run by their engines alone, with no code of this project between the file and its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np


def answer_of_onnx(folder: Path, images: Any) -> Any:
    """What ONNX Runtime makes of images `(batch, height, width, channels)`."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(folder / "onnx-fp32" / "model.onnx"), providers=["CPUExecutionProvider"])
    (only,) = session.get_outputs()
    return session.run([only.name], {"images": images})[0]


def answer_of_tflite(folder: Path, images: Any) -> Any:
    """What LiteRT makes of them, one by one."""
    from ai_edge_litert.interpreter import Interpreter

    run = Interpreter(str(folder / "tflite-fp32" / "model.tflite")).get_signature_runner()
    return np.concatenate([_only(run(images=image[None])) for image in images])


def answer_of_savedmodel(folder: Path, images: Any) -> Any:
    """What TensorFlow makes of them."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder / "savedmodel-fp32" / "saved_model"))
    return _only(loaded.signatures["serving_default"](images=tf.constant(images))).numpy()


ENGINES: Mapping[str, Callable[[Path, Any], Any]] = {
    "onnx": answer_of_onnx,
    "tflite": answer_of_tflite,
    "savedmodel": answer_of_savedmodel,
}
"""By format; each takes the folder of the artifacts."""


def _only(answers: Mapping[str, Any]) -> Any:
    (answer,) = answers.values()
    return answer
