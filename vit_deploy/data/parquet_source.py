"""Images in Parquet files: a column of bytes, or of bytes and path as Hugging Face's data sets have it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vit_deploy.data.addresses import is_address, name_of, parsed, shown
from vit_deploy.data.items import STORAGE, Item, file_stamp, printable, whole_path
from vit_deploy.errors import DataError

LABELS_READ = 65_536
ROWS = 32  # that are held at a time
BUFFER_BYTES = 1 << 20  # of a column that are read at once, where else it would be all of a group of rows
NAMES = ("file_name", "filename", "name", "image_path", "path", "id", "key")  # columns that name an image
LABELS = ("label", "labels", "class", "cls")


@dataclass(frozen=True)
class Parquet:
    """Rows of Parquet files with one schema, one file behind the other.

    Args:
        paths: of the files.
        column: of the images; None finds the only one that can be.
    """

    paths: tuple[str, ...]
    column: str | None = None

    @cached_property
    def identity(self) -> Any:
        """The column, and each file with its size and time."""
        return ["parquet", self._column, *([whole_path(path), file_stamp(path)] for path in self.paths)]

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by their numbers, where Hugging Face's description of the columns has them."""
        with _opened(self.paths[0]) as file:
            described = (file.schema_arrow.metadata or {}).get(b"huggingface")
        try:
            features = json.loads(described or b"{}")["info"]["features"]
            found = [features[name]["names"] for name in LABELS if "names" in features.get(name, {})]
        except (ValueError, KeyError, TypeError):
            return ()
        return tuple(map(str, found[0])) if found else ()

    def labels(self) -> Iterator[int | str | None]:
        """The class of each row, without its image."""
        for path in self.paths:
            with _opened(path) as file:
                label = _label_column(file.schema_arrow)
                if label is None:
                    yield from [None] * file.metadata.num_rows
                    continue
                for batch in file.iter_batches(LABELS_READ, columns=[label]):
                    yield from batch.column(0).to_pylist()

    @property
    def carries_content(self) -> bool:
        """Items have their bytes with them."""
        return True

    def total(self) -> int | None:
        """How many rows there are."""
        count = 0
        for path in self.paths:
            with _opened(path) as file:
                count += file.metadata.num_rows
        return count

    def items(self, start: int = 0) -> Iterator[Item]:
        """The rows from one on; groups of rows before it are not read."""
        for path in self.paths:
            with _opened(path) as file:
                for group in range(file.num_row_groups):
                    rows = file.metadata.row_group(group).num_rows
                    if start >= rows:
                        start -= rows
                        continue
                    first = sum(file.metadata.row_group(before).num_rows for before in range(group))
                    yield from self._rows(file, path, group, first, start)
                    start = 0

    def _rows(self, file: pq.ParquetFile, path: str, group: int, first: int, skipped: int) -> Iterator[Item]:
        schema = file.schema_arrow
        if self._column not in schema.names:
            raise DataError(f"{shown(path)} has no column {self._column}", fix="give files of one schema")
        name = next((name for name in NAMES if name in schema.names and _is_text(schema.field(name).type)), None)
        label = _label_column(schema)
        columns = [column for column in (self._column, name, label) if column is not None]
        place = first
        try:
            for batch in file.iter_batches(ROWS, row_groups=[group], columns=columns):
                for row in range(batch.num_rows):
                    place += 1
                    if place - first <= skipped:
                        continue
                    named = batch.column(name)[row].as_py() if name is not None else None
                    yield _item(
                        path,
                        place - 1,
                        batch.column(self._column)[row].as_py(),
                        named,
                        batch.column(label)[row].as_py() if label is not None else None,
                    )
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{shown(path)} cannot be read as Parquet: {error}", fix="get it again") from error

    @cached_property
    def _column(self) -> str:
        with _opened(self.paths[0]) as file:
            schema = file.schema_arrow
        found = [str(field.name) for field in schema if _is_image(field.type)]
        if self.column is not None:
            if self.column in found:
                return self.column
            there = f"{', '.join(found)} can be" if found else "none can be"
            raise DataError(f"{shown(self.paths[0])} has no column {self.column} of images", fix=there)
        if len(found) != 1:
            what = f"several columns that may be images: {', '.join(found)}" if found else "no column of images"
            fix = "say which with --column" if found else "expected a column of bytes, or of {bytes, path}"
            raise DataError(f"{shown(self.paths[0])} has {what}", fix=fix)
        return found[0]


def read_parquet(paths: Sequence[str], column: str | None) -> Parquet:
    """Parquet files as a source; the column is looked for at once.

    Raises:
        DataError: a file that is missing or broken, or a column that cannot be told.
    """
    source = Parquet(tuple(paths), column)
    assert source.identity
    return source


def _label_column(schema: pa.Schema) -> str | None:
    found = (label for label in LABELS if label in schema.names and _is_label(schema.field(label).type))
    return next(found, None)


def _opened(path: str) -> pq.ParquetFile:
    try:
        file = STORAGE.load("open_file")(path) if is_address(path) else path
        return pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False)
    except FileNotFoundError as error:
        raise DataError(f"there is nothing at {path}", fix="check the path") from error
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shown(path)} cannot be read as Parquet: {error}", fix="get it again") from error


def _item(path: str, place: int, value: Any, named: str | None, label: Any) -> Item:
    inside = value if isinstance(value, dict) else {"bytes": value}
    name = printable(inside.get("path") or named or f"{name_of(path)}#{place}")
    content = inside.get("bytes")
    if content is not None:
        return Item(name, content=content, label=label)
    if inside.get("path"):
        beside = parsed(path).beside(inside["path"]) if is_address(path) else Path(path).parent / inside["path"]
        return Item(name, str(beside), label=label)
    return Item(name, label=label, failure=f"row {place} of {shown(path)} holds no image")


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        inside = {field.name: field.type for field in kind}
        return "bytes" in inside and _is_bytes(inside["bytes"])
    return _is_bytes(kind)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_label(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or _is_text(kind))
