"""Images in tar files, in WebDataset's form: the members of one sample have one name with several endings."""

from __future__ import annotations

import contextlib
import json
import lzma
import os
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from vit_deploy.core.images import SUFFIXES
from vit_deploy.data.addresses import is_address, name_of, shown
from vit_deploy.data.items import STORAGE, Item, file_stamp, open_bytes, printable, whole_path
from vit_deploy.errors import DataError

ZST = (".tar.zst", ".tzst")
PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", *ZST)
CLASS, FACTS = "cls", "json"  # endings of members that say a sample's class, and anything about it


@dataclass(frozen=True)
class Shards:
    """Tar files, one behind the other; members that are no images count for nothing but their sample's class.

    A member `dog/0001.jpg` belongs to the sample `dog/0001`, whose class is in `dog/0001.cls`, as a number or a name,
    or is `label` or `cls` of `dog/0001.json`.

    Args:
        paths: of the tar files.
    """

    paths: tuple[str, ...]

    @cached_property
    def identity(self) -> Any:
        """Each file with its size and time."""
        return ["tar", *([whole_path(path), file_stamp(path)] for path in self.paths)]

    @property
    def carries_content(self) -> bool:
        """Only images in files that are read from their beginning have their bytes with them."""
        return any(map(is_sequential, self.paths))

    def total(self) -> int | None:
        """How many images there are; of files that are read from their beginning only that would tell."""
        if any(map(is_sequential, self.paths)):
            return None
        return sum(1 for _ in self.items())

    def items(self, start: int = 0) -> Iterator[Item]:
        """The images from one on, named by their tar file and the member; whole files before it are not read again."""
        for path in self.paths:
            known = self._counts.get(path)
            if known is not None and start >= known:
                start -= known
                continue
            count = 0
            for item in _labelled(path):
                count += 1
                if start:
                    start -= 1
                else:
                    yield item
            self._counts[path] = count

    @cached_property
    def _counts(self) -> dict[str, int]:
        """The images of files that were read to their end."""
        return {}


class Member(tarfile.TarInfo):
    """A member whose absence is an error: `tarfile` takes a file that is cut off or damaged for one that is over."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Self:
        """The next one.

        Raises:
            EOFHeaderError: the empty block that ends a tar file.
            ReadError: anything else that is no member.
        """
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # its stubs know of no such errors
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {archive.offset}, in place of the block that ends it") from error


def is_sequential(path: str) -> bool:
    """Whether a tar file is read from its beginning: compressed as a whole, or of another file system."""
    return is_address(path) or path.lower().endswith(PACKED)


def _labelled(path: str) -> Iterator[Item]:
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


def _members(path: str) -> Iterator[tuple[str, str, Item | bytes]]:
    """Sample and ending of each member that counts, with the image, or the bytes that say its class."""
    sequential, name_here = is_sequential(path), name_of(path)
    try:
        with _opened(path) as archive:
            for member in archive:
                archive.members = []  # type: ignore[attr-defined]  # it would keep them all
                folder, _, name = member.name.rpartition("/")
                if not member.isfile() or name.startswith("."):
                    continue
                stem, _, ending = name.partition(".")
                key = f"{folder}/{stem}"
                if name.lower().endswith(SUFFIXES):
                    called = printable(f"{name_here}/{member.name}")
                    content = _content(archive, member) if sequential else None
                    yield key, ending, Item(called, path, member.offset_data, member.size, content)
                elif ending in (CLASS, FACTS):
                    yield key, ending, _content(archive, member)
    except FileNotFoundError as error:
        raise DataError(f"there is nothing at {shown(path)}", fix="check the path") from error
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise DataError(f"{shown(path)} cannot be read as tar: {error}", fix="get it again") from error


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tarfile.TarFile]:
    """A tar file; the form of its compression is read from its first bytes."""
    with contextlib.ExitStack() as stack:
        if not is_sequential(path):
            yield stack.enter_context(tarfile.open(path, "r:", tarinfo=Member))
            return
        content: Any = stack.enter_context(open_bytes(path))
        if path.lower().endswith(ZST):
            # Python itself reads Zstandard's form from 3.14 on, and pyarrow on every one.
            content = stack.enter_context(STORAGE.load("unpacked")(content))
        yield stack.enter_context(tarfile.open(fileobj=content, mode="r|*", tarinfo=Member))


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
