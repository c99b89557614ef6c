"""Where does an ONNX file keep its weights, read without any engine?

An ONNX file is one protobuf message (`onnx.proto` in the ONNX repository); only the fields on the way to the weights
are looked at, and everything else is skipped where it lies.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vit_deploy.errors import EngineError

# Field numbers of onnx.proto, by message.
MODEL_GRAPH, MODEL_FUNCTIONS = 7, 25
GRAPH_NODE, GRAPH_INITIALIZER, GRAPH_SPARSE = 1, 5, 15
NODE_ATTRIBUTE, FUNCTION_NODE = 5, 7
ATTRIBUTE_TENSOR, ATTRIBUTE_GRAPH, ATTRIBUTE_TENSORS, ATTRIBUTE_GRAPHS = 5, 6, 10, 11
ATTRIBUTE_SPARSE, ATTRIBUTE_SPARSES = 22, 23
SPARSE_VALUES, SPARSE_INDICES = 1, 2
TENSOR_EXTERNAL = 13
ENTRY_KEY, ENTRY_VALUE = 1, 2

# Which fields of which message lead on, and to what message.
_WAYS: dict[str, dict[int, str]] = {
    "model": {MODEL_GRAPH: "graph", MODEL_FUNCTIONS: "function"},
    "function": {FUNCTION_NODE: "node"},
    "graph": {GRAPH_NODE: "node", GRAPH_INITIALIZER: "tensor", GRAPH_SPARSE: "sparse"},
    "node": {NODE_ATTRIBUTE: "attribute"},
    "attribute": {
        ATTRIBUTE_TENSOR: "tensor",
        ATTRIBUTE_TENSORS: "tensor",
        ATTRIBUTE_GRAPH: "graph",
        ATTRIBUTE_GRAPHS: "graph",
        ATTRIBUTE_SPARSE: "sparse",
        ATTRIBUTE_SPARSES: "sparse",
    },
    "sparse": {SPARSE_VALUES: "tensor", SPARSE_INDICES: "tensor"},
    "tensor": {TENSOR_EXTERNAL: "entry"},
}
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


def external_locations(path: Path) -> set[str]:
    """The files, relative to the model's folder, that hold weights of an ONNX file.

    Raises:
        EngineError: the file is missing, or is no protobuf message.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return set(_locations(data, 0, len(data), "model"))
    except (OSError, ValueError, IndexError, RecursionError) as error:
        raise EngineError(f"{path} is no ONNX file: {error}", fix="export the model again") from error


def _locations(data: Any, start: int, end: int, message: str) -> Iterator[str]:
    if message == "entry":
        values = {number: data[first:last] for number, first, last in _fields(data, start, end)}
        if values.get(ENTRY_KEY) == b"location":
            yield values.get(ENTRY_VALUE, b"").decode()
        return
    ways = _WAYS[message]
    for number, first, last in _fields(data, start, end):
        if number in ways:
            yield from _locations(data, first, last, ways[number])


def _fields(data: Any, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, start and end of every field that has a length; the others are skipped."""
    while start < end:
        tag, start = _varint(data, start, end)
        kind = tag & 7
        if kind == VARINT:
            _, start = _varint(data, start, end)
        elif kind == FIXED64:
            start += 8
        elif kind == FIXED32:
            start += 4
        elif kind == BYTES:
            length, start = _varint(data, start, end)
            if start + length > end:
                raise ValueError("a field is longer than what it lies in")
            yield tag >> 3, start, start + length
            start += length
        else:
            raise ValueError(f"a field of unknown kind {kind}")


def _varint(data: Any, start: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while start < end and shift < 64:
        byte = data[start]
        value |= (byte & 0x7F) << shift
        start += 1
        shift += 7
        if byte < 0x80:
            return value, start
    raise ValueError("a number without an end")
