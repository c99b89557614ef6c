"""What `--data` stands for: a folder, a pattern, a list, arrays, Parquet, tar files, or another file system."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from vit_deploy.core.images import SUFFIXES
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.data.addresses import REMOTE, is_address, parsed
from vit_deploy.data.arrays import Arrays
from vit_deploy.data.folders import FileList, Files, Folder, Matching
from vit_deploy.data.items import Joined, Source
from vit_deploy.data.patterns import MAGIC, Kind, braces, is_pattern
from vit_deploy.data.shards import PACKED, Shards
from vit_deploy.errors import DataError, UsageError

LISTING = "listing"
READERS = Registry(
    "source of images",
    {
        "parquet": Plugin("vit_deploy.data.parquet_source:read_parquet", "data", ("pyarrow",)),
        REMOTE: Plugin("vit_deploy.data.remote_source:read_remote", "data", ("pyarrow",)),
        LISTING: Plugin("vit_deploy.data.remote_source:expanded", "data", ("pyarrow",)),
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
    paths = [path for text in given for path in _expanded(text)]
    # Files of one kind that follow one another are one source.
    sources = [_source(kind, list(group), column) for kind, group in itertools.groupby(paths, _kind)]
    if column is not None and "parquet" not in map(_kind, paths):
        raise UsageError("--column names a column of Parquet files, and --data has none")
    return sources[0] if len(sources) == 1 else Joined(tuple(sources))


def is_stream(text: str) -> bool:
    """Whether a path is more than an image or a folder of them: a pattern, a list, or a file that holds images."""
    return _kind(text) in (REMOTE, "tar", "parquet", "npz", "list", "pattern")


def _source(kind: str, paths: list[str], column: str | None) -> Source:
    if kind == "image":
        return Files(tuple(paths))
    if kind == "tar":
        return Shards(tuple(paths))
    if kind == "parquet":
        found: Source = READERS.load(kind)(paths, column)
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
    if kind == "pattern":
        return Matching(path)
    if kind == REMOTE:
        found: Source = READERS.load(REMOTE)(path)
        return found
    raise DataError(f"{path} is nothing that holds images", fix=FIX)


def _kind(text: str) -> str:
    if is_address(text):
        text, known = parsed(text).path, REMOTE
    elif is_pattern(text) and not Path(text).exists():
        return "pattern"
    else:
        known = "folder" if Path(text).is_dir() else ""
    lowered = text.lower()
    holding = {"parquet": PARQUET, "tar": TAR}
    kinds = {**holding, "image": SUFFIXES, "npz": (".npz",), "list": (".txt", ".lst")}
    if known:
        return next((kind for kind, endings in holding.items() if lowered.endswith(endings) and known == REMOTE), known)
    return next((kind for kind, endings in kinds.items() if lowered.endswith(endings)), "other")


def _expanded(text: str) -> list[str]:
    """The paths that a text stands for; of a folder without images the files in it that hold some.

    A pattern of image files stays one, as it may stand for millions.
    """
    path = Path(text)
    if is_address(text):
        READERS.check(REMOTE)
        found: list[str] = READERS.load(LISTING)(text, (PARQUET, TAR))
        return found
    if path.is_dir():
        return _inside(path)
    if path.exists():
        return [text]
    if not is_pattern(text):
        raise DataError(f"there is nothing at {text}", fix=FIX)
    paths = [one for pattern in braces(text) for one in _matched(pattern)]
    if not paths:
        raise DataError(f"nothing is there that {text} stands for", fix="check the pattern, and quote it for the shell")
    return paths


def _matched(pattern: str) -> list[str]:
    if not MAGIC.search(pattern):
        if not Path(pattern).exists():
            raise DataError(f"there is nothing at {pattern}", fix=FIX)
        return [pattern]
    matching = Matching(pattern)
    kinds = {entry.name.lower().endswith(SUFFIXES) and entry.kind is Kind.FILE for _, entry in matching.found()}
    return [pattern] if kinds == {True} else list(matching.paths())


def _inside(folder: Path) -> list[str]:
    if next(Folder(folder).items(), None) is not None:
        return [str(folder)]
    for endings in (PARQUET, TAR):
        if held := sorted(str(path) for path in folder.iterdir() if path.name.lower().endswith(endings)):
            return held
    raise DataError(f"{folder} holds no images", fix=f"files with the endings {', '.join(SUFFIXES)} count")
