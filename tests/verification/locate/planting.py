"""How is a fault planted in an exported file, so that it is still the file of its artifact?"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import read_artifact, write_manifest

Edit = Callable[[NDArray[Any]], NDArray[Any]]


def copied(bundle: Path, directory: Path) -> Artifact:
    """A copy of an artifact that may be damaged."""
    shutil.copytree(bundle, directory)
    return read_artifact(directory)


def change_weight(artifact: Artifact, name: str, edit: Edit) -> Artifact:
    """Rewrite one weight, by canonical name and in canonical layout, in the model file itself."""
    {"onnx": _in_onnx, "tflite": _in_tflite, "savedmodel": _in_savedmodel}[artifact.format](artifact, name, edit)
    return write_manifest(artifact)


def edit_onnx(artifact: Artifact, edit: Callable[[onnx.ModelProto], None]) -> Artifact:
    model = onnx.load(artifact.model_path, load_external_data=False)
    edit(model)
    onnx.save(model, artifact.model_path)
    return write_manifest(artifact)


def _in_onnx(artifact: Artifact, name: str, edit: Edit) -> None:
    def change(model: onnx.ModelProto) -> None:
        (stored,) = (initializer for initializer in model.graph.initializer if initializer.name == name)
        stored.CopyFrom(numpy_helper.from_array(_edited(numpy_helper.to_array(stored), edit), name))

    edit_onnx(artifact, change)


def _in_tflite(artifact: Artifact, name: str, edit: Edit) -> None:
    from ai_edge_litert.interpreter import Interpreter

    engine = Interpreter(str(artifact.model_path))
    engine.allocate_tensors()
    *parts, kind = name.split(".")
    if kind == "table":
        chosen = [detail for detail in engine.get_tensor_details() if detail["name"].startswith("Const")]
        chosen = [each for each in chosen if tuple(each["shape"]) == _table_shape(artifact)]
    else:
        pattern = re.compile(r"\w*/".join(parts) + (r"\w*/MatMul" if kind == "kernel" else r"\w*/add"))
        sizes = 2 if kind == "kernel" else 1
        chosen = [detail for detail in engine.get_tensor_details() if pattern.fullmatch(detail["name"])]
        chosen = [each for each in chosen if len(each["shape"]) == sizes]
    (tensor,) = chosen
    before = engine.get_tensor(tensor["index"])
    after = _edited(before.T if kind == "kernel" else before, edit)
    content = artifact.model_path.read_bytes()
    assert content.count(before.tobytes()) == 1
    stored = np.ascontiguousarray(after.T if kind == "kernel" else after).tobytes()
    artifact.model_path.write_bytes(content.replace(before.tobytes(), stored))


def _table_shape(artifact: Artifact) -> tuple[int, int]:
    return artifact.config.sequence_length, artifact.config.embed_dim


def _in_savedmodel(artifact: Artifact, name: str, edit: Edit) -> None:
    import tensorflow as tf

    prefix = str(artifact.model_path / "variables" / "variables")
    reader = tf.train.load_checkpoint(prefix)
    tensors = {key: reader.get_tensor(key) for key in reader.get_variable_to_dtype_map()}
    (key,) = (tensor for tensor in tensors if name in tensor.replace("..", "."))
    tensors[key] = _edited(tensors[key], edit)
    names = sorted(tensors)
    tf.raw_ops.SaveV2(
        prefix=prefix, tensor_names=names, shape_and_slices=[""] * len(names), tensors=[tensors[one] for one in names]
    )


def _edited(before: NDArray[Any], edit: Edit) -> NDArray[Any]:
    after = edit(before.copy())
    assert after.shape == before.shape and not np.array_equal(after, before)
    return after.astype(before.dtype)
