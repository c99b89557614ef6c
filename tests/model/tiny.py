"""Arguments of a ViT that is small in every way, with no two sizes alike."""

from __future__ import annotations

from typing import Any

TINY: dict[str, Any] = {
    "input_shape": (24, 32, 3),
    "patch_size": (8, 4),
    "num_classes": 5,
    "embed_dim": 12,
    "num_heads": 3,
    "num_layers": 2,
    "mlp_dim": 20,
}
