"""Images in tar files, in WebDataset's form: the members of one sample have one name with several endings."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from vit_deploy.core.images import SUFFIXES
from vit_deploy.data.items import Item, file_stamp, printable
from vit_deploy.errors import DataError

PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
CLASS, FACTS = "cls", "json"  # endings of members that say a sample's class, and anything about it


@dataclass(frozen=True)
class Shards:
    """Tar files, one behind the other; members that are no images count for nothing but their sample's class.

    A member `dog/0001.jpg` belongs to the sample `dog/0001`, whose class is in `dog/0001.cls`, as a number or a name,
    or is `label` or `cls` of `dog/0001.json`.

    Args:
        paths: of the tar files.
    """

    paths: tuple[Path, ...]

    @cached_property
    def identity(self) -> Any:
        """Each file with its size and time."""
        return ["tar", *([str(path.resolve()), file_stamp(path)] for path in self.paths)]

    @property
    def carries_content(self) -> bool:
        """Only images in compressed files have their bytes with them."""
        return any(map(is_packed, self.paths))

    def total(self) -> int | None:
        """How many images there are; of compressed files only reading them would tell."""
        if any(is_packed(path) for path in self.paths):
            return None
        return sum(1 for _ in self.items())

    def items(self, start: int = 0) -> Iterator[Item]:
        """The images from one on, named by their tar file and the member."""
        yield from islice((item for path in self.paths for item in _labelled(path)), start, None)


def is_packed(path: Path) -> bool:
    """Whether a tar file is compressed as a whole, so that it is read from its beginning."""
    return path.name.lower().endswith(PACKED)


def _labelled(path: Path) -> Iterator[Item]:
    """The images of one tar file; members of a sample follow one another, in any order."""
    sample, waiting, label = None, list[Item](), None
    for key, ending, member in _members(path):
        if key != sample:
            yield from (_with_label(item, label) for item in waiting)
            sample, waiting, label = key, [], None
        if isinstance(member, Item):
            waiting.append(member)
        else:
            label = _label(member, ending) if label is None else label
    yield from (_with_label(item, label) for item in waiting)


def _with_label(item: Item, label: int | str | None) -> Item:
    if label is None:
        return item
    return Item(item.name, item.path, item.offset, item.size, item.content, label=label)


def _members(path: Path) -> Iterator[tuple[str, str, Item | bytes]]:
    """Sample and ending of each member that counts, with the image, or the bytes that say its class."""
    packed = is_packed(path)
    try:
        with tarfile.open(path, "r|*" if packed else "r:") as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                folder, _, name = member.name.rpartition("/")
                if not member.isfile() or name.startswith("."):
                    continue
                stem, _, ending = name.partition(".")
                key = f"{folder}/{stem}"
                if name.lower().endswith(SUFFIXES):
                    called = printable(f"{path.name}/{member.name}")
                    content = _content(archive, member) if packed else None
                    yield key, ending, Item(called, str(path), member.offset_data, member.size, content)
                elif ending in (CLASS, FACTS):
                    yield key, ending, _content(archive, member)
    except FileNotFoundError as error:
        raise DataError(f"there is nothing at {path}", fix="check the path") from error
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read as tar: {error}", fix="get it again") from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    stream = archive.extractfile(member)
    assert stream is not None  # of a file there is one
    content = stream.read()
    if len(content) < member.size:
        raise tarfile.ReadError(f"it ends in the middle of {os.fspath(member.name)}")
    return content


def _label(content: bytes, ending: str) -> int | str | None:
    text = content.decode("utf-8", "replace").strip()
    if ending == FACTS:
        try:
            facts = json.loads(text)
        except ValueError:
            return None
        found = facts.get("label", facts.get("cls")) if isinstance(facts, dict) else None
        return found if isinstance(found, int | str) and not isinstance(found, bool) else None
    return int(text) if text.lstrip("-").isdigit() else text or None
