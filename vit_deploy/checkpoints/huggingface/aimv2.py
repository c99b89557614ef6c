"""What AIMv2 of transformers has of its own: a pooling without a feed-forward, and positions that are computed."""

from __future__ import annotations

from collections.abc import Container

import numpy as np

from vit_deploy.checkpoints.gathering import Origin, same, transposed, zeros
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import Float32

PATCHES, PATCH_NORM, NORM = "embeddings.patch_embed", "embeddings.rms_norm", "rms_norm"
PROBE = "head.cls_token"
BASE = 10000.0
HEAD_WIDTH = 128  # of every published one


def pool_origins(stored: Container[str], prefix: str, config: ViTConfig) -> dict[str, Origin]:
    """Where the weights of its attention pooling come from; the probe is the query as it is.

    Args:
        stored: the names of the file.
        prefix: what those of the encoder begin with.
        config: whose weights they are.
    """
    dim = config.embed_dim
    table = {
        "map_pool.probe": Origin((prefix + PROBE,), lambda probe: probe.reshape(1, -1)),
        "map_pool.attention.query.kernel": Origin((), lambda: np.eye(dim, dtype=np.float32)),
        "map_pool.attention.query.bias": zeros(dim),
    }
    for role, theirs in (("key", "head.k_proj"), ("value", "head.v_proj"), ("out", "head.output_proj")):
        bias = f"{prefix}{theirs}.bias"
        table[f"map_pool.attention.{role}.kernel"] = transposed(f"{prefix}{theirs}.weight")
        table[f"map_pool.attention.{role}.bias"] = same(bias) if bias in stored or role == "out" else zeros(dim)
    return table


def computed_positions(config: ViTConfig) -> Float32:
    """Sines and cosines of columns, then of rows, `(patches, dim)`, where a file of any size has no table."""
    rows, columns = np.meshgrid(*map(np.arange, config.grid), indexing="ij")
    count = config.embed_dim // 4
    frequencies = BASE ** -(np.arange(count, dtype=np.float64) / count)
    parts = [side.reshape(-1, 1) * frequencies for side in (columns, rows)]
    waves = np.concatenate([wave(part) for part in parts for wave in (np.sin, np.cos)], axis=1)
    table: Float32 = waves.astype(np.float32)
    return table
