"""Sums of products of what layers read, which tell how their inputs go together; see `rounding`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

MOST_BYTES = 1 << 30  # of sums of products at a time; for more the images go through once more
MOST_ROWS = 2048  # that wait to be multiplied


class Sum:
    """The sum of products of rows, which are multiplied when there are enough of them."""

    def __init__(self) -> None:
        self._rows: list[NDArray[np.float32]] = []
        self._sum: NDArray[np.float32] | None = None

    def add(self, rows: NDArray[np.float32]) -> None:
        """Count rows `(n, inputs)` in."""
        self._rows.append(rows)
        if sum(map(len, self._rows)) >= MOST_ROWS:
            self.total()

    def total(self) -> NDArray[np.float32]:
        """`(inputs, inputs)`, of at least one row."""
        if self._rows:
            rows = np.concatenate(self._rows)
            product = rows.T @ rows
            self._sum = product if self._sum is None else self._sum + product
            self._rows = []
        assert self._sum is not None  # there are images to calibrate with
        return self._sum


def in_groups(inputs: Mapping[str, int]) -> Iterator[list[str]]:
    """Names of what layers read, as many at a time as have sums that fit memory together.

    Args:
        inputs: how wide each is.
    """
    group: list[str] = []
    total = 0
    for name, count in inputs.items():
        own = np.dtype(np.float32).itemsize * count * count
        if group and total + own > MOST_BYTES:
            yield group
            group, total = [], 0
        group.append(name)
        total += own
    if group:
        yield group
