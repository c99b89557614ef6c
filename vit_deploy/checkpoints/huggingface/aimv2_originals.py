"""AIMv2 as its authors keep it, alone, in its model of images and texts, or on their hub, under transformers' names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_deploy.checkpoints.remade import Make, Remade
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.checkpoints.timm.named import Documents
from vit_deploy.errors import CheckpointError

STEM = re.compile(r"(?P<prefix>(?:.*\.)?)preprocessor\.patchifier\.proj\.weight")
CONFIG, MODEL_TYPE, TOWER = "config.json", "aimv2", "aimv2_vision_model"
NAMES: Mapping[str, str] = {
    r"^preprocessor\.patchifier\.proj\.": "embeddings.patch_embed.",
    r"^preprocessor\.patchifier\.norm\.": "embeddings.rms_norm.",
    r"^preprocessor\.pos_embed$": "embeddings.position_embedding.weight",
    r"^trunk\.post_trunk_norm\.": "rms_norm.",
    r"^trunk\.blocks\.": "encoder.layers.",
    r"\.norm_([12])\.": r".rms_norm\1.",
    r"\.attn\.proj\.": ".attention.out_proj.",
    r"\.mlp\.fc1\.": ".ffn.gate_proj.",
    r"\.mlp\.fc3\.": ".ffn.up_proj.",
    r"\.mlp\.fc2\.": ".ffn.down_proj.",
    r"^head\.([kv])\.": r"head.\1_proj.",
    r"^head\.linear\.": "head.output_proj.",
}
PACKED = re.compile(r"^trunk\.blocks\.(\d+)\.attn\.qkv\.(weight|bias)$")
PROJECTION = "image_projector."  # of the model of images and texts
TEXTS = ("text_encoder.", "text_projector.", "log_logit_scale")
QUERIES = "head.cls_token"


@dataclass(frozen=True)
class OfAuthors(Remade):
    """A `TensorFile` of AIMv2's authors under transformers' names."""

    @property
    def documents(self) -> Mapping[str, Any]:
        """Of the file, a config.json of the authors as transformers has it."""
        found = self.file.documents.get(CONFIG)
        if not isinstance(found, Mapping) or found.get("model_type") != MODEL_TYPE or "vision_config" in found:
            return self.file.documents
        return Documents(self.file.documents, CONFIG, {**found, "model_type": TOWER})


def as_transformers_keeps_it(file: TensorFile) -> TensorFile:
    """The file under transformers' names, where it is of AIMv2's authors; the one given where it is not.

    Raises:
        CheckpointError: its pooling has several queries, or a norm over the batch.
    """
    prefixes = [found["prefix"] for name in file.names() if (found := STEM.fullmatch(name))]
    if not prefixes:
        return file
    prefix = min(prefixes, key=len)
    _check_head(file, prefix)
    stored: dict[str, str] = {}
    made: dict[str, Make] = {}
    for name in file.names():
        if name.startswith(TEXTS):
            continue
        own = name.removeprefix(prefix)
        if name.startswith(PROJECTION):
            stored[name.replace(PROJECTION, "visual_projection.")] = name
        elif not name.startswith(prefix):
            stored[name] = name
        elif packed := PACKED.match(own):
            for number, role in enumerate("qkv"):
                here = f"encoder.layers.{packed[1]}.attention.{role}_proj.{packed[2]}"
                stored[here], made[here] = name, _third(number)
        else:
            stored[_renamed(own)] = name
    if (table := "embeddings.position_embedding.weight") in stored:
        made[table] = _only
    return OfAuthors(file, stored, made)


def _check_head(file: TensorFile, prefix: str) -> None:
    found = [*_problems(file, prefix)]
    if found:
        raise CheckpointError(
            f"it is an AIMv2 that has {'; '.join(found)}, which no ViT here computes",
            fix="take it without its head: --ignore 'head.*'",
        )


def _problems(file: TensorFile, prefix: str) -> Iterator[str]:
    names = set(file.names())
    queries = prefix + QUERIES
    if queries in names and np.prod(file.shape(queries)[:-1]) != 1:
        yield f"a pooling of several queries ({queries} {file.shape(queries)})"
    if any(name.startswith(f"{prefix}head.bn.") for name in names):
        yield f"a norm over the batch ({prefix}head.bn)"


def _renamed(name: str) -> str:
    for pattern, replacement in NAMES.items():
        name = re.sub(pattern, replacement, name)
    return name


def _third(number: int) -> Make:
    return lambda packed: np.split(packed, 3)[number]


def _only(table: Any) -> Any:
    return table[0] if table.ndim == 3 and len(table) == 1 else table
