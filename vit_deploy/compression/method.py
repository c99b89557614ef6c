"""The protocol of a compression method."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from vit_deploy.compression import CompressOptions
from vit_deploy.core.checkpoint import Ranges
from vit_deploy.core.weights import Float32

if TYPE_CHECKING:
    from vit_deploy.compression.keras2 import Twin

Call = Callable[[Any], Any]


class Method(Protocol):
    """One way to compress. Wraps the layers as the twin is made, and reads the result off when it was trained.

    Made with the options, the names of the layers to compress, and the number of steps of the whole training.
    """

    def __init__(self, options: CompressOptions, layers: Collection[str], steps: int) -> None: ...

    def wrap(self, name: str, dense: Any) -> Call:
        """What is called in place of a Dense layer."""

    def begin(self, twin: Twin, batches: Iterable[Any]) -> None:
        """Called with some batches of normalised images before the first step; not when a training goes on."""

    def end_epoch(self) -> None:
        """Called before the model is judged."""

    def is_settled(self, step: int) -> bool:
        """Whether the model is as compressed as it was asked to be, so that it may be taken for the best."""

    def kernels(self) -> Mapping[str, Float32]:
        """The compressed kernels, `(inputs, outputs)`, by their canonical names."""

    def ranges(self) -> Ranges:
        """What was learned about the ranges of activations; empty where nothing was."""
