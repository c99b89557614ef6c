"""What `--data` stands for: a folder, a pattern, a list, arrays, Parquet, tar files, or another file system."""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from vit_deploy.core.images import SUFFIXES
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.data.arrays import Arrays
from vit_deploy.data.folders import FileList, Files, Folder
from vit_deploy.data.items import REMOTE, Joined, Source
from vit_deploy.data.shards import PACKED, Shards
from vit_deploy.errors import DataError, UsageError

READERS = Registry(
    "source of images",
    {
        "parquet": Plugin("vit_deploy.data.parquet_source:read_parquet", "data", ("pyarrow",)),
        REMOTE: Plugin("vit_deploy.data.remote_source:read_remote", "data", ("pyarrow",)),
    },
)
PARQUET = (".parquet", ".pq")
TAR = (".tar", *PACKED)
FIX = "give a folder of images, a pattern, a .txt list, an .npz, .parquet or .tar files"


def find_source(given: Sequence[str], column: str | None = None) -> Source:
    """The images that texts of the command line stand for, in their order.

    Args:
        given: paths, patterns as `photos/*.jpg` or `{000000..000012}.tar`, addresses as `s3://bucket/photos`.
        column: of the images in Parquet files; None finds the only one that can be.

    Raises:
        DataError: there is nothing, or nothing that holds images.
        UsageError: a column where there is no Parquet file.
        MissingEngineError: what reads them is not installed.
    """
    sources: list[Source] = []
    # Files of one kind that follow one another are one source.
    for kind, paths in itertools.groupby([path for text in given for path in _expanded(text)], _kind):
        sources.append(_source(kind, list(paths), column))
    if column is not None and not any(_kind(path) == "parquet" for text in given for path in _expanded(text)):
        raise UsageError("--column names a column of Parquet files, and --data has none")
    return sources[0] if len(sources) == 1 else Joined(tuple(sources))


def is_stream(text: str) -> bool:
    """Whether a path is more than an image or a folder of them: a pattern, a list, or a file that holds images."""
    path = Path(text)
    if path.is_dir():
        return False
    return _kind(text) in ("remote", "tar", "parquet", "npz", "list") or (_is_pattern(text) and not path.exists())


def _source(kind: str, paths: list[str], column: str | None) -> Source:
    if kind == "image":
        return Files(tuple(paths))
    if kind == "tar":
        return Shards(tuple(map(Path, paths)))
    if kind == "parquet":
        found: Source = READERS.load(kind)([Path(path) for path in paths], column)
        return found
    several: list[Source] = [_single(kind, path) for path in paths]
    return several[0] if len(several) == 1 else Joined(tuple(several))


def _single(kind: str, path: str) -> Source:
    if kind == "folder":
        return Folder(Path(path))
    if kind == "list":
        return FileList(Path(path))
    if kind == "npz":
        return Arrays(Path(path))
    if kind == "remote":
        found: Source = READERS.load(REMOTE)(path)
        return found
    raise DataError(f"{path} is nothing that holds images", fix=FIX)


def _kind(text: str) -> str:
    lowered = text.lower()
    if REMOTE in text:
        return "remote"
    if Path(text).is_dir():
        return "folder"
    kinds = {"image": SUFFIXES, "parquet": PARQUET, "tar": TAR, "npz": (".npz",), "list": (".txt", ".lst")}
    return next((kind for kind, endings in kinds.items() if lowered.endswith(endings)), "other")


def _expanded(text: str) -> list[str]:
    """The paths that a text stands for; of a folder without images the files in it that hold some."""
    path = Path(text)
    if REMOTE in text:
        return [text]
    if path.is_dir():
        return _inside(path)
    if path.exists():
        return [text]
    if not _is_pattern(text):
        raise DataError(f"there is nothing at {text}", fix=FIX)
    found = [one for pattern in _braces(text) for one in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    if not found:
        raise DataError(f"nothing is there that {text} stands for", fix="check the pattern, and quote it for the shell")
    return found


def _inside(folder: Path) -> list[str]:
    if next(Folder(folder).items(), None) is not None:
        return [str(folder)]
    for endings in (PARQUET, TAR):
        if held := sorted(str(path) for path in folder.iterdir() if path.name.lower().endswith(endings)):
            return held
    raise DataError(f"{folder} holds no images", fix=f"files with the endings {', '.join(SUFFIXES)} count")


def _is_pattern(text: str) -> bool:
    return bool(re.search(r"[*?[]|\{[^}]+\}", text))


def _braces(text: str) -> list[str]:
    """`{000..012}` and `{train,test}` as the shell expands them."""
    found = re.search(r"\{([^{}]+)\}", text)
    if found is None:
        return [text]
    first, dots, last = found[1].partition("..")
    if dots and first.isdigit() and last.isdigit():
        width = len(first) if first.startswith("0") else 0
        values = [f"{number:0{width}}" for number in range(int(first), int(last) + 1)]
    else:
        values = found[1].split(",")
    return [one for value in values for one in _braces(text[: found.start()] + value + text[found.end() :])]
