"""The census of state dicts as the authors of EVA, BEiT, Perception Encoder and AIMv2 keep them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tests.peers import huggingface_models, originals
from tests.peers.census import Made, Row
from tests.peers.huggingface_models import SQUARE, TEXT, WIDE

SOURCE = "originals of EVA, EVA-02, EVA-CLIP, BEiT, Perception Encoder, AIMv2"
NEEDS = ("torch", "timm")
AIMV2_NAMES: Mapping[str, str] = {
    r"^visual_projection\.": "image_projector.",
    r"^vision_model\.": "image_encoder.",
    r"embeddings\.patch_embed\.": "preprocessor.patchifier.proj.",
    r"embeddings\.rms_norm\.": "preprocessor.patchifier.norm.",
    r"embeddings\.position_embedding\.weight$": "preprocessor.pos_embed",
    r"encoder\.layers\.": "trunk.blocks.",
    r"\.rms_norm([12])\.": r".norm_\1.",
    r"\.attention\.out_proj\.": ".attn.proj.",
    r"\.ffn\.gate_proj\.": ".mlp.fc1.",
    r"\.ffn\.up_proj\.": ".mlp.fc3.",
    r"\.ffn\.down_proj\.": ".mlp.fc2.",
    r"^image_encoder\.rms_norm\.": "image_encoder.trunk.post_trunk_norm.",
    r"\.head\.([kv])_proj\.": r".head.\1.",
    r"\.head\.output_proj\.": ".head.linear.",
}


def _saved(state: Mapping[str, Any], path: Path) -> Path:
    import torch

    torch.save({name: torch.tensor(np.ascontiguousarray(tensor)) for name, tensor in state.items()}, path)
    return path


def _of_timm(name: str, folder: Path) -> Made:
    made = originals.made(name)
    return Made(_saved(made.state, folder / "model.pt"), made.images, made.answer)


def _aimv2_with_texts(folder: Path) -> Made:
    """AIMv2's model of images and texts, by what transformers makes of it."""
    import torch

    library = huggingface_models.library()
    config = library.Aimv2Config(vision_config={**WIDE, **SQUARE}, text_config=TEXT, projection_dim=7)
    torch.manual_seed(1)
    model = library.Aimv2Model(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    images = np.random.default_rng(3).standard_normal((2, 16, 16, 3)).astype(np.float32)
    with torch.no_grad():
        pooled = model.vision_model(torch.tensor(images).permute(0, 3, 1, 2)).pooler_output
        answer = model.visual_projection(pooled).numpy()
    state: dict[str, Any] = {"log_logit_scale": np.zeros((), np.float32)}
    packed: dict[str, list[Any]] = {}
    for name, tensor in model.state_dict().items():
        own = name
        for pattern, replacement in AIMV2_NAMES.items():
            own = re.sub(pattern, replacement, own)
        if found := re.match(r"(image_encoder\.trunk\.blocks\.\d+)\.attention\.[qkv]_proj\.(\w+)", own):
            packed.setdefault(f"{found[1]}.attn.qkv.{found[2]}", []).append((own, tensor.numpy()))
        elif own.endswith("pos_embed"):
            state[own] = tensor.numpy()[None]
        elif own.startswith("image_"):
            state[own] = tensor.numpy()
        elif not own.endswith("position_ids"):
            state[f"text_encoder.{own}"] = tensor.numpy()
    order = "qkv"
    for name, parts in packed.items():
        ordered = sorted(parts, key=lambda part: order.index(part[0].split(".attention.")[1][0]))
        state[name] = np.concatenate([tensor for _, tensor in ordered])
    return Made(_saved(state, folder / "model.pt"), images, answer, {"num_heads": 3})


def rows() -> Iterator[Row]:
    """All of them."""
    for name in originals.ORIGINALS:
        how = "torch.save of timm's weights by the authors' names, read by timm's checkpoint_filter_fn"
        yield Row(SOURCE, name, how, partial(_of_timm, name), needs=NEEDS, slow=True)
    yield Row(SOURCE, "aimv2 with texts", "transformers' weights by the authors' names", _aimv2_with_texts,
              needs=("torch", "transformers"), slow=True)  # fmt: skip
