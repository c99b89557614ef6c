"""Image files in folders, by name, without all names in memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from vit_deploy.core.images import SUFFIXES
from vit_deploy.data.items import Item, printable
from vit_deploy.data.patterns import Entry, Kind, matching, scan_here, split
from vit_deploy.data.sorting import in_order
from vit_deploy.errors import DataError


@dataclass(frozen=True)
class Folder:
    """The image files in a folder and its subfolders, in the order of `images.images_in`; none that is hidden.

    Links to files count, links to folders are not followed.

    Args:
        path: of the folder.
    """

    path: Path

    @property
    def identity(self) -> Any:
        """The folder; its files have stamps of their own."""
        return ["folder", str(self.path.resolve())]

    @property
    def carries_content(self) -> bool:
        """Items say where they are."""
        return False

    def total(self) -> int | None:
        """How many files there are."""
        return sum(1 for _ in _files(str(self.path), ""))

    def items(self, start: int = 0) -> Iterator[Item]:
        """The files from one on, named by their paths in the folder."""
        for inside in islice(_files(str(self.path), ""), start, None):
            yield file_item(os.path.join(self.path, inside), inside)  # noqa: PTH118  # of texts, of which there are many


@dataclass(frozen=True)
class Files:
    """Files that were named one by one.

    Args:
        paths: of the files.
    """

    paths: tuple[str, ...]

    @property
    def identity(self) -> Any:
        """Where the first one is; each file has a stamp of its own."""
        return ["files", os.path.abspath(self.paths[0]) if self.paths else ""]  # noqa: PTH100

    @property
    def carries_content(self) -> bool:
        """Items say where they are."""
        return False

    def total(self) -> int | None:
        """How many there are."""
        return len(self.paths)

    def items(self, start: int = 0) -> Iterator[Item]:
        """The files from one on, by the names that they were given."""
        for path in self.paths[start:]:
            yield file_item(path, path)


@dataclass(frozen=True)
class Matching:
    """The files that a pattern stands for, in the order of their paths.

    Args:
        pattern: as `photos/**/*.jpg`.
    """

    pattern: str

    @property
    def identity(self) -> Any:
        """The pattern; its files have stamps of their own."""
        return ["pattern", os.path.abspath(self.pattern)]  # noqa: PTH100

    @property
    def carries_content(self) -> bool:
        """Items say where they are."""
        return False

    def total(self) -> int | None:
        """How many there are."""
        return sum(1 for _ in self.paths())

    def items(self, start: int = 0) -> Iterator[Item]:
        """The files from one on, by their paths."""
        for path in islice(self.paths(), start, None):
            yield file_item(path, path)

    def paths(self) -> Iterator[str]:
        """What it stands for, folders among it, once each."""
        before = ""
        found = (path + os.sep * (entry.kind is not Kind.FILE) for path, entry in self.found())
        for path in in_order(found, _order):
            if path != before:  # two `**` find some twice
                yield path.removesuffix(os.sep)
            before = path

    def found(self) -> Iterator[tuple[str, Entry]]:
        """The same in no order, with what each is."""
        return matching(*split(self.pattern), scan_here)


@dataclass(frozen=True)
class FileList:
    """Files that a text file lists, one a line; relative ones are beside it.

    Args:
        path: of the text file.
    """

    path: Path

    @property
    def identity(self) -> Any:
        """The list; its files have stamps of their own."""
        return ["list", str(self.path.resolve())]

    @property
    def carries_content(self) -> bool:
        """Items say where they are."""
        return False

    def total(self) -> int | None:
        """How many lines are not empty."""
        return sum(1 for _ in self._lines())

    def items(self, start: int = 0) -> Iterator[Item]:
        """The files from one on, named as they are listed."""
        for line in islice(self._lines(), start, None):
            yield file_item(os.path.join(self.path.parent, line), line)  # noqa: PTH118

    def _lines(self) -> Iterator[str]:
        try:
            with self.path.open(encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                for line in file:
                    if name := line.rstrip("\r\n"):
                        yield name
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror}", fix="check the path") from error


def file_item(path: str, name: str, label: int | str | None = None) -> Item:
    """An image file; one that is not there is told when it is read."""
    try:
        found = os.stat(path)  # noqa: PTH116
        stamp = f"{name}\0{found.st_size} {found.st_mtime_ns}"
        if not stat.S_ISREG(found.st_mode):  # of a device or a pipe there would be no end
            return Item(printable(name), path, label=label, stamp=stamp, failure=f"{path} is no image: no file at all")
    except (OSError, ValueError):  # no name of a file holds a zero
        stamp = f"{name}\0absent"
    return Item(printable(name), path, label=label, stamp=stamp)


def _files(folder: str, inside: str) -> Iterator[str]:
    """Paths below `folder`, in the order of their parts."""
    for name in in_order(_entries(folder), _order):
        path = f"{inside}{name}"
        if name.endswith(os.sep):
            yield from _files(os.path.join(folder, name), path)  # noqa: PTH118
        else:
            yield path


def _entries(folder: str) -> Iterator[str]:
    """Names of the image files in a folder, and of its folders with a slash at the end."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield entry.name + os.sep
                elif not entry.name.startswith(".") and entry.name.lower().endswith(SUFFIXES) and entry.is_file():
                    yield entry.name
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read: {error.strerror}", fix="check the path and its permissions"
        ) from error


def _order(name: str) -> str:
    return name.removesuffix(os.sep)
