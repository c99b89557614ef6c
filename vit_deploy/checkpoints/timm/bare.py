"""The architecture that weights without a config are taken for, and what they could be just as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vit_deploy.checkpoints.assumed import Assumed
from vit_deploy.checkpoints.timm.architectures import Architecture, alike, listed, of_these_names
from vit_deploy.core.choices import NormalizationPosition, Pooling
from vit_deploy.errors import CheckpointError

FIELD = "architecture"
CLASS = "VisionTransformer"  # timm's, for weights of no architecture that it has a name for
PRE = NormalizationPosition.PRE  # of all but few
OTHERWISE = "say which it is with --architecture NAME"


@dataclass(frozen=True)
class Taken:
    """What bare weights are taken for.

    Args:
        fields: of the config, in place of the usual ones.
        pools_prefix: whether the pooling takes the prefix tokens too.
        sizes: (height, width) in pixels of the images that it is usually for.
        supposed: that it is this architecture, where others have the same weights and compute something else.
    """

    fields: Mapping[str, Any] = field(default_factory=dict)
    pools_prefix: bool = False
    sizes: tuple[tuple[int, int], ...] = ()
    supposed: tuple[Assumed, ...] = ()


def taken_for(shapes: Mapping[str, Any], usual: Mapping[str, Any], rows: int) -> Taken:
    """What weights of these shapes are taken for.

    Args:
        shapes: fields of the config that the weights show.
        usual: fields that the weights do not show, as most have them.
        rows: how many rows the position table has.

    Raises:
        CheckpointError: the weights are those of architectures alone that no config here can say.
    """
    named = of_these_names(shapes)
    found = alike(named, shapes)
    readable = [candidate for candidate in found if not candidate.needs]
    if found and not readable:
        raise CheckpointError(
            f"it holds no config, and timm has such weights in {listed(found, None)} alone",
            fix="if it is a plain ViT all the same, give a plain one's name, and its heads: --architecture NAME "
            "--num-heads N",
        )
    if not readable:
        others = [candidate for candidate in named if candidate.needs or candidate.activation != usual["activation"]]
        return Taken(supposed=_supposed(CLASS, others, None))
    chosen = _nearest(readable, usual)
    others = [
        candidate for candidate in found if candidate.hidden != chosen.hidden or _leaves_rest(candidate, shapes, rows)
    ]
    return Taken(
        fields={**chosen.fields, "pooling": chosen.pooling},
        pools_prefix=chosen.pools_prefix,
        sizes=(chosen.image_size,) if rows == 0 else (),
        supposed=_supposed(chosen.name, others, chosen),
    )


def _leaves_rest(architecture: Architecture, shapes: Mapping[str, Any], rows: int) -> bool:
    """Whether a position table of so many rows is for images of this one, and its patches leave some pixels unread."""
    grid = [side // of for side, of in zip(architecture.image_size, shapes["patch_size"], strict=True)]
    prefix = shapes["class_token"] + shapes["distillation_token"] + shapes["register_tokens"]
    fits = grid[0] * grid[1] in (rows, rows - prefix)
    return fits and bool(architecture.unread)


def _nearest(readable: Sequence[Architecture], usual: Mapping[str, Any]) -> Architecture:
    """The first with most of the usual fields."""

    def agreeing(architecture: Architecture) -> int:
        # An average leaves the prefix tokens out as a class token does; attention is shown by the weights.
        pooling = architecture.pooling in (usual["pooling"], Pooling.MAP)
        return int(pooling) + sum(
            bool(architecture.fields[name] == usual.get(name, PRE)) for name in architecture.fields
        )

    return max(readable, key=agreeing)


def _supposed(name: str, others: Sequence[Architecture], chosen: Architecture | None) -> tuple[Assumed, ...]:
    if not others:
        return ()
    why = f"weights do not tell it from timm's {listed(others, chosen)}; {OTHERWISE}"
    return (Assumed(FIELD, name, why),)
