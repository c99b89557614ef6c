"""Sums of products of what layers read, which tell how their inputs go together; see `rounding`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vit_deploy.errors import ExportError

MOST_BYTES = 1 << 30  # of sums of products at a time; for more the images go through once more
MOST_ROWS = 2048  # that wait to be multiplied

Rows = Mapping[str, NDArray[np.float32]]
"""Rows `(n, inputs)` by the name of what they are of."""


@dataclass(frozen=True)
class Read:
    """What layers read.

    Args:
        name: of the tensor.
        inputs: how wide it is.
        layer: one of the layers, for errors.
    """

    name: str
    inputs: int
    layer: str


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


def summed(
    read: Sequence[Read], rows: Callable[[Collection[str]], Iterator[Rows]]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Sums of products `(inputs, inputs)` by the name of what is read; no more of them are held than fit memory.

    Args:
        read: what layers read, in the order in which it is given.
        rows: runs the images, and gives what was asked for by its names, batch by batch.

    Raises:
        ExportError: sums that are not finite.
    """
    for group in _in_groups(read):
        totals = _totals(group, rows)
        for each in group:
            if not np.isfinite(totals[each.name]).all():
                raise ExportError(
                    f"the kernel of {each.layer} is rounded by what it reads of the images to calibrate with, and sums "
                    "of squares of that are not finite",
                    fix=f"keep it in float with --keep-float {each.layer}, or give other images with --calibrate",
                )
            yield each.name, totals.pop(each.name)


def _totals(group: Sequence[Read], rows: Callable[[Collection[str]], Iterator[Rows]]) -> dict[str, NDArray[np.float32]]:
    sums = {each.name: Sum() for each in group}
    with np.errstate(over="ignore", invalid="ignore"):  # which is told by the layer
        for values in rows(sums.keys()):
            for name, one in sums.items():
                one.add(values[name])
        return {name: one.total() for name, one in sums.items()}


def _in_groups(read: Sequence[Read]) -> Iterator[list[Read]]:
    """What is read, as much at a time as has sums that fit memory together."""
    group: list[Read] = []
    total = 0
    for each in read:
        own = np.dtype(np.float32).itemsize * each.inputs**2
        if group and total + own > MOST_BYTES:
            yield group
            group, total = [], 0
        group.append(each)
        total += own
    if group:
        yield group
