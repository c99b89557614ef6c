"""Facts that a TFLite file states about itself, read without any engine.

A TFLite file is a flatbuffer (the schema is TensorFlow Lite's `schema.fbs`); weights past 2 GB lie behind it, at
offsets that count from the start of the file. Labels are packed as a zip archive at the very end, as the metadata
standard has it (https://www.tensorflow.org/lite/models/convert/metadata).
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.errors import ArtifactError

IDENTIFIER = b"TFL3"
STANDARD_ENTRY = "TFLITE_METADATA"
OWN_ENTRY = "vit_deploy"
LABELS_FILE = "labels.txt"
CUSTOM = 32  # BuiltinOperator.CUSTOM


@dataclass(frozen=True)
class Table:
    """One table of a flatbuffer.

    Args:
        data: all bytes of the file.
        position: the offset of the table in the bytes.
    """

    data: Any
    position: int

    def _number(self, kind: str, position: int) -> int:
        return int(struct.unpack_from("<" + kind, self.data, position)[0])

    def field(self, index: int) -> int:
        """Where the content of a field, or the reference to it, starts; zero where it is absent."""
        vtable = self.position - self._number("i", self.position)
        if 4 + 2 * index >= self._number("H", vtable):
            return 0
        offset = self._number("H", vtable + 4 + 2 * index)
        return self.position + offset if offset else 0

    def number(self, index: int, kind: str) -> int:
        """A scalar field by its `struct` letter; zero where it is absent."""
        field = self.field(index)
        return self._number(kind, field) if field else 0

    def target(self, index: int) -> int:
        """Where the table, vector or string in a field starts; zero where it is absent."""
        field = self.field(index)
        return field + self._number("I", field) if field else 0

    def table(self, index: int) -> Table | None:
        """The table in a field."""
        target = self.target(index)
        return Table(self.data, target) if target else None

    def tables(self, index: int) -> list[Table]:
        """The tables of a vector."""
        start = self.target(index)
        if not start:
            return []
        slots = range(start + 4, start + 4 + 4 * self._number("I", start), 4)
        return [Table(self.data, slot + self._number("I", slot)) for slot in slots]

    def view(self, index: int) -> Any:
        """A vector of bytes, not copied where `data` is a memory view."""
        start = self.target(index)
        return self.data[start + 4 : start + 4 + self._number("I", start)] if start else b""

    def bytes(self, index: int) -> bytes:
        """A string or a vector of bytes."""
        return bytes(self.view(index))

    def numbers(self, index: int, kind: str) -> list[int]:
        """A vector of scalars."""
        start = self.target(index)
        count = self._number("I", start) if start else 0
        return list(struct.unpack_from(f"<{count}{kind}", self.data, start + 4)) if count else []


def root(data: Any) -> Table:
    """The `Model` table of a file's bytes."""
    return Table(data, int(struct.unpack_from("<I", data, 0)[0]))


def buffer_content(model: Table, index: int) -> bytes:
    """The bytes of one of the model's buffers, inside the flatbuffer or behind it."""
    buffer = model.tables(4)[index]
    return bytes(buffer_view(buffer))


def buffer_view(buffer: Table) -> Any:
    """A `Buffer`'s bytes, not copied where the file's bytes are a memory view."""
    if outside := buffer.number(1, "Q"):
        return buffer.data[outside : outside + buffer.number(2, "Q")] if outside > 1 else b""
    return buffer.view(0)


@contextmanager
def opened(path: Path) -> Iterator[Table]:
    """The `Model` table of a file, without reading its weights.

    Raises:
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            if data[4:8] != IDENTIFIER:
                raise ArtifactError(f"{path} is not a TFLite file", fix="give a .tflite file")
            yield root(data)
    except (ValueError, struct.error, IndexError) as error:
        raise ArtifactError(f"{path} is a damaged TFLite file: {error}", fix="export the model again") from error


def read_metadata(path: Path) -> dict[str, bytes]:
    """All metadata entries by name: the standard's `TFLITE_METADATA`, our `vit_deploy` (a JSON object), and others.

    Raises:
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    with opened(path) as model:
        return {entry.bytes(0).decode(): buffer_content(model, entry.number(1, "I")) for entry in model.tables(6)}


def read_labels(path: Path) -> tuple[str, ...]:
    """The labels that are packed into a TFLite file; empty without."""
    if not zipfile.is_zipfile(path):
        return ()
    with zipfile.ZipFile(path) as packed:
        if LABELS_FILE not in packed.namelist():
            return ()
        return tuple(packed.read(LABELS_FILE).decode().splitlines())


def read_operators(path: Path) -> dict[str, int]:
    """How often each operator is used, by its number in `BuiltinOperator`, or by its name for custom ones.

    Raises:
        ArtifactError: it is no TFLite file, or a damaged one.
    """
    with opened(path) as model:
        codes = [operator_name(code) for code in model.tables(1)]
        used = [codes[each.number(0, "I")] for graph in model.tables(2) for each in graph.tables(3)]
    return {name: used.count(name) for name in dict.fromkeys(used)}


def operator_name(code: Table) -> str:
    """A custom operator's own name, else the number of the builtin one."""
    number = max(code.number(0, "b"), code.number(3, "i"))  # numbers past 127 have a field of their own
    return code.bytes(1).decode() if number == CUSTOM else str(number)
