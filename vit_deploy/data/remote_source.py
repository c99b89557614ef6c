"""Images on other file systems, through pyarrow: s3, gs, hdfs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from vit_deploy.core.images import SUFFIXES
from vit_deploy.data.items import Item, printable
from vit_deploy.errors import DataError


@dataclass(frozen=True)
class Remote:
    """The image files below an address, in the order of their paths; none that is hidden.

    Args:
        address: as `s3://bucket/photos`.
    """

    address: str

    @property
    def identity(self) -> Any:
        """The address; its files have stamps of their own."""
        return ["remote", self.address]

    @property
    def carries_content(self) -> bool:
        """Items say where they are."""
        return False

    def total(self) -> int | None:
        """How many files there are."""
        return len(self._found)

    def items(self, start: int = 0) -> Iterator[Item]:
        """The files from one on, named by their paths below the address."""
        for inside, stamp in self._found[start:]:
            address = f"{self.address.rstrip('/')}/{quote(inside)}" if inside else self.address
            yield Item(printable(inside or self.address.rpartition("/")[2]), address, stamp=f"{inside}\0{stamp}")

    @cached_property
    def _found(self) -> list[tuple[str, str]]:
        try:
            system, root = fs.FileSystem.from_uri(self.address)
            whole = system.get_file_info(root)
            if whole.type == fs.FileType.NotFound:
                raise DataError(f"there is nothing at {self.address}", fix="check the address")
            if whole.type == fs.FileType.File:
                return [("", f"{whole.size} {whole.mtime_ns}")]
            listed = system.get_file_info(fs.FileSelector(root, recursive=True))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{self.address} cannot be read: {error}", fix="check the address, and what its storage asks for"
            ) from error
        found = [
            (entry.path.removeprefix(root).lstrip("/"), f"{entry.size} {entry.mtime_ns}")
            for entry in listed
            if entry.type == fs.FileType.File
            and entry.base_name.lower().endswith(SUFFIXES)
            and not entry.base_name.startswith(".")
        ]
        if not found:
            raise DataError(f"{self.address} holds no images", fix=f"files ending in {', '.join(SUFFIXES)} count")
        return sorted(found, key=lambda entry: entry[0].split("/"))


def read_remote(address: str) -> Remote:
    """The files at an address as a source; they are listed at once.

    Raises:
        DataError: nothing there, or no images.
    """
    source = Remote(address)
    assert source.total()
    return source
