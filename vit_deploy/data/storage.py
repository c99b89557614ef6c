"""Other file systems through pyarrow, s3, gs and hdfs: their files and folders, and waiting that ends."""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator
from typing import IO, Any, cast

import pyarrow as pa
from pyarrow import fs

from vit_deploy.data import hadoop
from vit_deploy.data.addresses import Address, parsed
from vit_deploy.data.patterns import Entry, Kind
from vit_deploy.data.storage_errors import explained
from vit_deploy.errors import DataError

GOOGLE = ("gs", "gcs")  # whose folders pyarrow lists only by the files below them
WAIT_S = 20  # after which Google's client is to give up, which else takes a quarter of an hour
EMULATOR = "STORAGE_EMULATOR_HOST"  # of Google's own client libraries: where another server stands for theirs
BUFFER_BYTES = 1 << 20  # that are read ahead of what goes through a file from its beginning


def open_stream(address: str) -> IO[bytes]:
    """A file, to be read from its beginning.

    Raises:
        DataError: there is none.
        RemoteError: the file system does not answer, or refuses.
    """
    place = parsed(address)
    with explained(place):
        system, path = _found(place)
        if place.scheme in hadoop.SCHEMES:
            return cast("IO[bytes]", io.BufferedReader(HadoopFile(place, system.open_input_file(path)), BUFFER_BYTES))
        return cast("IO[bytes]", system.open_input_stream(path, buffer_size=BUFFER_BYTES))


def open_file(address: str) -> Any:
    """A file, to be read at any place, as pyarrow has it.

    Raises:
        DataError, RemoteError: as `open_stream`.
    """
    place = parsed(address)
    with explained(place):
        system, path = _found(place)
        file = system.open_input_file(path)
        return HadoopFile(place, file) if place.scheme in hadoop.SCHEMES else file


def read(address: str) -> bytes:
    """All bytes of a file.

    Raises:
        DataError, RemoteError: as `open_stream`.
    """
    place = parsed(address)
    with explained(place):
        system, path = _found(place)
        with system.open_input_stream(path) as stream:
            return bytes(stream.read())


def stamp(address: str) -> str:
    """Size and time of the last change of a file.

    Raises:
        DataError, RemoteError: as `open_stream`.
    """
    place = parsed(address)
    found = info(place)
    if found.type != fs.FileType.File:
        raise DataError(f"there is no file {place.shown}", fix="check the address")
    return f"{found.size} {found.mtime_ns}"


def unpacked(content: IO[bytes]) -> IO[bytes]:
    """What was compressed in Zstandard's form, read from its beginning.

    Args:
        content: what it became.
    """
    return cast("IO[bytes]", pa.CompressedInputStream(content, "zstd"))


def info(place: Address) -> fs.FileInfo:
    """What is at an address.

    Raises:
        DataError: nothing.
        RemoteError: the file system does not answer, or refuses.
    """
    with explained(place):
        system, path = _found(place)
        found = system.get_file_info(path)
        if found.type == fs.FileType.NotFound:
            if place.scheme in hadoop.SCHEMES:  # it is said of all that went wrong, and opening it tells what did
                system.open_input_file(path)
            elif place.path and place.bucket and system.get_file_info(_root(place)).type == fs.FileType.NotFound:
                raise DataError(f"there is no bucket {place.bucket}: {place.shown}", fix="check the address")
            raise DataError(f"there is nothing at {place.shown}", fix="check the address")
        return found


def scan(place: Address, folder: str) -> Iterator[Entry]:
    """The entries of a folder of a file system, none of one that is not there.

    Args:
        place: an address there.
        folder: its path.

    Raises:
        RemoteError: the file system does not answer, or refuses.
    """
    flat, strict = place.scheme in GOOGLE, place.scheme in hadoop.SCHEMES
    with explained(place.at(folder.rstrip("/"))):
        system, path = _found(place.at(folder))
        try:  # of hdfs all that goes wrong would be taken for a folder that is not there
            found = system.get_file_info(fs.FileSelector(path, allow_not_found=not strict, recursive=flat))
        except FileNotFoundError:
            if not strict:
                raise
            found = []
    found.reverse()
    folders: set[str] = set()
    while found:  # each is let go: of a large folder they are most of what is held
        entry = found.pop()
        name, below, _ = entry.path.removeprefix(path).lstrip("/").partition("/")
        if entry.type == fs.FileType.Directory or below:
            if name not in folders:
                folders.add(name)
                yield Entry(name, Kind.FOLDER)
        elif entry.type == fs.FileType.File:
            yield Entry(name, Kind.FILE, f"{entry.size} {entry.mtime_ns}")


class HadoopFile(io.RawIOBase):
    """A file of hdfs whose errors are said in words, and of which nothing else is printed.

    Args:
        place: its address.
        file: the same, as pyarrow has it.
    """

    def __init__(self, place: Address, file: Any) -> None:
        self._place, self._file = place, file

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill as much as there is."""
        with explained(self._place):
            return int(self._file.readinto(buffer))

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in it."""
        with explained(self._place):
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """The place that is read next."""
        return int(self._file.tell())

    def close(self) -> None:
        """Let it go."""
        if not self.closed:
            with explained(self._place):
                self._file.close()
        super().close()


def _found(place: Address) -> tuple[fs.FileSystem, str]:
    """The file system, and how it calls a path."""
    scheme, bucket, options = _reached(place, os.environ.get(EMULATOR, ""))
    system, root = _connected(scheme, bucket, options)
    return system, f"{root.rstrip('/')}/{place.path}".rstrip("/") if place.path else root


def _root(place: Address) -> str:
    return _found(place.at(""))[1]


def _reached(place: Address, emulator: str) -> tuple[str, str, str]:
    """How a file system is connected to: what its client has no end of waiting for, and which server it asks."""
    options = [part for part in place.options.removeprefix("?").split("&") if part]
    given = {part.partition("=")[0] for part in options}
    bucket = place.place
    if place.scheme in GOOGLE:
        if "retry_limit_seconds" not in given:
            options.append(f"retry_limit_seconds={WAIT_S}")
        if emulator and "endpoint_override" not in given:
            scheme, _, host = emulator.rpartition("://")
            options += [f"endpoint_override={host.rstrip('/')}", f"scheme={scheme or 'http'}"]
            bucket = bucket if "@" in bucket else f"anonymous@{bucket}"
    if place.scheme in hadoop.SCHEMES:
        user, _, host = bucket.rpartition("@")
        options += hadoop.waiting(given)
        if user and "user" not in given:  # pyarrow passes over it where it stands
            options.append(f"user={user}")
        bucket = host or hadoop.DEFAULT
    return place.scheme, bucket, "?" + "&".join(options) if options else ""


@functools.lru_cache(maxsize=16)
def _connected(scheme: str, bucket: str, options: str) -> tuple[fs.FileSystem, str]:
    system, root = fs.FileSystem.from_uri(f"{scheme}://{bucket}/{options}")
    return system, root
