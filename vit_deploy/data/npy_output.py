"""Vectors in an `.npy`, with a line of JSON for each beside it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_deploy.data.rows import VECTOR, Rows

NAMES = ".jsonl"


def write(rows: Iterator[Rows], files: Sequence[Path], count: int, about: Mapping[str, str]) -> None:
    """Write rows: the array of all vectors `(images, …)`, NaN where an image has none, and the names.

    Args:
        rows: the rows.
        files: the `.npy`, and the `.jsonl` with a line for each row.
        count: how many rows there are.
        about: what the rows are of; an array has no room for it.
    """
    array, names = files
    with array.open("wb") as values, names.open("w", encoding="utf-8", newline="\n") as lines:
        for place, part in enumerate(rows):
            vectors = np.ascontiguousarray(part.values[VECTOR], "<f4")
            if not place:
                header: dict[str, Any] = {"descr": "<f4", "fortran_order": False, "shape": (count, *vectors.shape[1:])}
                np.lib.format.write_array_header_1_0(values, header)
            values.write(vectors.tobytes())
            lines.write(part.text())
