"""Lines that run a SavedModel in TensorFlow."""

from __future__ import annotations

import glob
from collections.abc import Iterator

from vit_deploy.core.artifact import Artifact
from vit_deploy.formats.snippet import Lines


def _run(artifact: Artifact) -> Iterator[str]:
    path, name, output = str(artifact.model_path), artifact.input.name, artifact.config.output_name
    if _is_pattern(artifact):
        yield f"os.chdir({path!r})  # TensorFlow takes such a path for a pattern"
    yield f"model = tf.saved_model.load({('.' if _is_pattern(artifact) else path)!r})"
    yield 'with tf.device("/GPU:0" if tf.config.list_physical_devices("GPU") else "/CPU:0"):'
    if artifact.outputs:
        yield f'    outputs = model.signatures["serving_default"]({name}=tf.constant(images))'
        yield "outputs = {name: values.numpy() for name, values in outputs.items()}"
        yield f"output = outputs[{artifact.output_name!r}][0]"
        return
    yield f'    output = model.signatures["serving_default"]({name}=tf.constant(images))[{output!r}][0].numpy()'


def _labels(artifact: Artifact) -> str:
    folder = "" if _is_pattern(artifact) else f"{artifact.model_path}/"
    return f'json.loads(json.load(open({folder + "assets/vit_deploy.json"!r}))["vit_deploy.labels"])'


def _is_pattern(artifact: Artifact) -> bool:
    """Whether TensorFlow would look for the variables by a pattern, and not find them."""
    path = str(artifact.model_path)
    return glob.escape(path) != path


LINES = Lines(
    imports=lambda artifact: ["import tensorflow as tf"],
    run=_run,
    labels=_labels,
    standard=lambda artifact: ("os",) if _is_pattern(artifact) else (),
)
