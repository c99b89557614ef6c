"""How do weights and metadata get into a TFLite file without unpacking it?

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

from vit_deploy.tflite_file import IDENTIFIER, Table, buffer_content, buffer_view

INLINE_LIMIT = 2_000_000_000  # bytes of a file whose weights lie inside its flatbuffer; the format ends at 2^31
OUTSIDE_ENTRY = "buffer_location"  # by which TensorFlow's own tools know that buffers lie outside
ALIGNMENT = 64

# Fields of `Model` that the new root takes over as they are; the others are version, buffers and metadata.
KEPT_FIELDS = (1, 2, 3, 5, 7, 8, 9)
VERSION, BUFFERS, METADATA = 0, 4, 6
DATA, OFFSET, SIZE = 0, 1, 2  # fields of `Buffer`
NAME, BUFFER = 0, 1  # fields of `Metadata`

Content = Callable[[], Any]
"""Gives a buffer's bytes, when it is their turn to be written."""


def write_model(
    path: Path,
    model: Table,
    contents: Mapping[int, tuple[int, Content]],
    metadata: Mapping[str, bytes],
    *,
    inline_limit: int = INLINE_LIMIT,
    trailer: bytes = b"",
) -> None:
    """Write `model` with other buffers and more metadata.

    Args:
        path: of the new file.
        model: root of the old one; its buffers may lie outside.
        contents: new content of buffers by their index, as (bytes, function that gives them); the others stay.
        metadata: entries to add, or to put in the place of those with the same name.
        inline_limit: bytes past which the buffers are written outside the flatbuffer.
        trailer: what follows at the end of the file, such as a zip archive of labels.

    Raises:
        OSError: the file cannot be written.
    """
    old = model.tables(BUFFERS)
    body = memoryview(model.data)[: _end_of_flatbuffer(model)]
    sizes: list[int] = []
    sources: list[Content] = []
    for index, buffer in enumerate(old):
        size, source = contents.get(index) or _unchanged(buffer)
        sizes.append(size)
        sources.append(source)
    entries = {
        entry.bytes(NAME).decode(): buffer_content(model, entry.number(BUFFER, "I")) for entry in model.tables(METADATA)
    }
    entries.pop(OUTSIDE_ENTRY, None)
    outside = len(body) + sum(sizes) > inline_limit
    entries |= {**metadata, **({OUTSIDE_ENTRY: b"outside flatbuffers"} if outside else {})}
    used = {entry.number(BUFFER, "I") for entry in model.tables(METADATA)}
    for index in used:  # the entries get buffers of their own
        sizes[index] = 0
    starts, _ = _placed(sizes, len(body), 0 if outside else 4)
    header = _header(model, sizes, starts, entries, first=None if not outside else 0)
    if outside:
        header = _header(model, sizes, starts, entries, first=len(header))
    with path.open("wb") as file:
        file.write(header)
        file.write(body)
        for size, start, source in zip(sizes, starts, sources, strict=True):
            if size:
                prefix = b"" if outside else size.to_bytes(4, "little")
                file.write(bytes(len(header) + start - len(prefix) - file.tell()) + prefix)
                file.write(source())
        file.write(trailer)


def _end_of_flatbuffer(model: Table) -> int:
    outside = [buffer.number(OFFSET, "Q") for buffer in model.tables(BUFFERS)]
    return min((offset for offset in outside if offset > 1), default=len(model.data))


def _unchanged(buffer: Table) -> tuple[int, Content]:
    view = buffer_view(buffer)
    return len(view), lambda: view


def _placed(sizes: Sequence[int], start: int, prefix: int) -> tuple[list[int], int]:
    """Where the data of each buffer starts, counted from the end of the header, and where the last ends."""
    starts = []
    for size in sizes:
        if size:
            start = -(-(start + prefix) // ALIGNMENT) * ALIGNMENT
        starts.append(start)
        start += size
    return starts, start


def _header(
    model: Table, sizes: Sequence[int], starts: Sequence[int], entries: Mapping[str, bytes], *, first: int | None
) -> bytes:
    """The new root and all that it holds itself; `first` is its own length if the buffers lie outside."""
    builder = flatbuffers.Builder(1 << 16)
    # The builder counts positions back from its end, so what comes after the header has negative ones.
    contents = [builder.CreateByteVector(content) for content in entries.values()]
    names = [builder.CreateString(name) for name in entries]
    buffers = [
        _buffer(builder, -(start - 4)) if first is None else _outside_buffer(builder, first + start, size)
        for size, start in zip(sizes, starts, strict=True)
        if size
    ]
    empty = _table(builder, 3, {})
    filled = iter(buffers)
    all_buffers = [next(filled) if size else empty for size in sizes] + [_buffer(builder, each) for each in contents]
    metadata = [_table(builder, 2, {NAME: name}, {BUFFER: len(sizes) + index}) for index, name in enumerate(names)]
    vectors = {BUFFERS: _vector(builder, all_buffers), METADATA: _vector(builder, metadata)}
    kept = {index: -model.target(index) for index in KEPT_FIELDS if model.target(index)}
    root = _table(builder, 10, kept | vectors, {VERSION: model.number(VERSION, "I")})
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
    return _table(builder, 3, {DATA: data})


def _outside_buffer(builder: flatbuffers.Builder, offset: int, size: int) -> int:
    builder.StartObject(3)
    builder.PrependUint64(offset)
    builder.Slot(OFFSET)
    builder.PrependUint64(size)
    builder.Slot(SIZE)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, targets: Sequence[int]) -> int:
    builder.StartVector(4, len(targets), 4)
    for target in reversed(targets):
        builder.PrependUOffsetTRelative(target)
    return int(builder.EndVector())
