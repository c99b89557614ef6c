"""A check, by its directory, that the members of a zip file can be read without harm."""

from __future__ import annotations

import zipfile
from collections import Counter
from collections.abc import Iterable
from pathlib import PurePosixPath

ENCRYPTED = 0x1


def checked_members(archive: zipfile.ZipFile) -> tuple[dict[str, zipfile.ZipInfo], list[str]]:
    """Members by name, and in words what is wrong with them: doubled, outside, encrypted, packed in a rare way.

    Raises:
        BadZipFile: the file was cut at its beginning.
    """
    infos = archive.infolist()
    if any(info.header_offset < 0 for info in infos):  # counted from the directory, which comes last
        raise zipfile.BadZipFile("bytes are missing in front of its directory")
    counts = Counter(info.filename for info in infos)
    problems = [f"{name} is there {count} times" for name, count in counts.items() if count > 1]
    for info in infos:
        name = PurePosixPath(info.filename.replace("\\", "/"))
        if name.is_absolute() or ".." in name.parts:
            problems.append(f"{info.filename} lies outside")
        if info.flag_bits & ENCRYPTED:
            problems.append(f"{info.filename} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            problems.append(f"{info.filename} is compressed by method {info.compress_type}")
    return {info.filename: info for info in infos}, problems


def expansions(infos: Iterable[zipfile.ZipInfo], at_most: int, free_bytes: int) -> list[str]:
    """Members, in words, that declare more than `at_most` times their packed bytes; `free_bytes` are always free."""
    return [
        f"{info.filename} expands from {info.compress_size} to {info.file_size} bytes"
        for info in infos
        if info.file_size > max(free_bytes, at_most * info.compress_size)
    ]
