"""The places of an ONNX file's weights, read without any engine.

An ONNX file is one protobuf message (`onnx.proto` in the ONNX repository); only the fields on the way to the weights
are looked at, and everything else is skipped where it lies.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vit_deploy.errors import ArtifactError, EngineError
from vit_deploy.formats.onnx.schema import (
    ATTRIBUTE_GRAPH,
    ATTRIBUTE_GRAPHS,
    ATTRIBUTE_SPARSE,
    ATTRIBUTE_SPARSES,
    ATTRIBUTE_TENSOR,
    ATTRIBUTE_TENSORS,
    ENTRY_KEY,
    ENTRY_VALUE,
    FUNCTION_NODE,
    GRAPH_INITIALIZER,
    GRAPH_NODE,
    GRAPH_SPARSE,
    MODEL_FUNCTIONS,
    MODEL_GRAPH,
    NODE_ATTRIBUTE,
    SPARSE_INDICES,
    SPARSE_VALUES,
    TENSOR_EXTERNAL,
)
from vit_deploy.formats.protobuf import Message, opened

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


def external_locations(path: Path) -> set[str]:
    """The files, relative to the model's folder, that hold weights of an ONNX file.

    Raises:
        EngineError: the file is missing, or is no protobuf message.
    """
    try:
        with opened(path, "an ONNX file") as model:
            return set(_locations(model, "model"))
    except ArtifactError as error:
        raise EngineError(error.message, fix=error.fix) from error


def refuse_outside_data(path: Path) -> None:
    """Raise `EngineError` if an ONNX file, or a link beside it, has weights read from outside of its folder.

    An absolute path is refused wherever it leads: it would not once the folder is moved.
    """
    root = path.parent.resolve()
    if outside := sorted(
        name
        for name in external_locations(path)
        if Path(name).is_absolute() or not (path.parent / name).resolve().is_relative_to(root)
    ):
        raise EngineError(
            f"{path} keeps weights outside its artifact: {', '.join(outside)}", fix="export the model again"
        )


def files_beside(path: Path) -> tuple[list[Path], list[str]]:
    """The files that hold weights of an ONNX file, and what is wrong with them, in words.

    Raises:
        EngineError: the file is missing, or is no protobuf message.
    """
    found, notes = [], []
    for name in sorted(external_locations(path)):
        file = path.parent / name
        if not file.resolve().is_relative_to(path.parent.resolve()):
            notes.append(f"its weights are in {name}, outside its folder: engines refuse that")
        elif not file.is_file():
            notes.append(f"its weights are in {name}, which is missing: copy it too")
        else:
            found.append(file)
    return found, notes


def _locations(message: Message, kind: str) -> Iterator[str]:
    if kind == "entry":
        if message.text(ENTRY_KEY) == "location":
            yield message.text(ENTRY_VALUE)
        return
    ways = _WAYS[kind]
    for number, value in message.fields():
        if number in ways and isinstance(value, Message):
            yield from _locations(value, ways[number])
