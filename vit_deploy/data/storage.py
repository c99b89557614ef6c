"""Other file systems through pyarrow, s3, gs and hdfs: their files, folders and errors, and waiting that ends."""

from __future__ import annotations

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from typing import IO, Any, cast

import pyarrow as pa
from pyarrow import fs

from vit_deploy.data.addresses import Address, parsed
from vit_deploy.data.patterns import Entry, Kind
from vit_deploy.errors import DataError, MissingEngineError, RemoteError

GOOGLE = ("gs", "gcs")  # whose folders pyarrow lists only by the files below them
WAIT_S = 20  # after which Google's client is to give up, which else takes a quarter of an hour
EMULATOR = "STORAGE_EMULATOR_HOST"  # of Google's own client libraries: where another server stands for theirs
BUFFER_BYTES = 1 << 20  # that are read ahead of what goes through a file from its beginning
REFUSALS = (
    *("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "INVALID_CLIENT_TOKEN_ID", "MISSING_AUTHENTICATION_TOKEN"),
    *("SIGNATURE", "OAuth2", "PERMISSION_DENIED", "UNAUTHENTICATED", "Permission denied", "HTTP response code 403"),
    *("status code: 401", "status code: 403"),
)
SILENCES = ("NETWORK_CONNECTION", "UNAVAILABLE", "DEADLINE_EXCEEDED", "CURL error", "curlCode", "Connection refused")
CREDENTIALS_IN_ADDRESS = re.compile(r"://[^'\"]*@")  # errors repeat the address that they are about
CREDENTIALS = (
    "for s3 set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; for gs GOOGLE_APPLICATION_CREDENTIALS, "
    "or write gs://anonymous@bucket where anybody may read"
)


def open_stream(address: str) -> IO[bytes]:
    """A file, to be read from its beginning.

    Raises:
        DataError: there is none.
        RemoteError: the file system does not answer, or refuses.
    """
    place = parsed(address)
    with explained(place):
        system, path = _found(place)
        return cast("IO[bytes]", system.open_input_stream(path, buffer_size=BUFFER_BYTES))


def open_file(address: str) -> Any:
    """A file, to be read at any place, as pyarrow has it.

    Raises:
        DataError, RemoteError: as `open_stream`.
    """
    place = parsed(address)
    with explained(place):
        system, path = _found(place)
        return system.open_input_file(path)


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
            if place.path and place.bucket and system.get_file_info(_root(place)).type == fs.FileType.NotFound:
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
    flat = place.scheme in GOOGLE
    with explained(place):
        system, path = _found(place.at(folder))
        found = system.get_file_info(fs.FileSelector(path, allow_not_found=True, recursive=flat))
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


@contextlib.contextmanager
def explained(place: Address) -> Iterator[None]:
    """A block whose errors of pyarrow are said in words.

    Raises:
        DataError: nothing there, or an address that cannot be.
        MissingEngineError: hdfs without Hadoop's library.
        RemoteError: the file system does not answer, or refuses.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"there is nothing at {place.shown}", fix="check the address") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        said = CREDENTIALS_IN_ADDRESS.sub("://", " ".join(str(error).split()))
        if "Unrecognized filesystem type" in said:
            known = DataError(
                f"{place.scheme}:// is no file system that pyarrow reads: {place.shown}",
                fix="give s3://, gs://, hdfs:// or a path",
            )
            raise known from error
        if "Unable to load libjvm" in said or "load libhdfs" in said:  # the second time: a prior attempt
            what = "Java's libjvm" if "libjvm" in said else "Hadoop's libhdfs"
            raise MissingEngineError(
                f"hdfs:// is read by Hadoop's own client, and {what} is not found: {place.shown}",
                fix="install a Java runtime and Hadoop's client, and set JAVA_HOME, HADOOP_HOME, and CLASSPATH to what "
                "`hadoop classpath --glob` says",
            ) from error
        if "NO_SUCH_BUCKET" in said:
            raise DataError(f"there is no bucket {place.bucket}: {place.shown}", fix="check the address") from error
        if any(word in said for word in REFUSALS):
            raise RemoteError(f"{place.shown} is not for these credentials: {_short(said)}", fix=CREDENTIALS) from error
        if any(word in said for word in SILENCES):
            raise RemoteError(
                f"the file system of {place.shown} does not answer: {_short(said)}",
                fix="check the network and the address, of a server of your own with ?endpoint_override=HOST:PORT",
            ) from error
        raise RemoteError(
            f"{place.shown} cannot be read: {_short(said)}", fix="check the address, and what its storage asks for"
        ) from error


def _short(said: str) -> str:
    return said if len(said) < 300 else f"{said[:300]}…"


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
    return place.scheme, bucket, "?" + "&".join(options) if options else ""


@functools.lru_cache(maxsize=16)
def _connected(scheme: str, bucket: str, options: str) -> tuple[fs.FileSystem, str]:
    system, root = fs.FileSystem.from_uri(f"{scheme}://{bucket}/{options}")
    return system, root
