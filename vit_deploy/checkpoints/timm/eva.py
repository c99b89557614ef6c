"""Models of timm's class Eva, and DINOv3 as Meta keeps it, read: EVA-02, Perception Encoder, RoPE-ViT and others.

What they compute is in the arguments that their architecture is made with, more than in their weights: rotary positions
leave none. Pairs of features that are turned together stand side by side in all but DINOv3; queries and keys are read
in the order of `vit_deploy.core.rotary`.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from vit_deploy.checkpoints.gathering import gather
from vit_deploy.checkpoints.heads import label_problems
from vit_deploy.checkpoints.importing import Facts, image_size_of, imported, settle, without_rest
from vit_deploy.checkpoints.renamed.open_clip import IMAGES
from vit_deploy.checkpoints.source import Stated, TensorFile
from vit_deploy.checkpoints.timm.architectures import unsupported
from vit_deploy.checkpoints.timm.config import (
    ASSUMED_PIXELS,
    POOLINGS,
    SHOWN_BY_WEIGHTS,
    WITHOUT_EFFECT,
    data_of,
    labels_of,
    preprocess_of,
)
from vit_deploy.checkpoints.timm.eva_function import PERIODS, Arguments, Found, defaults, hidden_width
from vit_deploy.checkpoints.timm.eva_weights import origins_of
from vit_deploy.checkpoints.timm.names import PATCHES, TEXT, Renamed
from vit_deploy.checkpoints.timm.perception_encoder import PerceptionEncoder
from vit_deploy.checkpoints.timm.shapes import depth_of
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, FFNType, LayerScalePart, NormalizationPosition, NormalizationType
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.resize import resized_preprocess
from vit_deploy.core.rotary import Rotary, RotaryConvention
from vit_deploy.core.rotary_angles import angles

NORMS = {"LayerNorm": NormalizationType.LAYER_NORM, "RmsNorm": NormalizationType.RMS_NORM}
OF_TRAINING = ("mask_token", "local_cls_norm.", "projectors.", "lm_head.")
OF_ROTARY = re.compile(r"(^|\.)rope\.freqs_(cos|sin)$")  # buffers of EVA-02's authors
ROUNDED = 4e-3  # how far a cosine of 16 bits may be from the one it was
MORE_WITHOUT_EFFECT = frozenset(
    {"rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords", "head_init_scale", "depth", "qkv_fused"}
)


def read_eva(file: TensorFile, view: Renamed, found: Found, stated: Stated) -> Checkpoint:
    """The checkpoint of a file that `find_eva` knows.

    Raises:
        CheckpointError: it computes what no config here can say, or is damaged.
    """
    arguments, document = found.arguments, found.document
    _check_supported(str(document.get("architecture") or "it"), arguments, view)
    shapes = _shapes(view, arguments)
    rows = view.common_shape("pos_embed", 3)[1] if "pos_embed" in view.kinds else None
    prefix = shapes["class_token"] + shapes["register_tokens"]
    own_rows = 0 if arguments["no_embed_class"] else prefix
    data = data_of(document)
    if not document and found.name.startswith("eva"):
        data = {"mean": IMAGES[0], "std": IMAGES[1], "crop_pct": 1.0}  # of all of them
    said = stated.get("image_size")
    sizes = [said] if said else [arguments["img_size"]]
    if rows is None:
        size = without_rest(as_pair(sizes[0], "image_size"), shapes["patch_size"])
    else:
        size = image_size_of(rows - own_rows, shapes["patch_size"], sizes)
    beside = {
        "epsilon": float(arguments["norm_layer"][1]),
        "num_heads": arguments["num_heads"],
        "pooling": POOLINGS[arguments["global_pool"]],
        "activation": Activation.GELU,
        "rotary": _rotary(arguments, found),
        "pool_heads": (arguments["attn_pool_num_heads"] or 0) if arguments["global_pool"] == "map" else 0,
    }
    if arguments["use_post_norm"]:
        beside["normalization_position"] = NormalizationPosition.RES_POST
    if not document:  # a name alone, which the user may know better
        beside = {name: value for name, value in beside.items() if name not in stated}
    if rows is not None or said or document:  # else it is the usual one of the architecture
        shapes["image_size"] = size
    facts = Facts(shapes, beside, {} if "image_size" in shapes else {"image_size": size})
    settled = settle(facts, {**stated, "image_size": list(size)} if said else stated)
    config = settled.config
    labels = labels_of(document, data)
    problems = [*settled.problems]
    if config.include_top:
        problems += label_problems(labels, config.num_classes)
    _check_rotary(view, config)
    others = [name for name in view.names() if TEXT.match(name)]
    ignored = {*others, *(name for name in view.names() if name.startswith(OF_TRAINING) or _is_buffer(name))}
    origins = origins_of(view, config, arguments, own_rows)
    weights = gather(view, origins, config, ignored=ignored, found=problems)
    left_out: dict[str, Any] = {"left_out": ["text tower"]} if others else {}
    if found.preprocess is not None:
        made = resized_preprocess(found.preprocess(config), config.image_size, size)
        return imported(
            settled,
            weights,
            family=found.family,
            preprocess=made,
            preprocess_assumed=isinstance(view, PerceptionEncoder),
            supposed=found.supposed,
            **{"left_out": [], **left_out},
        )
    preprocess = preprocess_of(data, size, config.channels)
    return imported(
        settled,
        weights,
        family=found.family,
        preprocess=preprocess,
        preprocess_assumed=not document or bool(data.get(ASSUMED_PIXELS)),
        supposed=found.supposed,
        labels=labels,
        **left_out,
    )


def _is_buffer(name: str) -> bool:
    return name == PERIODS or name.endswith((".bias_mask", ".k_bias")) or bool(OF_ROTARY.search(name))


def _check_rotary(view: Renamed, config: ViTConfig) -> None:
    """Refuse rotary positions that are stored as cosines and sines and are not those of the architecture.

    Raises:
        CheckpointError: they are others, or there are to be none.
    """
    for name in filter(OF_ROTARY.search, view.names()):
        found = view.read(name)
        if config.rotary is not None:
            turned = angles(config)[config.num_prefix_tokens :]
            expected = np.repeat(np.cos(turned) if name.endswith("cos") else np.sin(turned), 2, axis=-1)
            if found.shape == expected.shape and np.abs(found - expected).max() <= ROUNDED:
                continue
        raise unsupported("it", [f"rotary positions that are not those of the architecture ({name})"])


def as_tuned(view: Renamed) -> Renamed:
    """A pretrained EVA with its last norm behind the mean, where timm puts it, and its tuned models have it."""
    kinds = view.kinds
    pretrained = {"mask_token", "lm_head.weight", "norm.weight"} <= set(kinds) and "fc_norm.weight" not in kinds
    eva = "blocks.*.attn.q_bias" in kinds and not any("relative_position" in kind for kind in kinds)
    if not (pretrained and eva):
        return view
    moved = {"norm.weight": "fc_norm.weight", "norm.bias": "fc_norm.bias"}
    return Renamed(view.file, {moved.get(name, name): stored for name, stored in view.stored.items()})


def _check_supported(name: str, arguments: Arguments, view: Renamed) -> None:
    known = {*defaults(), *SHOWN_BY_WEIGHTS, *WITHOUT_EFFECT, *MORE_WITHOUT_EFFECT}
    problems = [f"the argument {argument}" for argument in arguments if argument not in known]
    if arguments["norm_layer"][0] not in NORMS:
        problems.append(f"the norm {arguments['norm_layer'][0]}")
    if arguments["global_pool"] not in POOLINGS:
        problems.append(f"the pooling {arguments['global_pool']}")
    if "blocks.*.attn.gate.weight" in view.kinds:
        problems.append("gated attention")
    if arguments["rope_type"] == "mrope" and arguments["use_rot_pos_emb"]:
        problems.append("rotary positions of three axes")
    if {"norm.weight", "fc_norm.weight"} <= set(view.kinds):
        problems.append("a norm before pooling and one behind it")
    width, named = view.common_shape(PATCHES, 4)[0], arguments["embed_dim"]
    if width != named:
        problems.append(f"tokens {width} wide where the architecture named has {named}")
    if problems:
        raise unsupported(name, problems)


def _rotary(arguments: Arguments, found: Found) -> Rotary | None:
    if not arguments["use_rot_pos_emb"]:
        return None
    base, offset = float(arguments["rope_temperature"]), float(arguments["rope_grid_offset"])
    columns_first = arguments["rope_grid_indexing"] == "xy"
    grid = arguments["ref_feat_shape"]
    reference = as_pair(grid, "ref_feat_shape") if grid and arguments["rope_type"] == "cat" else None
    known = {
        ("dinov3", 0.0, False): found.convention or RotaryConvention.DINOV3_FLOAT32,
        ("mixed", 0.0, True): RotaryConvention.ROPE_VIT_MIXED,
        ("cat", 0.0, False): RotaryConvention.EVA,
        ("cat", 0.0, True): RotaryConvention.ROPE_VIT if arguments["class_token"] else RotaryConvention.PE,
        ("cat", 1.0, True): RotaryConvention.PE,
    }
    convention = known.get((arguments["rope_type"], offset, columns_first))
    if convention is None or (offset and not arguments["class_token"]):
        kind = f"{arguments['rope_type']}, offset {offset:g}, {arguments['rope_grid_indexing']}"
        raise unsupported("it", [f"rotary positions of a kind of their own ({kind})"])
    return Rotary(convention, base, reference)


def _scales_attention_alone(view: Renamed, arguments: Arguments) -> bool:
    """Whether feed-forwards have no layer scale, as the architecture says: without that it would be a damaged file."""
    return bool(arguments["attn_only_layer_scale"]) and "blocks.*.ls2.gamma" not in view.kinds


def _shapes(view: Renamed, arguments: Arguments) -> dict[str, Any]:
    """Fields of the config that the names and shapes say."""
    kinds = view.kinds
    embed_dim, channels, *patch_size = view.common_shape(PATCHES, 4)
    hidden = hidden_width(view)
    packed = "blocks.*.mlp.fc1.weight" in kinds and view.common_shape("blocks.*.mlp.fc1.weight", 2)[0] == 2 * hidden
    pooled = view.common_shape("attn_pool.mlp.fc2.weight", 2)[1] if "attn_pool.mlp.fc2.weight" in kinds else 0
    biases = ("blocks.*.attn.q_bias", "blocks.*.attn.qkv.bias", "blocks.*.attn.q_proj.bias")
    return {
        "patch_size": tuple(patch_size),
        "channels": channels,
        "embed_dim": embed_dim,
        "num_layers": depth_of(view),
        "mlp_dim": hidden,
        "ffn_type": FFNType.SWIGLU if packed or "blocks.*.mlp.fc1_g.weight" in kinds else FFNType.MLP,
        "normalization_type": NORMS[arguments["norm_layer"][0]],
        "qkv_bias": any(name in kinds for name in biases),
        "qk_norm": "blocks.*.attn.q_norm.weight" in kinds,
        "layer_scale": "blocks.*.ls1.gamma" in kinds,
        **({"layer_scale_part": LayerScalePart.ATTENTION} if _scales_attention_alone(view, arguments) else {}),
        "class_token": "cls_token" in kinds,
        "register_tokens": view.common_shape("reg_token", 3)[1] if "reg_token" in kinds else 0,
        "pre_norm": "norm_pre.weight" in kinds,
        "attention_norm": "blocks.*.attn.norm.weight" in kinds,
        "ffn_norm": "blocks.*.mlp.norm.weight" in kinds,
        "pool_mlp_dim": 0 if pooled in (0, hidden) else pooled,
        "norm_after_pooling": "fc_norm.weight" in kinds,
        "last_norm": bool({"norm.weight", "fc_norm.weight"} & set(kinds)),
        "include_top": "head.weight" in kinds,
        "num_classes": view.common_shape("head.weight", 2)[0] if "head.weight" in kinds else 0,
    }
