"""`.keras` files read without Keras: a zip of `config.json` and an HDF5 file.

Keras stores the HDF5 file uncompressed, so that it is read in place, through a window on the zip.
"""

from __future__ import annotations

import io
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, BinaryIO

from vit_deploy.checkpoints.containers.h5 import GET_AGAIN, H5Tensors, open_stream
from vit_deploy.checkpoints.containers.zip_members import checked_members, expansions
from vit_deploy.checkpoints.documents import MAX_JSON_BYTES, parse_json
from vit_deploy.errors import CheckpointError

CONFIG = "config.json"
METADATA = "metadata.json"
WEIGHTS = "model.weights.h5"
MAX_EXPANSION = 100  # floats compress by a tenth, the names around them by a few times
CHUNK_BYTES = 1 << 20
LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, then lengths of the name and of the extra field


@contextmanager
def open_keras(path: Path) -> Iterator[H5Tensors]:
    """The tensors of a `.keras` file, and its `config.json` and `metadata.json` as documents.

    Raises:
        CheckpointError: a damaged zip, members that are missing, doubled or outside, or that expand beyond
            what weights can.
    """
    with ExitStack() as stack:
        with _explained():
            archive = stack.enter_context(zipfile.ZipFile(path))
            members = _members(archive)
            documents = {
                name: parse_json(_text(archive, members[name]), name) for name in (CONFIG, METADATA) if name in members
            }
            weights = stack.enter_context(_seekable(archive, members[WEIGHTS], path))
        yield stack.enter_context(open_stream(weights, path, "keras", documents))


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    members, unsafe = checked_members(archive)
    problems = [f"it has no {name}" for name in (CONFIG, WEIGHTS) if name not in members]
    problems += [*unsafe, *expansions(archive.infolist(), MAX_EXPANSION, CHUNK_BYTES)]
    if problems:
        raise CheckpointError(
            f"it is not a .keras file that Keras 3 has written: {'; '.join(problems)}",
            fix="save the model again with model.save('NAME.keras')",
        )
    return members


def _text(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.file_size > MAX_JSON_BYTES:
        raise CheckpointError(f"{info.filename} has {info.file_size} bytes", fix=GET_AGAIN)
    return archive.read(info)


@contextmanager
def _seekable(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> Iterator[BinaryIO]:
    with archive.open(info) as member, ExitStack() as stack:
        if info.compress_type == zipfile.ZIP_STORED:
            while member.read(CHUNK_BYTES):
                pass  # zipfile compares the checksum at the end
            stream: IO[bytes] = stack.enter_context(path.open("rb"))
            yield io.BufferedReader(Window(stream, _start(stream, info), info.file_size))
        else:
            unpacked = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(member, unpacked, CHUNK_BYTES)
            yield unpacked


def _start(stream: IO[bytes], info: zipfile.ZipInfo) -> int:
    stream.seek(info.header_offset)
    signature, name_bytes, extra_bytes = LOCAL_HEADER.unpack(stream.read(LOCAL_HEADER.size))
    if signature != b"PK\3\4":
        raise zipfile.BadZipFile(f"no header in front of {info.filename}")
    return int(info.header_offset + LOCAL_HEADER.size + name_bytes + extra_bytes)


class Window(io.RawIOBase):
    """The bytes `start` to `start + size` of a file, as a file."""

    def __init__(self, stream: IO[bytes], start: int, size: int) -> None:
        self._stream, self._start, self._size, self._at = stream, start, size, 0

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move; nothing is read yet."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """Where the next byte comes from."""
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` as far as the window reaches."""
        wanted = max(0, min(len(buffer), self._size - self._at))
        self._stream.seek(self._start + self._at)
        count: int = self._stream.readinto(buffer[:wanted])  # type: ignore[attr-defined]
        self._at += count
        return count


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, ValueError) as error:
        raise CheckpointError(f"its zip is damaged: {error}", fix=GET_AGAIN) from error
