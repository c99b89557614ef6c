"""Any number of images through models that take a fixed number, or a few, at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def in_batches(infer: Callable[[Array], Array], images: Array, batch: int | None) -> Array:
    """`infer` over `images` in groups of exactly `batch`; the last one is filled up and the filling dropped.

    With None, or with exactly one group, `images` goes through as it is.
    """
    parts = groups(images, batch)
    if len(parts) == 1 and len(parts[0]) == len(images):
        return infer(parts[0])
    return joined([infer(part).copy() for part in parts], len(images))


def outputs_in_batches(
    infer: Callable[[Array], Mapping[str, Array]], images: Array, batch: int | None
) -> dict[str, Array]:
    """As `in_batches`, for several outputs by name."""
    parts = [{name: values.copy() for name, values in infer(part).items()} for part in groups(images, batch)]
    return {name: joined([part[name] for part in parts], len(images)) for name in parts[0]}


def groups(images: Array, batch: int | None) -> list[Array]:
    """`images` in groups of exactly `batch`, the last one filled up; in one group of them all with None."""
    return [images] if batch is None else groups_within(images, batch, batch)


def groups_within(images: Array, least: int, most: int) -> list[Array]:
    """`images` in groups of `most`, the last one of what is left over and filled up to `least`."""
    parts = [images[start : start + most] for start in range(0, len(images), most)]
    if (missing := least - len(parts[-1])) > 0:
        parts[-1] = np.concatenate([parts[-1], np.repeat(parts[-1][-1:], missing, axis=0)])
    return parts


def joined(outputs: Sequence[Array], count: int) -> Array:
    """The outputs of all groups together, without those of the filling."""
    return outputs[0][:count] if len(outputs) == 1 else np.concatenate(outputs)[:count]
