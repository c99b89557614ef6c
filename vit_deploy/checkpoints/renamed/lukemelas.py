"""The ViT of lukemelas/PyTorch-Pretrained-ViT, the package `pytorch_pretrained_vit`."""

from __future__ import annotations

import re

from vit_deploy.checkpoints.renamed.source import Dialect, RenamedSource

DIALECT = Dialect(
    name="pytorch_pretrained_vit",
    mark=re.compile(r"(?P<prefix>(?:.*\.)?)patch_embedding\.weight$"),
    names=(
        (r"^patch_embedding\.", "patch_embed."),
        (r"^class_token$", "cls_token"),
        (r"^positional_embedding\.pos_embedding$", "pos_embed"),
        (r"^transformer\.blocks\.", "blocks."),
        (r"\.attn\.proj_q\.", ".attention.query."),
        (r"\.attn\.proj_k\.", ".attention.key."),
        (r"\.attn\.proj_v\.", ".attention.value."),
        (r"^(blocks\.\d+)\.proj\.", r"\1.attention.out."),
        (r"\.pwff\.fc1\.", ".ffn.up."),
        (r"\.pwff\.fc2\.", ".ffn.down."),
        (r"^fc\.", "head."),
    ),
    beside=("positional_embedding.pos_embedding",),
    heads=re.compile(r"(^|\.)fc\.(weight|bias)$"),
    epsilon=1e-6,
    refused={r"^pre_logits\.": "a dense layer with tanh before its last norm"},
    fix="give the model that load_repr_layer=False makes",
)


def lukemelas() -> RenamedSource:
    """The source."""
    return RenamedSource(DIALECT)
