"""The ViT of jeonsworld/ViT-pytorch, as its training saves it."""

from __future__ import annotations

import re

from vit_deploy.checkpoints.renamed.source import Dialect, RenamedSource

DIALECT = Dialect(
    name="jeonsworld/ViT-pytorch",
    mark=re.compile(r"(?P<prefix>(?:.*\.)?)transformer\.embeddings\.patch_embeddings\.weight$"),
    names=(
        (r"^transformer\.embeddings\.patch_embeddings\.", "patch_embed."),
        (r"^transformer\.embeddings\.position_embeddings$", "pos_embed"),
        (r"^transformer\.embeddings\.cls_token$", "cls_token"),
        (r"^transformer\.encoder\.layer\.(\d+)\.", r"blocks.\1."),
        (r"^transformer\.encoder\.encoder_norm\.", "norm."),
        (r"\.attention_norm\.", ".norm1."),
        (r"\.ffn_norm\.", ".norm2."),
        (r"\.attn\.", ".attention."),
        (r"\.ffn\.fc1\.", ".ffn.up."),
        (r"\.ffn\.fc2\.", ".ffn.down."),
    ),
    heads=re.compile(r"(^|\.)head\.(weight|bias)$"),
    epsilon=1e-6,
    num_heads={1280: 16},
    refused={r"(^|\.)hybrid_model\.": "a convolutional network for its stem"},
)


def jeonsworld() -> RenamedSource:
    """The source."""
    return RenamedSource(DIALECT)
