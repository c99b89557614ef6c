"""Tensors of a file in other shapes, for dialects that keep the same numbers otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vit_deploy.checkpoints.timm.names import Renamed
from vit_deploy.core.weights import Float32

Make = Callable[[Float32], Float32]


@dataclass(frozen=True)
class Remade(Renamed):
    """A `TensorFile` under other names, some of whose tensors are made of the stored ones.

    Args:
        file: that is read.
        stored: name in the file, by the name here.
        made: what makes a tensor of the one that is stored, by the name here; it moves and splits, and looks at no
            values.
    """

    made: Mapping[str, Make]

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        shape = super().shape(name)
        make = self.made.get(name)
        return shape if make is None else make(np.broadcast_to(np.float32(0), shape)).shape

    def read(self, name: str) -> Float32:
        """One tensor as float32."""
        values = super().read(name)
        make = self.made.get(name)
        return values if make is None else make(values)
