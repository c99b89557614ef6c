"""The image size and the prefix tokens that the position table of a timm model is made for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.importing import image_size_of, without_rest
from vit_deploy.checkpoints.timm.names import Renamed
from vit_deploy.checkpoints.timm.relative import fits_table, grid_of_table, table_size
from vit_deploy.core.config_checks import as_pair
from vit_deploy.errors import CheckpointError


@dataclass(frozen=True)
class Positions:
    """What the rows of a position table stand for.

    Args:
        prefix: the number of prefix tokens with rows, counted from the first.
        image_size: (height, width) in pixels that its other rows are the patches of.
        known: the size that somebody says, which the patches may not divide; None where it is just square.
    """

    prefix: int
    image_size: tuple[int, int]
    known: tuple[int, int] | None = None


def positions_of(view: Renamed, shapes: Mapping[str, Any], sizes: Sequence[Any]) -> Positions:
    """The positions of a model.

    The prefix tokens have rows of their own, all or none (`no_embed_class`), and in DINOv2's files all but the
    registers. Names do not tell: what makes an image of a size that is said counts, after that what makes a square.

    Args:
        view: the file.
        shapes: fields of the config that its shapes say.
        sizes: (height, width) in pixels that somebody says, best first.

    Raises:
        CheckpointError: neither makes one.
    """
    if "pos_embed" not in view.stored:
        return _of_distances(view, shapes, sizes)
    _, rows, _ = view.common_shape("pos_embed", 3)
    tokens = shapes["class_token"] + shapes["distillation_token"]
    choices = tuple(dict.fromkeys((tokens + shapes["register_tokens"], tokens, 0)))
    patch = shapes["patch_size"]
    for given in sizes:
        size = as_pair(given, "image_size")
        read = without_rest(size, patch)
        for prefix in choices:
            if rows - prefix == (read[0] // patch[0]) * (read[1] // patch[1]):
                return Positions(prefix, read, known=size)
    square = [choice for choice in choices if rows > choice and math.isqrt(rows - choice) ** 2 == rows - choice]
    prefix = (*square, *choices)[0]
    return Positions(prefix, image_size_of(rows - prefix, patch, ()))


def _of_distances(view: Renamed, shapes: Mapping[str, Any], sizes: Sequence[Any]) -> Positions:
    """The positions of a model that knows nothing but how far apart tokens are."""
    prefix = shapes["class_token"] + shapes["distillation_token"] + shapes["register_tokens"]
    patch, distances = shapes["patch_size"], table_size(view, prefix)
    for given in sizes:
        size = as_pair(given, "image_size")
        read = without_rest(size, patch)
        if distances is None or fits_table((read[0] // patch[0], read[1] // patch[1]), distances):
            return Positions(prefix, read, known=size)
    if distances is None:
        raise CheckpointError(
            "its positions are computed from the distances of patches, and nothing says for images of which size",
            fix='give the size: --config FILE.json with {"image_size": [height, width]}',
        )
    grid = grid_of_table(distances)
    return Positions(prefix, (grid[0] * patch[0], grid[1] * patch[1]))
