"""Patterns as `photos/**/*.jpg`, and the files that they stand for, a folder at a time."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from vit_deploy.errors import DataError

MAGIC = re.compile(r"[*?[]")
ANY_DEPTH = "**"


class Kind(Enum):
    """What an entry of a folder is."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link to a folder"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a folder holds.

    Args:
        name: of it.
        kind: what it is.
        stamp: what is another one when a file was changed; empty where nobody asked.
    """

    name: str
    kind: Kind
    stamp: str = ""


Scan = Callable[[str], Iterator[Entry]]
"""The entries of a folder, none of one that is not there."""


def is_pattern(text: str) -> bool:
    """Whether a text stands for others."""
    return bool(MAGIC.search(text) or re.search(r"\{[^}]+\}", text))


def braces(text: str) -> list[str]:
    """`{000..012}` and `{train,test}` as the shell expands them."""
    found = re.search(r"\{([^{}]+)\}", text)
    if found is None:
        return [text]
    first, dots, last = found[1].partition("..")
    if dots and first.isdigit() and last.isdigit():
        padded = any(len(bound) > 1 and bound.startswith("0") for bound in (first, last))
        width = max(len(first), len(last)) if padded else 0
        step = 1 if int(first) <= int(last) else -1
        values = [f"{number:0{width}}" for number in range(int(first), int(last) + step, step)]
    else:
        values = found[1].split(",")
    return [one for value in values for one in braces(text[: found.start()] + value + text[found.end() :])]


def split(pattern: str) -> tuple[str, list[str]]:
    """The folder that a pattern begins in, and the parts below it, of which the first has a wildcard."""
    root, parts = pattern, list[str]()
    while MAGIC.search(root):
        above, part = os.path.split(root)
        if part and not (part == ANY_DEPTH and parts[:1] == [ANY_DEPTH]):  # two of them mean what one means
            parts.insert(0, part)
        root = above
    return root, parts


def matching(folder: str, parts: Sequence[str], scan: Scan) -> Iterator[tuple[str, Entry]]:
    """Files and folders that a pattern stands for, in no order; with several `**` one may come twice.

    Names that begin with a dot are for parts that do. `**` is any number of folders, and follows no links; at the end
    of a pattern it is all files below.

    Args:
        folder: where to begin.
        parts: of the pattern below it.
        scan: what gives the entries of a folder.
    """
    part, *rest = parts
    if part == ANY_DEPTH:
        yield from matching(folder, rest, scan) if rest else _files(folder, scan)
        for entry in scan(folder):
            if entry.kind is Kind.FOLDER and not entry.name.startswith("."):
                yield from matching(_joined(folder, entry.name), parts, scan)
        return
    if rest and not MAGIC.search(part):
        yield from matching(_joined(folder, part), rest, scan)
        return
    matches = re.compile(fnmatch.translate(part)).match
    for entry in scan(folder):
        if not matches(entry.name) or (entry.name.startswith(".") and not part.startswith(".")):
            continue
        if not rest:
            yield _joined(folder, entry.name), entry
        elif entry.kind is not Kind.FILE:
            yield from matching(_joined(folder, entry.name), rest, scan)


def _files(folder: str, scan: Scan) -> Iterator[tuple[str, Entry]]:
    for entry in scan(folder):
        if entry.kind is Kind.FILE and not entry.name.startswith("."):
            yield _joined(folder, entry.name), entry


def _joined(folder: str, name: str) -> str:
    return os.path.join(folder, name) if folder else name  # noqa: PTH118  # of texts, of which there are many


def scan_here(folder: str) -> Iterator[Entry]:
    """The entries of a folder of this computer.

    Raises:
        DataError: it is there and cannot be read.
    """
    try:
        with os.scandir(folder or os.curdir) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield Entry(entry.name, Kind.FOLDER)
                else:
                    yield Entry(entry.name, Kind.LINK if entry.is_dir() else Kind.FILE)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise DataError(
            f"{folder or os.curdir} cannot be read: {error.strerror}", fix="check the path and its permissions"
        ) from error
