"""Weights of any size written into an ONNX file, each once and without a copy.

An ONNX file is one protobuf message, in which a repeated field may come in pieces. So the structure is serialized
without the weights, and each weight follows it as one more initializer, straight from its array.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx

from vit_deploy.core.weights import Float32
from vit_deploy.errors import ExportError
from vit_deploy.formats.onnx.schema import GRAPH_INITIALIZER, MODEL_GRAPH, TENSOR_RAW_DATA
from vit_deploy.formats.protobuf import BYTES

EXTERNAL_LIMIT = 10**9  # bytes of weights from which they are written beside the model
ALIGNMENT = 4096  # of each weight in the external file: a page, so that it can be mapped


@dataclass(frozen=True)
class Piece:
    """One initializer as it lies in the file: the bytes in front of its values, and the values."""

    head: bytes
    values: Float32 | None = None

    @property
    def size(self) -> int:
        """The size in bytes."""
        return len(self.head) + (0 if self.values is None else self.values.nbytes)


def write_model(
    path: Path, structure: onnx.ModelProto, weights: Mapping[str, Float32], *, external_limit: int = EXTERNAL_LIMIT
) -> None:
    """Write a model whose graph takes `weights` from initializers that it does not have yet.

    Args:
        path: the path of the file; weights of `external_limit` bytes or more go to `<path>.data` beside it.
        structure: the model without its weights; not changed.
        weights: the weights by the initializers' names.
        external_limit: the size in bytes from which weights lie outside the file.

    Raises:
        OSError: the disk is full.
    """
    arrays = {name: np.asarray(weight, dtype="<f4", order="C") for name, weight in weights.items()}
    if sum(array.nbytes for array in arrays.values()) >= external_limit:
        pieces = list(_written_beside(path.with_name(path.name + ".data"), arrays))
    else:
        pieces = [_inside(name, array) for name, array in arrays.items()]
    around = onnx.ModelProto()
    around.CopyFrom(structure)
    around.ClearField("graph")
    graph = structure.graph.SerializeToString(deterministic=True)
    with path.open("wb") as file:
        file.write(around.SerializeToString(deterministic=True))
        file.write(_head(MODEL_GRAPH, len(graph) + sum(piece.size for piece in pieces)))
        file.write(graph)
        for piece in pieces:
            file.write(piece.head)
            if piece.values is not None:
                _write_values(file, piece.values)


def check_model(path: Path) -> None:
    """Let the onnx package check a file in full.

    Raises:
        ExportError: it is not valid.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"the ONNX file is not valid: {error}") from error


def _inside(name: str, array: Float32) -> Piece:
    tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=onnx.TensorProto.FLOAT)
    head = tensor.SerializeToString(deterministic=True) + _head(TENSOR_RAW_DATA, array.nbytes)
    return Piece(_head(GRAPH_INITIALIZER, len(head) + array.nbytes) + head, array)


def _written_beside(path: Path, arrays: Mapping[str, Float32]) -> Iterator[Piece]:
    with path.open("wb") as file:
        for name, array in arrays.items():
            file.write(bytes(-file.tell() % ALIGNMENT))
            tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=onnx.TensorProto.FLOAT)
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", path.name), ("offset", file.tell()), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            _write_values(file, array)
            entry = tensor.SerializeToString(deterministic=True)
            yield Piece(_head(GRAPH_INITIALIZER, len(entry)) + entry)


def _write_values(file: BinaryIO, array: Float32) -> None:
    file.write(array.reshape(-1).view(np.uint8).data)


def _head(field: int, length: int) -> bytes:
    return _varint(field << 3 | BYTES) + _varint(length)


def _varint(value: int) -> bytes:
    pieces = []
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*pieces, value])
