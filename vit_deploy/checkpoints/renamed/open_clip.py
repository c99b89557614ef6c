"""The vision tower of OpenAI's CLIP and of OpenCLIP's own ViT: whole models, training files, the tower alone."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

from vit_deploy.checkpoints.documents import explained
from vit_deploy.checkpoints.renamed import coca
from vit_deploy.checkpoints.renamed.names import HEAD_SCALE, Common, Known
from vit_deploy.checkpoints.renamed.source import Dialect, RenamedSource
from vit_deploy.checkpoints.source import Stated
from vit_deploy.core.choices import Activation, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.preprocess import Interpolation, Preprocess

DOCUMENT = "open_clip_config.json"
EPSILON = 1e-5
IMAGES = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))  # Radford et al. 2021
SIXTEEN_HEADS = dict.fromkeys((1280, 1408, 1664, 1792), 16)
OPENAI_ENTRIES = ("input_resolution", "context_length", "vocab_size")  # of OpenAI's TorchScript files alone
TEXT = (
    r"^(transformer\.|token_embedding\.|positional_embedding$|ln_final\.|text_projection|logit_(scale|bias)$|attn_mask$"
    r"|text\.|text_decoder\.)"
)
# What these options of the blocks of a tower compute, none of which is computed here.
BLOCK_OPTIONS: Mapping[str, str] = {
    "scaled_cosine_attn": "cosine attention",
    "scale_attn": "a norm behind the attention",
}
# What these options of its custom blocks are here.
BLOCK_FIELDS: Mapping[str, str] = {"qk_norm": "qk_norm", "scale_attn_inner": "attention_norm", "scale_fc": "ffn_norm"}
# What these options of a vision tower compute, none of which a ViT here does.
OPTIONS: Mapping[str, str] = {
    **BLOCK_OPTIONS,
    "act_kwargs": "an activation with options",
}


def _known(view: Common, stated: Stated) -> Known:
    """What the config beside it says; without one, OpenAI's own files are told by what they hold besides weights."""
    found = view.documents.get(DOCUMENT)
    model = found.get("model_cfg") if isinstance(found, Mapping) else None
    if found is None or not isinstance(model, Mapping) or not isinstance(model.get("vision_cfg"), Mapping):
        openai = any(name in view.stored for name in OPENAI_ENTRIES)
        known = Known(fixed={"activation": Activation.QUICK_GELU} if openai else {})
        return _attending(view, known, {}) if coca.pools(view) else known
    with explained(DOCUMENT):
        vision = model["vision_cfg"]
        refused = [what for option, what in OPTIONS.items() if vision.get(option)]
        heads = vision["width"] // vision.get("head_width", 64)
        epsilon = (vision.get("norm_kwargs") or {}).get("eps", EPSILON)
        mean = vision.get("pool_type", "tok") == "avg"
        if vision.get("pool_type", "tok") == "none":
            refused.append("every token projected")
        refused += coca.problems(view, vision, mean=mean)
        fixed = {
            "num_heads": heads,
            "epsilon": epsilon,
            "activation": Activation.QUICK_GELU if model.get("quick_gelu") else Activation.GELU,
            **({} if "pooling" in stated else {"pooling": Pooling.MEAN if mean else Pooling.CLS}),
            "norm_after_pooling": bool(mean and vision.get("final_ln_after_pool")),
            **{field: asks_for(vision, option) for option, field in BLOCK_FIELDS.items()},
        }
        if asks_for(vision, "scale_heads") and not view.has(HEAD_SCALE):
            refused.append("a scale of every attention head, of which it has no weights")
        sizes = [as_pair(vision["image_size"], "image_size")] if vision.get("image_size") else []
        said = dict(found.get("preprocess_cfg") or {})
        known = Known(fixed=fixed, sizes=sizes, refused=refused, preprocess=partial(recorded, said))
        return _attending(view, known, vision) if coca.pools(view) else known


def asks_for(tower: Mapping[str, Any], option: str) -> bool:
    """Whether the config of a tower has an option of custom blocks on; default blocks leave it unread."""
    return bool(tower.get(option)) and tower.get("block_type") != "default"


def _attending(view: Common, known: Known, vision: Mapping[str, Any]) -> Known:
    """With the attention pooling of CoCa."""
    heads = {"pool_heads": coca.heads_of(vision)}
    embed_dim, *_ = view.common_shape("patch_embed.weight", 4)
    of_pooling = coca.fields(view, embed_dim)
    return dataclasses.replace(
        known,
        fixed={**known.fixed, **of_pooling, **(heads if vision else {})},
        defaults={} if vision else heads,
        origins=coca.origins(view, known.fixed.get("epsilon", EPSILON)),
    )


def recorded(said: Mapping[str, Any], config: ViTConfig) -> Preprocess:
    """The preprocessing that an `open_clip_config.json` says, or OpenCLIP's own where it is silent.

    Raises:
        CheckpointError: a way of resizing that no preprocessing here has.
    """
    with explained(f"the preprocess_cfg of {DOCUMENT}"):
        mean, std = (tuple(said.get(name) or usual) for name, usual in zip(("mean", "std"), IMAGES, strict=True))
        filter = Interpolation(said.get("interpolation") or "bicubic")
        mode = said.get("resize_mode") or "shortest"
        if mode == "squash":
            return Preprocess(mean, std, None, False, filter)
        if mode != "shortest":
            raise ValueError(f"resize_mode is {mode!r}; expected shortest or squash")
        return _shortest(config, mean, std, filter)


def _shortest(config: ViTConfig, mean: Any, std: Any, filter: Interpolation) -> Preprocess:
    height, width = config.image_size
    if height == width:
        return Preprocess(mean, std, height, True, filter)
    return Preprocess(mean, std, (height, width), True, filter, keep_aspect=True)


def usual(config: ViTConfig) -> Preprocess:
    """The preprocessing of OpenAI's models, which many others share."""
    return _shortest(config, *IMAGES, Interpolation.BICUBIC)


DIALECT = Dialect(
    name="OpenCLIP",
    mark=re.compile(r"(?P<prefix>(?:.*\.)?)conv1\.weight$"),
    names=(
        (r"^conv1\.", "patch_embed."),
        (r"^class_embedding$", "cls_token"),
        (r"^positional_embedding$", "pos_embed"),
        (r"^ln_pre\.", "pre_norm."),
        (r"^ln_post\.", "norm."),
        (r"^proj$", "projection"),
        (r"^transformer\.resblocks\.", "blocks."),
        (r"\.ln_([12])\.", r".norm\1."),
        (r"\.attn\.in_proj_(?=weight$|bias$)", ".attention.packed."),
        (r"\.attn\.out_proj\.", ".attention.out."),
        (r"\.attn\.ln_q\.", ".attention.query_norm."),
        (r"\.attn\.ln_k\.", ".attention.key_norm."),
        (r"\.attn\.ln_inner\.", ".attention.norm."),
        (r"\.attn\.head_scale$", ".attention.head_scale"),
        (r"\.mlp\.ln\.", ".ffn.norm."),
        (r"\.mlp\.c_fc\.", ".ffn.up."),
        (r"\.mlp\.c_proj\.", ".ffn.down."),
        (r"\.ls_([12])\.gamma$", r".scale\1"),
    ),
    beside=("class_embedding", "attnpool.positional_embedding"),
    heads=re.compile(r"(^|\.)visual\.proj$|^proj$"),
    epsilon=EPSILON,
    num_heads=SIXTEEN_HEADS,
    preprocess=usual,
    left_out={TEXT: "text tower", rf"^({'|'.join(OPENAI_ENTRIES)})$": "sizes"},
    refused={
        r"\.attn\.logit_scale$": BLOCK_OPTIONS["scaled_cosine_attn"],
        r"\.ln_attn\.": BLOCK_OPTIONS["scale_attn"],
        r"^layer\d\.|^conv2\.|^attnpool\.": "a ResNet for its vision tower",
        r"^attn_pool_contrastive\.": coca.OF_TWO,
    },
    fix="give a CLIP model whose vision tower is a plain ViT",
    known=_known,
    biasless=("patch_embed",),
)


def open_clip() -> RenamedSource:
    """The source."""
    return RenamedSource(DIALECT)
