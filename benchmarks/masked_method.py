"""`shrink` as a method that multiplies what does not stay by zero, for `shrink_masks`; Keras 2 is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vit_deploy.compression.shrink import Shrink


class Masked(Shrink):
    """A method whose model keeps its sizes.

    Attributes:
        masks: what each last projection of a half reads, 1 for what stays, by its name.
    """

    masks: ClassVar[Mapping[str, NDArray[np.float32]]] = {}

    def wrap(self, name: str, dense: Any) -> Any:
        """The layer, behind its mask."""
        return dense if name not in self.masks else lambda x: dense(x * self.masks[name])
