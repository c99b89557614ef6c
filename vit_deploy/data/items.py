"""One image of a source: its name, where its bytes are, and what it is labelled with."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, cast

from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.data.addresses import REMOTE, is_address, shown
from vit_deploy.errors import DataError

STORAGE = Registry(
    "way to read other file systems",
    {
        name: Plugin(f"vit_deploy.data.storage:{name}", "data", ("pyarrow",))
        for name in ("open_stream", "open_file", "read", "stamp", "unpacked")
    },
)


@dataclass(frozen=True, slots=True)
class Item:
    """An image that is not read yet.

    Args:
        name: what it is called in results; it need not be the only one of this name.
        path: file that holds it, or of another file system its address; empty where `content` does.
        offset: where in the file it begins.
        size: its bytes; None for all of the file.
        content: its bytes, where they cannot be read again on their own.
        shape: `(height, width, channels)` of uint8 pixels, where the bytes are these; else they are an image file.
        label: its class, by number or by name; None where the source says none.
        stamp: what is another one when the file was changed; empty where `Source.identity` says as much.
        failure: why there is nothing to read; empty where there is.
    """

    name: str
    path: str = ""
    offset: int = 0
    size: int | None = None
    content: bytes | None = None
    shape: tuple[int, ...] = ()
    label: int | str | None = None
    stamp: str = ""
    failure: str = ""

    @property
    def is_file(self) -> bool:
        """Whether it is a whole file of this computer."""
        whole = self.content is None and self.size is None and not self.failure
        return bool(self.path) and whole and REMOTE not in self.path

    def read(self) -> bytes:
        """Its bytes.

        Raises:
            DataError: the file is missing or cannot be read.
            RemoteError: its file system does not answer, or refuses.
        """
        if self.failure:
            raise DataError(self.failure)
        if self.content is not None:
            return self.content
        try:
            if REMOTE in self.path:
                return cast(bytes, STORAGE.load("read")(self.path))
            with open(self.path, "rb") as file:  # noqa: PTH123  # a text that is no valid name stays as it is
                file.seek(self.offset)
                return file.read() if self.size is None else file.read(self.size)
        except (FileNotFoundError, ValueError) as error:  # no name of a file holds a zero
            raise DataError(f"there is no image {self.path}", fix="check the path") from error
        except OSError as error:
            raise DataError(
                f"{self.path} is no image that can be read: {error}", fix="remove it or get it again"
            ) from error


class Source(Protocol):
    """Images in a fixed order."""

    @property
    def identity(self) -> Any:
        """What says that a later run has the same images before it, in plain JSON values; see `Item.stamp` too."""

    @property
    def carries_content(self) -> bool:
        """Whether items have their bytes with them, as they cannot be read again on their own."""

    def total(self) -> int | None:
        """How many images there are; None where only reading all of them would tell."""

    def items(self, start: int = 0) -> Iterator[Item]:
        """The images from one on, by its place from 0.

        Raises:
            DataError: what holds them is missing, or damaged so that no image can be told from the next.
        """


@dataclass(frozen=True)
class Joined:
    """Several sources, one behind the other."""

    sources: tuple[Source, ...]

    @property
    def identity(self) -> Any:
        """Those of its sources."""
        return [source.identity for source in self.sources]

    @property
    def carries_content(self) -> bool:
        """Whether those of one have."""
        return any(source.carries_content for source in self.sources)

    def total(self) -> int | None:
        """How many images there are together."""
        counts = [source.total() for source in self.sources]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(counts) else None

    def items(self, start: int = 0) -> Iterator[Item]:
        """The images of all from one on."""
        for source in self.sources:
            if start:
                count = source.total()
                known = sum(1 for _ in source.items()) if count is None else count
                if start >= known:
                    start -= known
                    continue
            yield from source.items(start)
            start = 0


def open_bytes(path: str) -> IO[bytes]:
    """A file of any file system, to be read from its beginning.

    Raises:
        OSError: there is none, or it cannot be read.
        DataError, RemoteError: the same of another file system.
    """
    if is_address(path):
        return cast("IO[bytes]", STORAGE.load("open_stream")(path))
    return open(path, "rb")  # noqa: PTH123  # a text that is no valid name stays as it is


def whole_path(path: str) -> str:
    """A path from the root on, or an address without its password."""
    return shown(path) if is_address(path) else str(Path(path).resolve())


def file_stamp(path: str | Path) -> str:
    """Size and time of the last change of a file.

    Raises:
        DataError: there is none.
        RemoteError: its file system does not answer, or refuses.
    """
    if isinstance(path, str) and is_address(path):
        return cast(str, STORAGE.load("stamp")(path))
    try:
        found = os.stat(path)  # noqa: PTH116  # a text that is no valid name stays as it is
    except OSError as error:
        raise DataError(f"there is nothing at {path}", fix="check the path") from error
    return f"{found.st_size} {found.st_mtime_ns}"


def printable(name: str) -> str:
    """A file's name as valid Unicode: bytes that are none become escapes as `\\xff`."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def pixels_of(content: bytes, shape: Sequence[int]) -> Any:
    """Raw uint8 pixels as an array."""
    import numpy as np

    return np.frombuffer(content, np.uint8).reshape(shape)
