"""Perception Encoder as its authors keep it, alone or in its model of images and texts, under timm's names.

Its positions count patches, and its table is resampled bilinearly for images of another size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.remade import Make, Remade
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.preprocess import Interpolation, Preprocess

STEM = re.compile(r"(?P<prefix>(?:.*\.)?)conv1\.weight$")
NAMES: tuple[tuple[str, str], ...] = (
    (r"^conv1\.", "patch_embed.proj."),
    (r"^class_embedding$", "cls_token"),
    (r"^positional_embedding$", "pos_embed"),
    (r"^ln_pre\.", "norm_pre."),
    (r"^ln_post\.", "norm."),
    (r"^proj$", "head.weight"),
    (r"^transformer\.resblocks\.", "blocks."),
    (r"\.ln_([12])\.", r".norm\1."),
    (r"\.ls_([12])\.gamma$", r".ls\1.gamma"),
    (r"\.attn\.in_proj_(?=weight$|bias$)", ".attn.qkv."),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^attn_pool\.attn\.(?:proj|out_proj)\.", "attn_pool.proj."),
    (r"^attn_pool\.probe$", "attn_pool.latent"),
    (r"^attn_pool\.layernorm\.", "attn_pool.norm."),
)
PACKED = re.compile(r"^attn_pool\.attn\.(?:in_proj_|qkv\.)(weight|bias)$")  # of the pooling: query, key and value
ROTARY = re.compile(r"(^|\.)rope\.")  # follows from the grid
WITHOUT_POOLING: Mapping[str, Any] = {"global_pool": ""}  # PE-Lang and PE-Spatial give their tokens
OWN: Mapping[str, Any] = {"ref_feat_shape": None}
FAMILY = "pe"


@dataclass(frozen=True)
class PerceptionEncoder(Remade):
    """A `TensorFile` of a Perception Encoder under timm's names."""

    @property
    def pools(self) -> bool:
        """Whether it pools by attention."""
        return "attn_pool.latent" in self.stored

    @property
    def arguments(self) -> Mapping[str, Any]:
        """What it is made with beside the arguments of timm's architecture."""
        return OWN if self.pools else {**OWN, **WITHOUT_POOLING}


def prefix_of(names: Iterable[str]) -> str | None:
    """What the names of a Perception Encoder begin with; None where there is none.

    It shares its names with OpenAI's CLIP, which always has a norm behind its blocks and never a probe.
    """
    stored = frozenset(names)
    for prefix in sorted((found["prefix"] for name in stored if (found := STEM.match(name))), key=len):
        blocks = f"{prefix}transformer.resblocks.0.attn.in_proj_weight" in stored
        pooled = f"{prefix}attn_pool.probe" in stored
        ends = any(f"{prefix}{part}" in stored for part in ("ln_post.weight", "proj", "attn_pool.query"))
        if blocks and f"{prefix}ln_pre.weight" in stored and (pooled or not ends):
            return prefix
    return None


def perception_encoder(file: TensorFile) -> PerceptionEncoder | None:
    """The file under timm's names, where it is a Perception Encoder's of its authors."""
    names = list(file.names())
    prefix = prefix_of(names)
    if prefix is None:
        return None
    stored: dict[str, str] = {}
    made: dict[str, Make] = {
        "cls_token": lambda token: token.reshape(1, 1, -1),
        "pos_embed": lambda table: table[None],
        "head.weight": lambda projection: projection.T,
    }
    for name in names:
        own = name.removeprefix(prefix)
        if ROTARY.search(own):
            continue
        if not name.startswith(prefix):
            stored[name] = name
        elif packed := PACKED.match(own):
            for part, rows in (("q", (0, 1)), ("kv", (1, 3))):
                stored[f"attn_pool.{part}.{packed[1]}"] = name
                made[f"attn_pool.{part}.{packed[1]}"] = _thirds(*rows)
        else:
            stored[_renamed(own)] = name
    return PerceptionEncoder(file, stored, {name: make for name, make in made.items() if name in stored})


def _renamed(name: str) -> str:
    for pattern, replacement in NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _thirds(first: int, last: int) -> Make:
    return lambda packed: packed[first * len(packed) // 3 : last * len(packed) // 3]


def preprocess_of(config: ViTConfig) -> Preprocess:
    """The authors' own: stretched bilinearly, and scaled to -1..1."""
    return Preprocess((0.5,) * config.channels, (0.5,) * config.channels, None, False, Interpolation.BILINEAR)
