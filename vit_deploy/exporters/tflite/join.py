"""TFLite files of one model for several sizes of images as one file: a graph and a signature each, each weight once."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from vit_deploy.errors import ExportError
from vit_deploy.exporters.tflite.repack import INLINE_LIMIT, Content, write_model
from vit_deploy.formats.tflite.file import IDENTIFIER, metadata_of, opened, root
from vit_deploy.formats.tflite.schema import Model

EMPTY = 0  # the buffer of tensors without content
COMPUTED_ENTRIES = ("min_runtime_version", "CONVERSION_METADATA")  # of the converter, which hold for all


def join_files(
    files: Mapping[str, Path],
    target: Path,
    metadata: Mapping[str, bytes],
    *,
    trailer: bytes = b"",
    inline_limit: int = INLINE_LIMIT,
) -> None:
    """Write one file that has the graph of each of several.

    Args:
        files: files of one graph each, by what its signature will be called.
        target: the file to write.
        metadata: entries of the new file.
        trailer: what follows at the end of it.
        inline_limit: bytes past which buffers are written outside the flatbuffer.

    Raises:
        ExportError: a file with several graphs.
        OSError: the disk is full.
    """
    with ExitStack() as stack:
        models = {key: stack.enter_context(opened(path)) for key, path in files.items()}
        made, contents = _joined(models)
        first = next(iter(models.values()))
        kept = {name: value for name, value in metadata_of(first).items() if name in COMPUTED_ENTRIES}
        write_model(
            target, root(_packed(made)), contents, {**kept, **metadata}, inline_limit=inline_limit, trailer=trailer
        )


def split_file(source: Path, signatures: Sequence[str], folder: Path) -> dict[str, Path]:
    """Write the graph of each signature of a file as a file of its own; the inverse of `join_files`.

    Args:
        source: the file of several graphs.
        signatures: what they are called.
        folder: where the files go.

    Raises:
        ExportError: a signature that is not there.
        OSError: the disk is full.
    """
    found = {}
    with opened(source) as model:
        whole = _structure(model)
        named = {_text(signature.signatureKey): signature for signature in whole.signatureDefs}
        for key in signatures:
            if key not in named:
                raise ExportError(f"{source} has no signature {key}", fix="export it again")
            alone = copy.copy(whole)
            signature = copy.copy(named[key])
            alone.subgraphs = [whole.subgraphs[signature.subgraphIndex]]
            signature.subgraphIndex, signature.signatureKey = 0, b"serving_default"
            alone.signatureDefs = [signature]
            contents = {
                tensor.buffer: _content(model, tensor.buffer)
                for tensor in alone.subgraphs[0].tensors
                if len(model.buffers[tensor.buffer].content)
            }
            found[key] = folder / f"{key}.tflite"
            write_model(found[key], root(_packed(alone)), contents, {})
    return found


def _joined(models: Mapping[str, Model]) -> tuple[Any, dict[int, tuple[int, Content]]]:
    """The structure of the new file, and the content of each of its buffers."""
    made: Any = None
    places: dict[bytes, int] = {}
    contents: dict[int, tuple[int, Content]] = {}
    codes: dict[tuple[Any, ...], int] = {}
    for key, model in models.items():
        part = _structure(model)
        if len(part.subgraphs) != 1 or len(part.signatureDefs) != 1:
            raise ExportError(
                f"the TFLite file for {key} has {len(part.subgraphs)} graphs, expected one",
                fix="report this with the model's config",
            )
        if made is None:
            made = copy.copy(part)
            made.operatorCodes, made.subgraphs, made.signatureDefs, made.buffers = [], [], [], [schema.BufferT()]
        (graph,), (signature,) = part.subgraphs, part.signatureDefs
        for operator in graph.operators:
            code = part.operatorCodes[operator.opcodeIndex]
            kind = (code.builtinCode, code.deprecatedBuiltinCode, code.customCode, code.version)
            if kind not in codes:
                codes[kind] = len(made.operatorCodes)
                made.operatorCodes.append(code)
            operator.opcodeIndex = codes[kind]
        for tensor in graph.tensors:
            tensor.buffer = _place(model, tensor.buffer, made, places, contents)
        signature.subgraphIndex, signature.signatureKey = len(made.subgraphs), key.encode()
        made.subgraphs.append(graph)
        made.signatureDefs.append(signature)
    return made, contents


def _place(
    model: Model, index: int, made: Any, places: dict[bytes, int], contents: dict[int, tuple[int, Content]]
) -> int:
    """The buffer of the new file with the content of one of an old file."""
    view = model.buffers[index].content
    if not len(view):
        return EMPTY
    digest = hashlib.sha256(view).digest()
    if digest not in places:
        places[digest] = len(made.buffers)
        contents[places[digest]] = _content(model, index)
        made.buffers.append(schema.BufferT())
    return places[digest]


def _content(model: Model, index: int) -> tuple[int, Content]:
    view = model.buffers[index].content
    return len(view), lambda: view


def _structure(model: Model) -> Any:
    """All but the contents of buffers, and without metadata."""
    made = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytes(model.data[:]), 0))
    made.buffers = [schema.BufferT() for _ in made.buffers]
    made.metadata, made.metadataBuffer = None, None
    return made


def _packed(made: Any) -> memoryview:
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(made.Pack(builder), IDENTIFIER)
    return memoryview(bytes(builder.Output()))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
