"""Weights and metadata put into a TFLite file without unpacking it.

A flatbuffer's references are relative and point forward, so a new `Model` table that is put in front of a
flatbuffer can refer to everything in it, and to weights behind it:

    new root, buffers and metadata | the old flatbuffer, untouched | weights …

Weights stand there as vectors of the flatbuffer, or, where the file would pass 2 GB, as data outside of it, at
offsets from the start of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers

from vit_deploy.formats.tflite.file import IDENTIFIER, metadata_of
from vit_deploy.formats.tflite.schema import Buffer, Metadata, Model

INLINE_LIMIT = 2_000_000_000  # bytes of a file whose weights lie inside its flatbuffer; the format ends at 2^31
OUTSIDE_ENTRY = "buffer_location"  # by which TensorFlow's own tools know that buffers lie outside
ALIGNMENT = 64

# The fields that the new root takes over as they are.
KEPT_FIELDS = tuple(
    index for index in range(Model.FIELDS) if index not in (Model.VERSION, Model.BUFFERS, Model.METADATA)
)

Content = Callable[[], Any]
"""Gives a buffer's bytes, when it is their turn to be written."""


def write_model(
    path: Path,
    model: Model,
    contents: Mapping[int, tuple[int, Content]],
    metadata: Mapping[str, bytes],
    *,
    inline_limit: int = INLINE_LIMIT,
    trailer: bytes = b"",
) -> None:
    """Write `model` with other buffers and more metadata.

    Args:
        path: the path of the new file.
        model: root of the old one; its buffers may lie outside.
        contents: new content of buffers by their index, as (bytes, function that gives them); the others stay.
        metadata: entries to add, or to put in the place of those with the same name.
        inline_limit: bytes past which the buffers are written outside the flatbuffer.
        trailer: what follows at the end of the file, such as a zip archive of labels.

    Raises:
        OSError: the file cannot be written.
    """
    body = _body(model)
    entries = metadata_of(model)
    entries.pop(OUTSIDE_ENTRY, None)
    kept, moved = _sorted_buffers(model, contents)
    sizes = {index: size for index, (size, _) in moved.items()}
    outside = len(body) + sum(sizes.values()) > inline_limit
    entries |= {**metadata, **({OUTSIDE_ENTRY: b"outside flatbuffers"} if outside else {})}
    starts = _placed(sizes, len(body), 0 if outside else 4)

    def header_of(length: int) -> bytes:
        places = {index: (length + start if outside else start, sizes[index]) for index, start in starts.items()}
        return _header(model, entries, kept, places, outside=outside)

    header = header_of(len(header_of(ALIGNMENT)))  # its length does not depend on the numbers in it
    with path.open("wb") as file:
        file.write(header)
        file.write(body)
        for index, (size, content) in moved.items():
            prefix = b"" if outside else size.to_bytes(4, "little")
            file.write(bytes(len(header) + starts[index] - len(prefix) - file.tell()) + prefix)
            file.write(content())
        file.write(trailer)


def _body(model: Model) -> bytearray:
    """The old flatbuffer. Its offsets to data behind it are erased: the converter lays that in random order."""
    buffers = model.buffers
    outside = [buffer.offset for buffer in buffers]
    body = bytearray(model.data[: min((offset for offset in outside if offset > 1), default=len(model.data))])
    for buffer in buffers:
        if position := buffer.field(Buffer.OFFSET):
            body[position : position + 8] = bytes(8)
    return body


def _sorted_buffers(
    model: Model, contents: Mapping[int, tuple[int, Content]]
) -> tuple[dict[int, int], dict[int, tuple[int, Content]]]:
    """The buffers that stay where they are, as references from the header, and those that are written again."""
    kept, moved = {}, dict[int, tuple[int, Content]]()
    entries = {entry.buffer for entry in model.metadata}  # these get buffers of their own
    for index, buffer in enumerate(model.buffers):
        if index in contents:
            moved[index] = contents[index]
        elif buffer.target(Buffer.DATA) and index not in entries:
            kept[index] = -buffer.position
        elif index not in entries and len(view := buffer.content):
            moved[index] = (len(view), _constant(view))
    return kept, moved


def _constant(view: Any) -> Content:
    return lambda: view


def _placed(sizes: Mapping[int, int], end: int, prefix: int) -> dict[int, int]:
    """Where the data of each buffer starts behind the header, when what is there already ends at `end`."""
    starts = {}
    for index, size in sizes.items():
        starts[index] = -(-(end + prefix) // ALIGNMENT) * ALIGNMENT
        end = starts[index] + size
    return starts


def _header(
    model: Model,
    entries: Mapping[str, bytes],
    kept: Mapping[int, int],
    places: Mapping[int, tuple[int, int]],
    *,
    outside: bool,
) -> bytes:
    """The new root and all that it holds itself.

    Args:
        model: the old root.
        entries: the entries of the metadata.
        kept: references to buffers of the old flatbuffer.
        places: (start, bytes) of the data of the others: from the start of the file where they lie outside of
            the flatbuffer, else from the end of the header.
        outside: whether they do.
    """
    builder = flatbuffers.Builder(1 << 16)
    # The builder counts positions back from its end, so what comes after the header has negative ones.
    contents = [builder.CreateByteVector(content) for content in entries.values()]
    names = [builder.CreateString(name) for name in entries]
    written = {
        index: _outside_buffer(builder, start, size) if outside else _buffer(builder, -(start - 4))
        for index, (start, size) in places.items()
    }
    empty = _table(builder, Buffer.FIELDS, {})
    count = len(model.buffers)
    buffers = [written.get(index) or kept.get(index) or empty for index in range(count)]
    buffers += [_buffer(builder, content) for content in contents]
    metadata = [
        _table(builder, Metadata.FIELDS, {Metadata.NAME: name}, {Metadata.BUFFER: count + index})
        for index, name in enumerate(names)
    ]
    vectors = {Model.BUFFERS: _vector(builder, buffers), Model.METADATA: _vector(builder, metadata)}
    unchanged = {index: -model.target(index) for index in KEPT_FIELDS if model.target(index)}
    root = _table(builder, Model.FIELDS, unchanged | vectors, {Model.VERSION: model.version})
    builder.minalign = ALIGNMENT
    builder.Finish(root, IDENTIFIER)
    return bytes(builder.Output())


def _table(
    builder: flatbuffers.Builder, fields: int, offsets: Mapping[int, int], numbers: Mapping[int, int] | None = None
) -> int:
    builder.StartObject(fields)
    for index, target in offsets.items():
        builder.PrependUOffsetTRelative(target)
        builder.Slot(index)
    for index, number in (numbers or {}).items():
        builder.PrependUint32Slot(index, number, 0)
    return int(builder.EndObject())


def _buffer(builder: flatbuffers.Builder, data: int) -> int:
    return _table(builder, Buffer.FIELDS, {Buffer.DATA: data})


def _outside_buffer(builder: flatbuffers.Builder, offset: int, size: int) -> int:
    builder.StartObject(Buffer.FIELDS)
    builder.PrependUint64(offset)
    builder.Slot(Buffer.OFFSET)
    builder.PrependUint64(size)
    builder.Slot(Buffer.SIZE)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, targets: Sequence[int]) -> int:
    builder.StartVector(4, len(targets), 4)
    for target in reversed(targets):
        builder.PrependUOffsetTRelative(target)
    return int(builder.EndVector())
