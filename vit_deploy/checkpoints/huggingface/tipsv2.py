"""The names that files of TIPS v2 have on the hub, in those that transformers has for the same parts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.checkpoints.timm.names import Renamed

MODEL_TYPES = ("tipsv2", "tipsv2_vision_model")
STEM = re.compile(r"(?P<prefix>(?:vision_encoder\.)?)patch_embed\.proj\.weight")
NAMES: Mapping[str, str] = {
    r"^patch_embed\.proj\.": "embeddings.patch_embeddings.projection.",
    r"^(cls_token|mask_token|register_tokens)$": r"embeddings.\1",
    r"^pos_embed$": "embeddings.position_embeddings",
    r"^norm\.": "layernorm.",
    r"^blocks\.": "encoder.layer.",
    r"\.attn\.qkv\.": ".self_attn.qkv.",
    r"\.attn\.proj\.": ".attention.o_proj.",
    r"\.ls([12])\.gamma$": r".layer_scale\1.lambda1",
    r"\.mlp\.c_fc\.": ".mlp.fc1.",
    r"\.mlp\.c_proj\.": ".mlp.fc2.",
    r"\.mlp\.w12\.": ".mlp.weights_in.",
    r"\.mlp\.w3\.": ".mlp.weights_out.",
}


def in_transformers_names(file: TensorFile) -> TensorFile:
    """The file under transformers' names, where it is of TIPS v2 under its own; the one given where it is not."""
    prefixes = [found["prefix"] for name in file.names() if (found := STEM.fullmatch(name))]
    if not prefixes:
        return file
    document = file.documents.get("config.json")
    if not isinstance(document, Mapping) or document.get("model_type") not in MODEL_TYPES:
        return file
    return Renamed(file, {_renamed(name, prefixes[0]): name for name in file.names()})


def _renamed(name: str, prefix: str) -> str:
    if not name.startswith(prefix):
        return name
    own = name.removeprefix(prefix)
    for pattern, replacement in NAMES.items():
        own = re.sub(pattern, replacement, own)
    return prefix + own
