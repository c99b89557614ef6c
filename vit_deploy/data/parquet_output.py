"""Rows in a Parquet file, in groups of a fixed number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vit_deploy.data.rows import CLASS, PROBABILITY, VECTOR, Rows, regrouped

GROUP_BYTES = 16_000_000  # of values in a group of rows
MOST_ROWS = 65_536
LABELS = "labels"


def write(rows: Iterator[Rows], files: Sequence[Path], count: int, about: Mapping[str, str]) -> None:
    """Write rows: `name`, `digest`, `failure`, and `vector`, or `class`, `label` and `probability`; null where none.

    Args:
        rows: the rows.
        files: the file.
        count: how many rows there are, which a Parquet file says by itself.
        about: what the rows are of, for the file's metadata; `labels` has the names of the classes, one a line.
    """
    [path] = files
    labels = about.get(LABELS, "").split("\n") if about.get(LABELS) else []
    metadata = {f"vit_deploy.{key}": value for key, value in about.items() if key != LABELS}
    first = next(rows)
    size = max(1, min(MOST_ROWS, GROUP_BYTES * len(first) // max(first.nbytes, 1)))
    schema = _table(first, labels).schema.with_metadata(metadata)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for group in regrouped(_again(first, rows), size):
            writer.write_table(_table(group, labels).replace_schema_metadata(metadata))


def _again(first: Rows, rest: Iterator[Rows]) -> Iterator[Rows]:
    yield first
    yield from rest


def _table(rows: Rows, labels: Sequence[str]) -> pa.Table:
    columns = {
        "name": pa.array(rows.names, pa.string()),
        "digest": pa.array([digest or None for digest in rows.digests], pa.string()),
        "failure": pa.array([failure or None for failure in rows.failures], pa.string()),
    }
    missing = np.array([bool(failure) for failure in rows.failures])
    if VECTOR in rows.values:
        columns[VECTOR] = _lists(rows.values[VECTOR].reshape(len(rows), -1), missing)
    else:
        classes = rows.values[CLASS]
        columns[CLASS] = _lists(classes, missing)
        if labels:
            named = [
                None if gone else [labels[index] for index in row] for row, gone in zip(classes, missing, strict=True)
            ]
            columns["label"] = pa.array(named, pa.list_(pa.string(), classes.shape[1]))
        columns[PROBABILITY] = _lists(rows.values[PROBABILITY], missing)
    return pa.table(columns)


def _lists(values: np.ndarray[Any, Any], missing: np.ndarray[Any, Any]) -> pa.Array:
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    mask = pa.array(missing) if missing.any() else None
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1], mask=mask)
