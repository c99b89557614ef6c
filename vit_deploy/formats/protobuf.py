"""Protobuf messages read without any engine and without their schema.

ONNX files and SavedModels are such messages; https://protobuf.dev/programming-guides/encoding has the encoding. What
is not requested is skipped where it lies, so that a file of any size is read in no time.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.errors import ArtifactError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Message:
    """A part of a file that is, or holds, a message.

    Args:
        data: all bytes of the file.
        start: where the message starts in them.
        end: behind it.
    """

    data: Any
    start: int
    end: int

    def fields(self) -> Iterator[tuple[int, int | Message]]:
        """Number and value of every field, in the file's order; what has a length is a `Message`.

        Raises:
            ValueError: this is no message.
        """
        position = self.start
        while position < self.end:
            tag, position = self._varint(position)
            kind = tag & 7
            value: int | Message
            if kind == VARINT:
                value, position = self._varint(position)
            elif kind == BYTES:
                length, position = self._varint(position)
                value, position = Message(self.data, position, position + length), position + length
            elif kind in (FIXED64, FIXED32):
                size = 8 if kind == FIXED64 else 4
                value, position = int.from_bytes(self.data[position : position + size], "little"), position + size
            else:
                raise ValueError(f"a field of unknown kind {kind}")
            if position > self.end:
                raise ValueError("a field is longer than what it lies in")
            yield tag >> 3, value

    def messages(self, number: int) -> list[Message]:
        """All values of a repeated field that have a length: messages, strings or bytes."""
        return [value for found, value in self.fields() if found == number and isinstance(value, Message)]

    def message(self, number: int) -> Message:
        """The last value of a field, an empty message where there is none."""
        return next(reversed(self.messages(number)), Message(self.data, self.end, self.end))

    def number(self, number: int) -> int | None:
        """A whole number, signed; None where it is absent."""
        values = [value for found, value in self.fields() if found == number and isinstance(value, int)]
        return None if not values else values[-1] - (1 << 64 if values[-1] >> 63 else 0)

    def text(self, number: int) -> str:
        """A string, empty where it is absent."""
        return str(self.message(number))

    def mapping(self, number: int) -> dict[str, Message]:
        """A map field from strings to messages, or strings, as their bytes."""
        return {entry.text(1): entry.message(2) for entry in self.messages(number)}

    def packed(self) -> list[int]:
        """The whole numbers of a repeated field that is written as one."""
        position, found = self.start, []
        while position < self.end:
            value, position = self._varint(position)
            found.append(value)
        return found

    def __str__(self) -> str:
        return bytes(self.data[self.start : self.end]).decode()

    def _varint(self, position: int) -> tuple[int, int]:
        value = shift = 0
        while position < self.end and shift < 70:
            byte = self.data[position]
            value |= (byte & 0x7F) << shift
            position += 1
            shift += 7
            if byte < 0x80:
                return value & (1 << 64) - 1, position
        raise ValueError("a number without an end")


def written(number: int, content: bytes) -> bytes:
    """A field that has a length, as it stands in a message; behind a message's last byte it is one field more."""
    return _as_varint(number << 3 | BYTES) + _as_varint(len(content)) + content


def written_number(number: int, value: int) -> bytes:
    """A field that is a whole number, not negative."""
    return _as_varint(number << 3 | VARINT) + _as_varint(value)


def _as_varint(value: int) -> bytes:
    pieces = []
    while value > 0x7F:
        pieces.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*pieces, value])


@contextmanager
def opened(path: Path, kind: str) -> Iterator[Message]:
    """The message that a file consists of.

    Args:
        path: the path of the file.
        kind: what it should be, for the error: "an ONNX file".

    Raises:
        ArtifactError: the file is missing, or what the block reads from it is no message.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield Message(data, 0, len(data))
    except OSError as error:
        raise ArtifactError(f"cannot read {path}: {error.strerror}", fix="check the path") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(
            f"{path} is not {kind}, or a damaged one: {error}", fix="export or download the model again"
        ) from error
