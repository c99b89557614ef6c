"""Attention heads of timm that are together wider or narrower than a token, in what is known of a file's config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vit_deploy.checkpoints.source import Stated
from vit_deploy.checkpoints.timm.config import Hub
from vit_deploy.checkpoints.timm.names import Renamed
from vit_deploy.checkpoints.timm.shapes import attention_width
from vit_deploy.checkpoints.timm.things import count_of, has_things
from vit_deploy.errors import CheckpointError

Fields = dict[str, Any]


def settle_heads(view: Renamed, shapes: Fields, hub: Hub, stated: Stated, beside: Fields, defaults: Fields) -> None:
    """Put the width of the heads among the shapes, and among the defaults a number of them that nobody says.

    Args:
        view: the file.
        shapes: fields of the config that its shapes say; gains `head_width`.
        hub: what timm knows besides.
        stated: what the user says.
        beside: fields that the config and the architecture's name say; a name means heads of a token's width together.
        defaults: fields that are taken otherwise.

    Raises:
        CheckpointError: as many heads do not share the width of the attention equally.
    """
    width, dim = attention_width(view), int(shapes["embed_dim"])
    if has_things(view):  # several attentions have as many heads together
        heads = _heads((stated, beside, defaults))
        shapes["head_width"] = count_of(view) * dim // heads if heads else 0
    elif width not in (0, dim) and "head_width" not in shapes:
        if "num_heads" not in hub.fields:
            _assume_usual_width(width, dim, beside, defaults)
        heads = _heads((stated, beside, defaults))
        if heads and width % heads:
            raise CheckpointError(
                f"its attention is {width} wide, which {heads} heads do not share equally",
                fix="give its number of heads: --num-heads",
            )
        shapes["head_width"] = width // heads if heads else 0


def _heads(said: Sequence[Mapping[str, Any]]) -> int:
    return next((int(fields["num_heads"]) for fields in said if fields.get("num_heads")), 0)


def _assume_usual_width(width: int, dim: int, beside: Fields, defaults: Fields) -> None:
    """Heads as wide as those that are a token's width together, however many these are by name or by default."""
    usual = _heads((beside, defaults))
    for fields in (beside, defaults):
        fields.pop("num_heads", None)
    if usual and dim % usual == 0 and width % (dim // usual) == 0:
        defaults["num_heads"] = width // (dim // usual)
