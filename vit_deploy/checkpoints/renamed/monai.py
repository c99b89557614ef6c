"""MONAI's `ViT` of two spatial dimensions, with convolution or perceptron patches."""

from __future__ import annotations

import math
import re

import numpy as np

from vit_deploy.checkpoints.gathering import Origin, zeros
from vit_deploy.checkpoints.renamed.names import Common, Known
from vit_deploy.checkpoints.renamed.source import Dialect, RenamedSource
from vit_deploy.checkpoints.source import Stated
from vit_deploy.core.choices import Pooling
from vit_deploy.core.config_checks import as_pair
from vit_deploy.errors import CheckpointError

STEM = "patch_embed.weight"
BOUNDED = "bounded_head.weight"  # of a head that ends in tanh, as MONAI's does unless told otherwise


def _known(view: Common, stated: Stated) -> Known:
    """A head with tanh is a dense layer with tanh before a head that changes nothing."""
    if view.has(STEM) and len(view.shape(STEM)) == 5:
        return Known(refused=["patches of volumes"], fix="give a ViT with spatial_dims=2")
    headless = not (view.has(BOUNDED) or view.has("head.weight"))
    # Without its head it gives every token.
    fixed = {"pooling": None} if headless and "pooling" not in stated else {}
    if view.has("head.weight") or not view.has(BOUNDED):
        return Known(fixed=fixed)
    classes = view.common_shape(BOUNDED, 2)[0]
    return Known(
        shapes={"include_top": True, "num_classes": classes, "pre_logits_dim": classes},
        fixed={"pooling": Pooling.CLS},
        origins={
            "pre_logits.kernel": Origin((BOUNDED,), lambda weight: weight.T),
            "pre_logits.bias": Origin(("bounded_head.bias",), lambda bias: bias),
            "head.kernel": Origin((), lambda: np.eye(classes, dtype=np.float32)),
            "head.bias": zeros(classes),
        },
    )


def _flattened(view: Common, stated: Stated) -> tuple[int, int] | None:
    """The patch of a perceptron's stem: what is stated, else a square of one or three channels."""
    if not view.has(STEM) or len(view.shape(STEM)) != 2:
        return None
    return patch_of(view.shape(STEM)[1], stated)


def patch_of(pixels: int, stated: Stated) -> tuple[int, int]:
    """(height, width) of a patch that has so many numbers.

    Raises:
        CheckpointError: nobody says it, and it is no square of three or of one channels.
    """
    if "patch_size" in stated:
        return as_pair(stated["patch_size"], "patch_size")
    channels = [int(stated["channels"])] if "channels" in stated else [3, 1]
    for count in channels:
        side = math.isqrt(pixels // count)
        if side * side * count == pixels:
            return (side, side)
    raise CheckpointError(
        f"its patches have {pixels} numbers, which make no square of {' or '.join(map(str, channels))} channels",
        fix="give the patch: --config with patch_size [height, width]",
    )


DIALECT = Dialect(
    name="MONAI",
    mark=re.compile(r"(?P<prefix>(?:.*\.)?)patch_embedding\.patch_embeddings\.(?:\d\.)?weight$"),
    names=(
        (r"^patch_embedding\.patch_embeddings\.(?:1\.)?(?=weight$|bias$)", "patch_embed."),
        (r"^patch_embedding\.position_embeddings$", "pos_embed"),
        (r"^patch_embedding\.cls_token$", "cls_token"),
        (r"\.attn\.qkv\.", ".attention.packed."),
        (r"\.attn\.to_([qkv])\.", r".attention.to_\1."),
        (r"\.attention\.to_q\.", ".attention.query."),
        (r"\.attention\.to_k\.", ".attention.key."),
        (r"\.attention\.to_v\.", ".attention.value."),
        (r"\.attn\.out_proj\.", ".attention.out."),
        (r"\.mlp\.linear1\.", ".ffn.up."),
        (r"\.mlp\.linear2\.", ".ffn.down."),
        (r"^classification_head\.0\.", "bounded_head."),
        (r"^classification_head\.", "head."),
    ),
    heads=re.compile(r"(^|\.)classification_head\."),
    epsilon=1e-5,
    left_out={r"\.(norm_cross_attn|cross_attn)\.": "cross attention"},
    refused={r"rel_pos": "relative positions"},
    known=_known,
    placed=False,
    flattened=_flattened,
)


def monai() -> RenamedSource:
    """The source."""
    return RenamedSource(DIALECT)
