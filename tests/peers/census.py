"""What a row of the census is: one situation that people are in with a checkpoint, and what has to come of it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
LIMIT = 1e-5  # of the largest answer


@dataclass(frozen=True)
class Made:
    """A checkpoint as somebody has it.

    Args:
        path: of the file or the folder.
        images: `(batch, height, width, channels)`, normalised; None where it is to be refused.
        answer: of the program itself to these images.
        stated: what has to be said of files that were made, when it is loaded.
    """

    path: Path
    images: Array | None = None
    answer: Array | None = None
    stated: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One situation.

    Args:
        source: the program, as the README's table has it.
        name: of the situation.
        how: it is made, in words.
        make: takes an empty folder.
        refused: words of the message that it is refused with; empty where it is to be exact.
        stated: what has to be said when it is loaded.
        needs: modules without which it cannot be made.
        fixed: what the message says to do, as what has to be said for it to be exact; None where that is no option.
        slow: whether it is left to a slow run.
    """

    source: str
    name: str
    how: str
    make: Callable[[Path], Made]
    refused: str = ""
    stated: Mapping[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    fixed: Mapping[str, Any] | None = None
    slow: bool = False

    @property
    def can_be_made(self) -> bool:
        """Whether what it needs is installed."""
        return all(importlib.util.find_spec(need) is not None for need in self.needs)


def distance(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference as a part of the largest answer; infinite for another shape."""
    if found.shape != expected.shape:
        return float("inf")
    return float(np.abs(found - expected).max() / np.abs(expected).max())
