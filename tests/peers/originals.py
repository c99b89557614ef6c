"""State dicts in the layouts of the authors' own repositories, and what timm's conversion of them answers.

A model of timm's with random parameters is written under the authors' names, and timm's own `checkpoint_filter_fn`
reads that into a second model, whose answers count: what the names mean is its word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.peers import timm_families

State = dict[str, Any]
DEPTH, CLASSES = 2, 5


@dataclass(frozen=True)
class Original:
    """One model of its authors.

    Args:
        architecture: timm's name of it.
        layout: gives a state dict of timm's in the authors' layout.
        module: of timm, whose filter reads that.
        options: for timm's model.
        depth: blocks that are made.
    """

    architecture: str
    layout: Callable[[State, Sizes], State]
    module: str
    options: Mapping[str, Any] = field(default_factory=dict)
    depth: int = DEPTH


def _under(names: Mapping[str, str], state: State) -> State:
    renamed = {}
    for name, tensor in state.items():
        own = name
        for pattern, replacement in names.items():
            own = re.sub(pattern, replacement, own)
        renamed[own] = tensor
    return renamed


EVA_NAMES = {
    r"\.mlp\.norm\.": ".mlp.ffn_ln.",
    r"\.attn\.norm\.": ".attn.inner_attn_ln.",
    r"\.mlp\.fc1_g\.": ".mlp.w1.",
    r"\.mlp\.fc1_x\.": ".mlp.w2.",
    r"\.mlp\.fc2\.": ".mlp.w3.",
    r"\.attn\.([qv])_proj\.bias$": r".attn.\1_bias",
}


@dataclass(frozen=True)
class Sizes:
    """What buffers are computed of.

    Args:
        grid: patches along (height, width).
        head_dim: width of an attention head.
        index: of the distances of two tokens, in BEiT.
    """

    grid: tuple[int, int]
    head_dim: int
    index: Any = None


def _rotary(sizes: Sizes) -> State:
    """The buffers of EVA-02's authors, by their own formula: rows first, pairs side by side, as on a grid of 16x16."""
    half = sizes.head_dim // 2
    frequencies = 10000.0 ** (-np.arange(0, half, 2) / half)
    rows, columns = (np.repeat(np.arange(side)[:, None] / side * 16 * frequencies, 2, axis=-1) for side in sizes.grid)
    shape = (*sizes.grid, half)
    turned = [np.broadcast_to(rows[:, None], shape), np.broadcast_to(columns, shape)]
    whole = np.concatenate(turned, axis=-1).reshape(-1, 2 * half)
    return {"freqs_cos": np.cos(whole).astype(np.float32), "freqs_sin": np.sin(whole).astype(np.float32)}


def eva_02(state: State, sizes: Sizes) -> State:
    """Of EVA-02, whose small ones pack gate and hidden units, and which share one table of rotary positions."""
    apart = any(".mlp.fc1_g." in name for name in state)
    names = {**EVA_NAMES, **({} if apart else {r"\.mlp\.fc1\.": ".mlp.w12."})}
    buffers = _rotary(sizes)
    shared = {f"{path}.{name}": tensor for name, tensor in buffers.items() for path in ("rope", "blocks.0.attn.rope")}
    return {**_under(names, state), **shared}


def eva_02_pretrained(state: State, sizes: Sizes) -> State:
    """Of the masked pretraining, with a norm behind the tokens and the targets' projection."""
    state = {name: tensor for name, tensor in state.items() if not name.startswith("head.")}
    dim = len(state["fc_norm.weight"])
    shapes = {"mask_token": (1, 1, dim), "lm_head.weight": (7, dim), "lm_head.bias": (7,)}
    more = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    return {**eva_02(_under({r"^fc_norm\.": "norm."}, state), sizes), **more}


def eva_clip(state: State, sizes: Sizes) -> State:
    """Of EVA-CLIP, beside its text tower."""
    of_images = {f"visual.{name}": tensor for name, tensor in eva_02(state, sizes).items()}
    return {**of_images, "logit_scale": np.ones((), np.float32), "text.ln_final.weight": np.ones(4, np.float32)}


def beit(state: State, sizes: Sizes) -> State:
    """Of BEiT, which stores the index of its distances."""
    tables = [name for name in state if name.endswith("relative_position_bias_table")]
    return {**state, **{name.replace("bias_table", "index"): sizes.index for name in tables}}


PE_NAMES = {
    r"^patch_embed\.proj\.": "conv1.",
    r"^cls_token$": "class_embedding",
    r"^pos_embed$": "positional_embedding",
    r"^norm_pre\.": "ln_pre.",
    r"^norm\.": "ln_post.",
    r"^blocks\.": "transformer.resblocks.",
    r"\.norm([12])\.": r".ln_\1.",
    r"\.gamma_([12])$": r".ls_\1.gamma",
    r"\.attn\.qkv\.": ".attn.in_proj_",
    r"(resblocks\.\d+\.attn)\.proj\.": r"\1.out_proj.",
    r"\.mlp\.fc1\.": ".mlp.c_fc.",
    r"\.mlp\.fc2\.": ".mlp.c_proj.",
    r"^attn_pool\.latent$": "attn_pool.probe",
    r"^attn_pool\.proj\.": "attn_pool.attn.out_proj.",
    r"^attn_pool\.norm\.": "attn_pool.layernorm.",
}


def perception_encoder(state: State, sizes: Sizes) -> State:
    """Of Perception Encoder's tower alone."""
    state = dict(state)
    state.pop("head.bias", None)
    made = {}
    for part in ("weight", "bias"):
        if f"attn_pool.q.{part}" in state:
            packed = [state.pop(f"attn_pool.{role}.{part}") for role in ("q", "kv")]
            made[f"attn_pool.attn.in_proj_{part}"] = np.concatenate(packed)
    if "head.weight" in state:
        made["proj"] = state.pop("head.weight").T
    renamed = {**_under(PE_NAMES, state), **made}
    return {
        name: tensor.flatten() if name == "class_embedding" else tensor[0] if name == "positional_embedding" else tensor
        for name, tensor in renamed.items()
    }


def perception_clip(state: State, sizes: Sizes) -> State:
    """Of Perception Encoder's model of images and texts."""
    shapes = {
        "logit_scale": (), "positional_embedding": (8, 12), "ln_final.weight": (12,), "token_embedding.weight": (9, 12),
        "text_projection": (12, 5), "transformer.resblocks.0.attn.in_proj_weight": (36, 12),
    }  # fmt: skip
    texts = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    of_images = perception_encoder(state, sizes)
    return {**{f"visual.{name}": tensor for name, tensor in of_images.items()}, **texts}


def aimv2(state: State, sizes: Sizes) -> State:
    """Of AIMv2's encoder."""
    names = {
        r"^patch_embed\.": "preprocessor.patchifier.",
        r"^pos_embed$": "preprocessor.pos_embed",
        r"^blocks\.": "trunk.blocks.",
        r"^norm\.": "trunk.post_trunk_norm.",
        r"\.norm([12])\.": r".norm_\1.",
        r"\.mlp\.fc1_g\.": ".mlp.fc1.",
        r"\.mlp\.fc1_x\.": ".mlp.fc3.",
    }
    return _under(names, state)


EVA, BEIT, VIT = (f"timm.models.{name}" for name in ("eva", "beit", "vision_transformer"))
SMALL = {"img_size": 112}  # eight patches a side
COUNTED = {**SMALL, "ref_feat_shape": (8, 8)}  # so that timm counts patches as well
ORIGINALS: Mapping[str, Original] = {
    "eva-02 tiny": Original("eva02_tiny_patch14_224", eva_02, EVA, SMALL),
    "eva-02 base": Original("eva02_base_patch14_224", eva_02, EVA, SMALL, depth=1),
    "eva-02 tiny of 336": Original("eva02_tiny_patch14_336", eva_02, EVA, depth=1),
    "eva-02 pretrained": Original("eva02_tiny_patch14_224", eva_02_pretrained, EVA, SMALL),
    "eva-01": Original("eva_giant_patch14_224", lambda state, sizes: state, EVA, SMALL, depth=1),
    "eva-02 clip": Original("eva02_base_patch16_clip_224", eva_clip, EVA, {"img_size": 128}, depth=1),
    "beit": Original("beit_base_patch16_224", beit, BEIT, {"img_size": 128}, depth=1),
    "pe core": Original("vit_pe_core_tiny_patch16_384", perception_encoder, EVA, {**COUNTED, "img_size": 128}),
    "pe core with texts": Original("vit_pe_core_tiny_patch16_384", perception_clip, EVA, {**COUNTED, "img_size": 128}),
    "pe core of no class token": Original(
        "vit_pe_core_gigantic_patch14_448", perception_encoder, EVA, COUNTED, depth=1
    ),
    "pe language": Original("vit_pe_lang_large_patch14_448", perception_encoder, EVA, COUNTED, depth=1),
    "pe spatial": Original("vit_pe_spatial_tiny_patch16_512", perception_encoder, EVA, {**COUNTED, "img_size": 128}),
    "aimv2": Original("aimv2_large_patch14_224", aimv2, VIT, SMALL, depth=1),
}


@dataclass(frozen=True)
class Answered:
    """A state dict of its authors with what timm's conversion of it answers.

    Args:
        state: in their layout.
        images: `(batch, height, width, channels)`.
        answer: of the model that timm reads it into.
    """

    state: State
    images: Any
    answer: Any


def made(name: str) -> Answered:
    """One of `ORIGINALS`, every parameter random."""
    from tests import torchvision_stand_in

    torchvision_stand_in.install()
    import importlib

    import timm
    import torch

    case = ORIGINALS[name]
    pools = "lang" in case.architecture or "spatial" in case.architecture
    tokens = {"num_classes": 0, "global_pool": ""} if pools or name in ("aimv2",) else {}
    classes = 0 if name == "eva-02 pretrained" else CLASSES
    options = {"depth": case.depth, "num_classes": classes, **tokens, **case.options}
    torch.manual_seed(3)
    first, second = (timm.create_model(case.architecture, **options).eval() for _ in range(2))
    for parameter in first.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    if getattr(first, "head", None) is not None and name.startswith("pe") and not tokens:
        first.head.bias.data.zero_()  # which the authors' projection has not
    attention = first.blocks[0].attn
    index = getattr(attention, "relative_position_index", None)
    sizes = Sizes(
        first.patch_embed.grid_size, first.embed_dim // attention.num_heads, None if index is None else index.numpy()
    )
    state = case.layout({name: tensor.numpy() for name, tensor in first.state_dict().items()}, sizes)
    given = {name: torch.tensor(np.ascontiguousarray(tensor)) for name, tensor in state.items()}
    filtered = importlib.import_module(case.module).checkpoint_filter_fn(given, second)
    second.load_state_dict(filtered, strict=True)
    height, width = first.patch_embed.img_size
    images = np.random.default_rng(3).standard_normal((2, height, width, 3)).astype(np.float32)
    return Answered(state, images, timm_families.output(second, images).astype(np.float32))
