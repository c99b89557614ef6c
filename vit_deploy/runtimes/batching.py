"""How does a model made for a fixed batch take any number of images?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def in_batches(infer: Callable[[Array], Array], images: Array, batch: int | None) -> Array:
    """`infer` over `images` in groups of exactly `batch`; the last one is filled up and the filling dropped.

    With None, or with exactly one group, `images` goes through as it is.
    """
    if batch is None or len(images) == batch:
        return infer(images)
    outputs = []
    for start in range(0, len(images), batch):
        group = images[start : start + batch]
        filled = np.concatenate([group, np.repeat(group[-1:], batch - len(group), axis=0)])
        outputs.append(infer(filled)[: len(group)].copy())
    return np.concatenate(outputs)
