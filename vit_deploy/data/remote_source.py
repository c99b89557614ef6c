"""Images on other file systems: s3, gs, hdfs."""

from __future__ import annotations

import os.path
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any

from pyarrow import fs

from vit_deploy.core.images import SUFFIXES
from vit_deploy.data import storage
from vit_deploy.data.addresses import Address, parsed
from vit_deploy.data.items import Item, printable
from vit_deploy.data.patterns import MAGIC, Entry, Kind, braces, matching, split
from vit_deploy.data.sorting import Spooled, in_order
from vit_deploy.errors import DataError

NO_STAMP = "- -"  # of a folder


@dataclass(frozen=True)
class Remote:
    """The image files below an address or that a pattern stands for, in the order of their paths; none that is hidden.

    They are listed once, and the list waits on disk.

    Args:
        address: as `s3://bucket/photos` or `s3://bucket/photos/**/*.jpg`.
    """

    address: str

    def __reduce__(self) -> tuple[type[Remote], tuple[str]]:
        return Remote, (self.address,)

    @property
    def identity(self) -> Any:
        """The address; its files have stamps of their own."""
        return ["remote", parsed(self.address).shown]

    @property
    def carries_content(self) -> bool:
        """Items say where they are."""
        return False

    def total(self) -> int | None:
        """How many files there are."""
        return len(self._listed)

    def items(self, start: int = 0) -> Iterator[Item]:
        """The files from one on, named by their paths below the address."""
        for line in islice(self._listed, start, None):
            size, time, inside = line.split(" ", 2)
            place = self._root.below(inside)
            yield Item(printable(inside or place.name), str(place), stamp=f"{inside}\0{size} {time}")

    @cached_property
    def _root(self) -> Address:
        place = parsed(self.address)
        return place.at(split(place.path)[0]) if MAGIC.search(place.path) else place

    @cached_property
    def _listed(self) -> Spooled:
        """A line for each file: size, time of its last change, and its path below the root."""
        place = parsed(self.address)
        if MAGIC.search(place.path):
            found = (
                f"{entry.stamp} {os.path.relpath(path, self._root.path or '.')}"
                for path, entry in _matching(place)
                if entry.kind is Kind.FILE and _is_image(entry.name)
            )
            listed = Spooled(_once(in_order(found, _by_parts)))
        elif (whole := storage.info(place)).type == fs.FileType.File:
            listed = Spooled([f"{whole.size} {whole.mtime_ns} "])
        else:
            listed = Spooled(_below(place, ""))
        if not len(listed):
            raise DataError(f"{place.shown} holds no images", fix=f"files ending in {', '.join(SUFFIXES)} count")
        return listed


def read_remote(address: str) -> Remote:
    """The files at an address as a source; they are listed at once.

    Raises:
        DataError: nothing there, or no images.
        RemoteError: the file system does not answer, or refuses.
    """
    place = parsed(address)
    if not MAGIC.search(place.path) and not _is_image(place.name) and storage.info(place).type == fs.FileType.File:
        raise DataError(
            f"{place.shown} is nothing that holds images", fix="give a folder, a pattern, .parquet or .tar files there"
        )
    source = Remote(address)
    assert source.total()
    return source


def expanded(text: str, endings: tuple[tuple[str, ...], ...]) -> list[str]:
    """The addresses that one stands for: itself where it is of images, else those of the files that hold some.

    Args:
        text: an address, or a pattern of one.
        endings: of files that hold images, a group for each kind.

    Raises:
        DataError: nothing there.
        RemoteError: the file system does not answer, or refuses.
    """
    found = [one for pattern in braces(text) for one in _expanded(parsed(pattern), endings)]
    return [str(place) for place in found]


def _expanded(place: Address, endings: tuple[tuple[str, ...], ...]) -> list[Address]:
    holding = tuple(ending for group in endings for ending in group)
    if not MAGIC.search(place.path):
        if storage.info(place).type == fs.FileType.File:
            return [place]
        if any(True for _ in _below(place, "")):
            return [place]
        entries = [entry.name for entry in storage.scan(place, place.path) if entry.kind is Kind.FILE]
        for group in endings:
            if held := sorted(name for name in entries if name.lower().endswith(group)):
                return [place.below(name) for name in held]
        raise DataError(f"{place.shown} holds no images", fix=f"files ending in {', '.join(SUFFIXES)} count")
    if place.path.lower().endswith(SUFFIXES):
        return [place]
    others: list[Address] = []
    for path, entry in _matching(place):
        if entry.kind is Kind.FILE and _is_image(entry.name):
            return [place]
        if entry.kind is Kind.FILE and entry.name.lower().endswith(holding):
            others.append(place.at(path))
    if not others:
        raise DataError(f"nothing is there that {place.shown} stands for", fix="check the pattern, and quote it")
    return sorted(set(others), key=lambda one: one.path.split("/"))


def _matching(place: Address) -> Iterator[tuple[str, Entry]]:
    root, parts = split(place.path)
    storage.info(place.at(root))
    return matching(root, parts, lambda folder: storage.scan(place, folder))


def _below(place: Address, inside: str) -> Iterator[str]:
    """A line for each image below a folder, in the order of the parts of their paths."""
    found = (
        f"{entry.stamp or NO_STAMP} {entry.name}{'' if entry.kind is Kind.FILE else '/'}"
        for entry in storage.scan(place, place.below(inside).path)
        if entry.kind is not Kind.FILE or _is_image(entry.name)
    )
    for line in in_order(found, lambda line: line.split(" ", 2)[2].removesuffix("/")):
        size, time, name = line.split(" ", 2)
        if name.endswith("/"):
            yield from _below(place, f"{inside}{name}")
        else:
            yield f"{size} {time} {inside}{name}"


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def _by_parts(line: str) -> list[str]:
    return line.split(" ", 2)[2].split("/")


def _once(texts: Iterator[str]) -> Iterator[str]:
    before = None
    for text in texts:
        if text != before:
            yield text
        before = text
