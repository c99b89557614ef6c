"""Facts that a SavedModel states about itself, read without TensorFlow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from vit_deploy.errors import ArtifactError
from vit_deploy.formats.graph import Graph, TensorInfo, counted
from vit_deploy.formats.protobuf import Message, opened

FILE = "saved_model.pb"
ESSENTIALS = "assets/vit_deploy.json"
SIGNATURE = "serving_default"

# Field numbers of saved_model.proto, meta_graph.proto, graph.proto, function.proto and tensor_shape.proto.
SAVED_META_GRAPHS = 2
META_INFO, META_GRAPH, META_SIGNATURES = 1, 2, 5
INFO_TAGS, INFO_VERSION = 4, 5
GRAPH_NODE, GRAPH_LIBRARY = 1, 2
LIBRARY_FUNCTION, FUNCTION_SIGNATURE, FUNCTION_NODE = 1, 1, 3
NODE_NAME, NODE_OPERATOR, NODE_ATTRIBUTES = 1, 2, 5
ATTRIBUTE_FUNCTION, FUNCTION_NAME = 10, 1
SIGNATURE_INPUTS, SIGNATURE_OUTPUTS = 1, 2
TENSOR_NAME, TENSOR_TYPE, TENSOR_SHAPE = 1, 2, 3
SHAPE_DIMENSION, SHAPE_UNKNOWN_RANK = 2, 3
DIMENSION_SIZE = 1

# DataType of types.proto, from 0.
_DTYPES = (
    "undefined float32 float64 int32 uint8 int16 int8 string complex64 int64 bool qint8 quint8 qint32 bfloat16 qint16 "
    "quint16 uint16 complex128 float16 resource variant uint32 uint64"
)
DTYPES = _DTYPES.split()
# What carries values around and computes none.
PLUMBING = {
    *("Placeholder", "NoOp", "Identity", "IdentityN", "Const", "VarHandleOp", "ReadVariableOp"),
    *("PartitionedCall", "StatefulPartitionedCall"),
}


def read_graph(folder: Path) -> Graph:
    """The default signature, the operators and our essentials of a SavedModel.

    Operators are those of the functions behind the signature, each counted once however often it is called, without
    the plumbing of calls, constants and variables.

    Raises:
        ArtifactError: it is missing, no SavedModel, or a damaged one.
    """
    with opened(folder / FILE, "a SavedModel") as saved:
        metas = saved.messages(SAVED_META_GRAPHS)
        if not metas:
            raise ValueError("it holds no graph")
        signatures = metas[0].mapping(META_SIGNATURES)
        info = metas[0].message(META_INFO)
        # A file without our signature is looked at through whichever it has.
        chosen = SIGNATURE if SIGNATURE in signatures else next(iter(sorted(signatures)), None)
        signature = signatures[chosen] if chosen is not None else Message(b"", 0, 0)
        facts: dict[str, str | int] = {"signature": chosen or "none"}
        if version := info.text(INFO_VERSION):
            facts["made by"] = f"tensorflow {version}"
        return Graph(
            inputs=_tensors(signature, SIGNATURE_INPUTS),
            outputs=_tensors(signature, SIGNATURE_OUTPUTS),
            operators=counted(
                operator for operator in _operators(metas[0].message(META_GRAPH), signature) if operator not in PLUMBING
            ),
            metadata=_essentials(folder / ESSENTIALS),
            facts=facts,
        )


def refuse_other_signatures(path: Path, graph: Graph) -> None:
    """Raise `ArtifactError` if a SavedModel of anybody does not have the signature that is run here."""
    if (found := graph.facts["signature"]) != SIGNATURE:
        raise ArtifactError(
            f"{path} has no signature {SIGNATURE}; it has {found}",
            fix=f"save it with signatures={{{SIGNATURE!r}: …}}",
        )


def _operators(graph: Message, signature: Message) -> Iterator[str]:
    functions = {
        function.message(FUNCTION_SIGNATURE).text(FUNCTION_NAME): function.messages(FUNCTION_NODE)
        for function in graph.message(GRAPH_LIBRARY).messages(LIBRARY_FUNCTION)
    }
    outputs = signature.mapping(SIGNATURE_OUTPUTS).values()
    computed = {info.text(TENSOR_NAME).partition(":")[0] for info in outputs}
    nodes = graph.messages(GRAPH_NODE)
    waiting = [name for node in nodes if node.text(NODE_NAME) in computed for name in _called(node)]
    if not waiting:  # a file of TensorFlow 1, which has no functions
        yield from (node.text(NODE_OPERATOR) for node in nodes)
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for node in functions.get(name, []):
            yield node.text(NODE_OPERATOR)
            waiting += _called(node)


def _called(node: Message) -> list[str]:
    """The functions that a node calls: bodies, branches, conditions."""
    attributes = node.mapping(NODE_ATTRIBUTES).values()
    return [function.text(FUNCTION_NAME) for value in attributes for function in value.messages(ATTRIBUTE_FUNCTION)]


def _tensors(signature: Message, number: int) -> tuple[TensorInfo, ...]:
    return tuple(_tensor(name, info) for name, info in sorted(signature.mapping(number).items()))


def _tensor(name: str, info: Message) -> TensorInfo:
    code = info.number(TENSOR_TYPE) or 0
    shape = info.message(TENSOR_SHAPE)
    # An absent size is the number zero in this version of protobuf, and -1 is a dynamic side.
    sizes = [dimension.number(DIMENSION_SIZE) or 0 for dimension in shape.messages(SHAPE_DIMENSION)]
    sides = tuple(size if size >= 0 else None for size in sizes)
    dtype = DTYPES[code] if 0 <= code < len(DTYPES) else f"type {code}"
    return TensorInfo(name, dtype, None if shape.number(SHAPE_UNKNOWN_RANK) else sides)


def _essentials(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is damaged: {error}", fix="export the model again") from error
    if not isinstance(values, dict):
        raise ArtifactError(f"{path} is damaged: expected a JSON object", fix="export the model again")
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in values.items()}
