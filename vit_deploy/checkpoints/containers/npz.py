"""`.npz` files, zips of NumPy arrays, read array by array and without pickle."""

from __future__ import annotations

import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from vit_deploy.checkpoints.containers.floats import widened
from vit_deploy.checkpoints.containers.zip_members import checked_members
from vit_deploy.core.config_checks import is_count
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

SUFFIX = ".npy"
MAX_EXPANSION = 100  # of the whole file; one array of zeros may well be packed a thousandfold
FREE_BYTES = 1 << 20  # that any file may expand to
CHUNK_BYTES = 1 << 20
GET_AGAIN = "the file is damaged: get it again"
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


@dataclass(frozen=True)
class Header:
    """What one member says about its array.

    Args:
        shape: the shape of the array.
        columns_first: whether the numbers are in Fortran's order.
        dtype: the type of the numbers; never of objects.
        data_start: bytes in front of the numbers.
    """

    shape: tuple[int, ...]
    columns_first: bool
    dtype: np.dtype[Any]
    data_start: int


@contextmanager
def open_npz(path: Path) -> Iterator[NpzArrays]:
    """The arrays of an `.npz` file, stored or deflated.

    Raises:
        CheckpointError: a damaged zip, members that are no arrays of plain numbers, or sizes that lie.
    """
    with ExitStack() as stack:
        with _explained("its zip"):
            archive = stack.enter_context(zipfile.ZipFile(path))
            arrays = NpzArrays(archive, path)
        yield arrays


class NpzArrays:
    """A `TensorFile` over `.npz`; names are those of the members without `.npy`."""

    container = "npz"

    def __init__(self, archive: zipfile.ZipFile, path: Path) -> None:
        self.path = path
        self.documents: Mapping[str, Any] = {}
        self._archive = archive
        members, problems = checked_members(archive)
        problems += [f"{name} is no {SUFFIX}" for name in members if not name.endswith(SUFFIX)]
        packed, unpacked = (
            sum(getattr(member, size) for member in members.values()) for size in ("compress_size", "file_size")
        )
        if unpacked > max(FREE_BYTES, MAX_EXPANSION * packed):
            problems.append(f"it expands from {packed} to {unpacked} bytes")
        if not problems:
            self._members = {name.removesuffix(SUFFIX): info for name, info in members.items()}
            self._headers = dict(self._read_headers(problems))
        if problems:
            raise CheckpointError(f"it is no .npz file of plain arrays: {'; '.join(problems[:20])}", fix=GET_AGAIN)

    def _read_headers(self, problems: list[str]) -> Iterator[tuple[str, Header]]:
        for name, info in self._members.items():
            try:
                with _explained(name), self._archive.open(info) as member:
                    header = _header(member, name)
            except CheckpointError as error:
                problems.append(error.message)
                continue
            declared = header.data_start + math.prod(header.shape) * header.dtype.itemsize
            if declared != info.file_size:
                problems.append(f"{name} declares {declared} bytes and has {info.file_size}")
            yield name, header

    def names(self) -> Iterable[str]:
        """The names of all members, without `.npy`."""
        return self._headers.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an array by its member's header."""
        return self._headers[name].shape

    def dtype(self, name: str) -> str:
        """NumPy's name of the stored type; |V2 is bfloat16."""
        return str(self._headers[name].dtype)

    def read(self, name: str) -> Float32:
        """One array as float32; bfloat16 is what NumPy stores as two opaque bytes."""
        header = self._headers[name]
        kind = header.dtype
        opaque = kind.kind == "V" and kind.itemsize == 2 and kind.names is None
        if not opaque and (kind.kind != "f" or kind.itemsize > 8):
            raise CheckpointError(f"{name} is {kind}; expected float", fix="save it as floats")
        values = np.empty(math.prod(header.shape), "<u2" if opaque else kind)
        with _explained(name), self._archive.open(self._members[name]) as member:
            _skip(member, header.data_start)
            _fill(member, values.view(np.uint8).data)
            if member.read(1):  # reading on to the end is what makes zipfile compare the checksum
                raise zipfile.BadZipFile("it goes on behind its numbers")
        with np.errstate(over="ignore"):  # becomes infinite, which the checkpoint refuses
            floats: Float32 = widened(values) if opaque else values.astype(np.float32, copy=False)
        return floats.reshape(header.shape, order="F" if header.columns_first else "C")


def _header(member: IO[bytes], name: str) -> Header:
    version = npy.read_magic(member)
    if version not in HEADERS:
        raise ValueError(f"version {version} of the format, expected {', '.join(map(str, HEADERS))}")
    shape, columns_first, dtype = HEADERS[version](member)
    if dtype.hasobject:
        raise CheckpointError(f"{name} holds pickled objects, which are not unpacked", fix="save plain arrays")
    if not all(is_count(side) and side >= 0 for side in shape):
        raise ValueError(f"the shape {shape}")
    return Header(tuple(shape), bool(columns_first), dtype, member.tell())


def _skip(member: IO[bytes], count: int) -> None:
    if len(member.read(count)) != count:
        raise EOFError("it ends inside its header")


def _fill(member: IO[bytes], room: memoryview) -> None:
    at = 0
    while at < len(room):
        chunk = member.read(min(CHUNK_BYTES, len(room) - at))
        if not chunk:
            raise EOFError(f"it ends after {at} of {len(room)} bytes")
        room[at : at + len(chunk)] = chunk
        at += len(chunk)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError, ValueError, OSError) as error:
        raise CheckpointError(f"{what} is damaged: {error}", fix=GET_AGAIN) from error
    except (SyntaxError, tokenize.TokenError, MemoryError, RecursionError, TypeError, OverflowError) as error:
        raise CheckpointError(f"{what} is damaged: its header is no description of an array", fix=GET_AGAIN) from error
