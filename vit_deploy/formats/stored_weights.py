"""The weights that a model file holds, by name.

ONNX files and SavedModels keep the checkpoint's names. TFLite files have the converter's, and their kernels are
transposed: they can be compared with each other, and not with the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.errors import ArtifactError, MissingEngineError
from vit_deploy.formats.onnx.file import refuse_outside_data
from vit_deploy.formats.tflite.file import opened

Weights = dict[str, NDArray[Any]]

TENSOR_BUFFER = 2  # of schema.fbs
VARIABLE = "/.ATTRIBUTES/VARIABLE_VALUE"
PREFIX, DOT = "weights/", ".."  # TensorFlow's checkpoints take no single dots in the names of a mapping


def read_weights(path: Path, format: str) -> Weights:
    """Every constant array of a model file.

    Raises:
        ArtifactError: a file that is damaged.
        EngineError: an ONNX file that keeps weights outside its folder.
        MissingEngineError: the library that reads it is not installed.
    """
    reader = FORMATS[format].read_weights
    if reader is None:
        raise ArtifactError(f"the weights of {path} cannot be read", fix="give the checkpoint that it was made from")
    weights: Weights = reader.load()(path)
    return weights


def onnx_weights(path: Path) -> Weights:
    """The initializers of an ONNX file, by the checkpoint's names; see `read_weights`."""
    refuse_outside_data(path)
    try:
        import onnx
        from google.protobuf.message import DecodeError
        from onnx import numpy_helper
    except ModuleNotFoundError as error:
        raise MissingEngineError("reading ONNX weights needs onnx", fix='pip install "vit-deploy[export]"') from error
    try:
        tensors = onnx.load(path).graph.initializer
        return {tensor.name: np.asarray(numpy_helper.to_array(tensor)) for tensor in tensors}
    except (DecodeError, ValueError, TypeError, OSError, onnx.checker.ValidationError) as error:
        raise ArtifactError(f"the weights of {path} cannot be read: {error}", fix="export the model again") from error


def savedmodel_weights(path: Path) -> Weights:
    """The variables of a SavedModel, by the checkpoint's names; see `read_weights`."""
    try:
        with quiet_stderr():  # TensorFlow logs at import
            import tensorflow as tf
    except ModuleNotFoundError as error:
        raise MissingEngineError(
            "reading a SavedModel needs tensorflow", fix='pip install "vit-deploy[export]"'
        ) from error
    try:
        with quiet_stderr():
            reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
            names = [name for name in reader.get_variable_to_shape_map() if name.endswith(VARIABLE)]
            return {_own_name(name): np.asarray(reader.get_tensor(name)) for name in names}
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise ArtifactError(f"the weights of {path} cannot be read: {error}", fix="export the model again") from error


def _own_name(name: str) -> str:
    return name.removesuffix(VARIABLE).removeprefix(PREFIX).replace(DOT, ".")


def tflite_weights(path: Path) -> Weights:
    """The constants of a TFLite file, by the converter's names; see `read_weights`."""
    found: Weights = {}
    with opened(path) as model:
        buffers = model.buffers
        for place, graph in enumerate(model.graphs):
            for tensor in graph.tensors:
                if content := bytes(buffers[tensor.buffer].content):
                    array, name = _array(content, tensor.dtype, tensor.shape), tensor.name
                    if place and name in found and not np.array_equal(found[name], array, equal_nan=True):
                        name = f"{name} of graph {place}"  # names are a graph's own: those of positions occur in each
                    found[name] = array
    return found


def _array(content: bytes, dtype: str, shape: list[int]) -> NDArray[Any]:
    known = hasattr(np, dtype) and dtype not in ("string", "bool")
    array = np.frombuffer(content, np.dtype(dtype) if known else np.uint8)  # packed types as their bytes
    return array.reshape(shape) if array.size == int(np.prod(shape)) else array
