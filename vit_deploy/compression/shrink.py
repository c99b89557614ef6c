"""Shrinking as a method: the layers of a narrowed model, trained as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from vit_deploy.compression import CompressOptions
from vit_deploy.compression.keras2 import Twin
from vit_deploy.compression.method import Call
from vit_deploy.core.checkpoint import Ranges
from vit_deploy.core.weights import Float32


class Shrink:
    """The training of one round of `compression.shrinking`; see `method.Method`."""

    def __init__(self, options: CompressOptions, layers: Collection[str], steps: int) -> None:
        pass

    def wrap(self, name: str, dense: Any) -> Call:
        """The layer itself, which has its size already."""
        return dense  # type: ignore[no-any-return]

    def begin(self, twin: Twin, batches: Iterable[Any]) -> None:
        """All that stays was chosen before."""

    def end_epoch(self) -> None:
        """Nothing is masked."""

    def is_settled(self, step: int) -> bool:
        """Whether it was trained at all: cut and not trained, it is no answer yet."""
        return step > 0

    def kernels(self) -> Mapping[str, Float32]:
        """The kernels are the layers' own."""
        return {}

    def ranges(self) -> Ranges:
        """None are learned."""
        return {}
