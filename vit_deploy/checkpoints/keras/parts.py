"""The variables of Keras layers, known by their paths, as canonical weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from vit_deploy.checkpoints.gathering import Origin, same
from vit_deploy.core.weights import Float32

Make = Callable[[Float32], Float32]


class Parts:
    """A table of origins that is filled part by part; a Dense has its kernel as variable 0 and its bias as 1."""

    def __init__(self, names: Mapping[str, str]) -> None:
        """Take the names in the file by the path to each variable, with dots."""
        self.names = names
        self.origins: dict[str, Origin] = {}

    def put(self, canonical: str, path: str, make: Make | None = None) -> None:
        """One weight of the variable at `path`; where that is not in the file, the weight will be listed as missing."""
        name = self.names.get(path, path)
        self.origins[canonical] = same(name) if make is None else Origin((name,), make)

    def constant(self, canonical: str, value: float, size: int) -> None:
        """One weight that the model does without."""
        self.origins[canonical] = Origin((), lambda: np.full(size, value, np.float32))

    def found(self, *paths: str) -> str:
        """The first of the paths of a Dense that is there, or the last."""
        return next((path for path in paths if f"{path}.0" in self.names), paths[-1])

    def dense(self, canonical: str, *paths: str) -> None:
        """Kernel and bias."""
        path = self.found(*paths)
        self.put(f"{canonical}.kernel", f"{path}.0")
        self.put(f"{canonical}.bias", f"{path}.1")

    def split(self, canonical: tuple[str, ...], *paths: str) -> None:
        """Kernels and biases of several that lie side by side in one."""
        path = self.found(*paths)
        for index, name in enumerate(canonical):
            self.put(f"{name}.kernel", f"{path}.0", share(index, len(canonical)))
            self.put(f"{name}.bias", f"{path}.1", share(index, len(canonical)))


def share(index: int, number: int) -> Make:
    """One of `number` equal shares of the last axis."""

    def make(packed: Float32) -> Float32:
        taken: Float32 = np.split(packed, number, axis=-1)[index]
        return taken

    return make


def first(packed: Float32) -> Float32:
    """What is in a first axis of one."""
    if packed.shape[:1] != (1,):
        raise ValueError("expected a first axis of 1")
    taken: Float32 = packed[0]
    return taken


def reshaped(stored: tuple[int, ...], canonical: tuple[int, ...]) -> Make:
    """The same numbers in another shape, if they have exactly the shape that is stored."""

    def make(tensor: Float32) -> Float32:
        if tensor.shape != stored:
            raise ValueError(f"expected {stored}")
        return tensor.reshape(canonical)

    return make
