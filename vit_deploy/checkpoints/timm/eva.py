"""Models of timm's class Eva, and DINOv3 as Meta keeps it: EVA-02, Perception Encoder, RoPE-ViT and others.

What they compute is in the arguments that their architecture is made with, more than in their weights: rotary positions
leave none. Pairs of features that are turned together stand side by side in all but DINOv3; queries and keys are read
in the order of `vit_deploy.core.rotary`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_deploy.checkpoints.assumed import Assumed
from vit_deploy.checkpoints.gathering import gather
from vit_deploy.checkpoints.heads import label_problems
from vit_deploy.checkpoints.importing import Facts, image_size_of, imported, settle, without_rest
from vit_deploy.checkpoints.renamed.open_clip import IMAGES
from vit_deploy.checkpoints.source import Stated, TensorFile
from vit_deploy.checkpoints.timm.architectures import unsupported
from vit_deploy.checkpoints.timm.config import (
    ARCHITECTURE,
    ASSUMED_PIXELS,
    CONFIG,
    POOLINGS,
    SHOWN_BY_WEIGHTS,
    WITHOUT_EFFECT,
    labels_of,
    preprocess_of,
)
from vit_deploy.checkpoints.timm.eva_table import eva_arguments, eva_names
from vit_deploy.checkpoints.timm.eva_weights import FREQUENCIES, origins_of
from vit_deploy.checkpoints.timm.names import PATCHES, TEXT, Renamed
from vit_deploy.checkpoints.timm.perception_encoder import FAMILY, PerceptionEncoder
from vit_deploy.checkpoints.timm.perception_encoder import preprocess_of as preprocess_of_authors
from vit_deploy.checkpoints.timm.shapes import depth_of
from vit_deploy.checkpoints.timm.towers import Tower, tower_of
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, FFNType, LayerScalePart, NormalizationPosition, NormalizationType
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.resize import resized_preprocess
from vit_deploy.core.rotary import Rotary, RotaryConvention
from vit_deploy.core.rotary_angles import angles, as_bfloat16
from vit_deploy.errors import CheckpointError

Arguments = Mapping[str, Any]

NORMS = {"LayerNorm": NormalizationType.LAYER_NORM, "RmsNorm": NormalizationType.RMS_NORM}
PERIODS = "rope_embed.periods"  # of Meta's own DINOv3, beside its weights
META_DINOV3: Mapping[str, Any] = {
    "rope_type": "dinov3",
    "rope_temperature": 100.0,
    "rope_rotate_half": True,
    "use_rot_pos_emb": True,
    "use_abs_pos_emb": False,
    "global_pool": "token",
    "use_fc_norm": False,
    "norm_layer": ["LayerNorm", 1e-5],
    "img_size": 224,
}
HEAD_WIDTHS = {4096: 128}  # of Meta's own DINOv3 by embed dim; all others have 64
OF_TRAINING = ("mask_token", "local_cls_norm.", "projectors.", "lm_head.")
OF_ROTARY = re.compile(r"(^|\.)rope\.freqs_(cos|sin)$")  # buffers of EVA-02's authors
ROUNDED = 4e-3  # how far a cosine of 16 bits may be from the one it was
MORE_WITHOUT_EFFECT = frozenset(
    {"rope_shift_coords", "rope_jitter_coords", "rope_rescale_coords", "head_init_scale", "depth", "qkv_fused"}
)


@dataclass(frozen=True)
class Found:
    """What a file of this class is.

    Args:
        arguments: that its model is made with.
        document: its config.json; empty without one.
        supposed: that it is this architecture, where nothing names it.
        family: whose way of resizing it follows.
        convention: the rotary convention where the file itself shows it.
        preprocess: the preprocessing for a config, where another program than timm says it.
        name: of the architecture, with or without a tag; empty where it has none.
    """

    arguments: Arguments
    document: Mapping[str, Any]
    supposed: tuple[Assumed, ...] = ()
    family: str = "timm"
    convention: RotaryConvention | None = None
    preprocess: Callable[[ViTConfig], Preprocess] | None = None
    name: str = ""


def find_eva(file: TensorFile, view: Renamed) -> Found | None:
    """What a file is, if it is of this class; None for what other code reads, or refuses.

    Raises:
        CheckpointError: its periods are those of no convention.
    """
    found, given = file.documents.get(CONFIG), file.documents.get(ARCHITECTURE)
    document = found if isinstance(found, Mapping) and isinstance(found.get("architecture"), str) else {}
    name = given or document.get("architecture")
    if isinstance(view, PerceptionEncoder):
        return _of_authors(view, name, document)
    if PERIODS in view.stored:
        return Found({**_defaults(), **META_DINOV3, **_meta_heads(view)}, {}, convention=_convention(view))
    if name is not None:
        arguments = eva_arguments(str(name))
        return None if arguments is None else Found({**arguments, **_overrides(document)}, document, name=str(name))
    if (tower := tower_of(file.documents)) is not None:
        return _of_tower(tower)
    if any(kind in view.kinds for kind in ("blocks.*.attn.rel_pos", "rel_pos_bias.relative_position_bias_table")):
        return None
    return _alone(view)


def _of_authors(view: PerceptionEncoder, name: object, document: Arguments) -> Found | None:
    """A Perception Encoder of its authors, by the name that is said or by its weights."""
    arguments = None if name is None else eva_arguments(str(name))
    if name is not None and arguments is None:
        raise unsupported("it", [f"the names of a Perception Encoder, which {name} is not"])
    found = _alone(view) if arguments is None else Found({**arguments, **_overrides(document)}, document)
    if found is None:
        return None
    own = {**found.arguments, **view.arguments}
    return dataclasses.replace(found, arguments=own, family=FAMILY, preprocess=preprocess_of_authors)


def _of_tower(tower: Tower) -> Found | None:
    """What OpenCLIP's config says, if its tower is of this class."""
    arguments = eva_arguments(tower.architecture)
    if arguments is None:
        return None
    pooling = {} if tower.pooling is None else {"global_pool": tower.pooling}
    sizes = {"img_size": list(tower.sizes[0])} if tower.sizes else {}
    document = {"architecture": tower.architecture}
    return Found({**arguments, **pooling, **sizes}, document, preprocess=tower.preprocess)


def _defaults() -> Arguments:
    arguments = eva_arguments("eva_giant_patch14_224")
    assert arguments is not None  # of the table, whose defaults it brings along
    return {**arguments, "patch_size": None, "embed_dim": None, "num_heads": None}


def _meta_heads(view: Renamed) -> Arguments:
    dim = view.common_shape(PATCHES, 4)[0]
    return {"num_heads": dim // HEAD_WIDTHS.get(dim, 64), "embed_dim": dim}


def _overrides(document: Mapping[str, Any]) -> Arguments:
    arguments = dict(document.get("model_args") or {})
    if "global_pool" in document and "global_pool" not in arguments:
        arguments["global_pool"] = document["global_pool"]
    data = document.get("pretrained_cfg") or {}
    if "img_size" not in arguments and data.get("input_size"):
        arguments["img_size"] = list(data["input_size"][1:])
    return {key: value for key, value in arguments.items() if value is not None}


def _convention(view: Renamed) -> RotaryConvention:
    periods = view.read(PERIODS).astype(np.float64)
    base = np.float32(META_DINOV3["rope_temperature"])
    exact = base ** (np.arange(len(periods), dtype=np.float32) / np.float32(len(periods)))
    if np.array_equal(periods, as_bfloat16(exact)):
        return RotaryConvention.DINOV3
    if np.allclose(periods, exact, rtol=1e-6):
        return RotaryConvention.DINOV3_FLOAT32
    raise unsupported("it", [f"rotary positions with periods that no DINOv3 has ({PERIODS})"])


def _alone(view: Renamed) -> Found | None:
    """What weights without a name are taken for, if no plain ViT has tensors of their names."""
    if not {"blocks.*.mlp.fc2.weight", PATCHES} <= set(view.kinds):
        return None
    eva_only = {"blocks.*.attn.q_bias", "blocks.*.attn.q_proj.weight", "blocks.*.attn.gate.weight", FREQUENCIES}
    if "pos_embed" in view.kinds and not (eva_only & set(view.kinds) or isinstance(view, PerceptionEncoder)):
        return None
    alike: dict[str, list[str]] = {}
    for name in eva_names():
        arguments = eva_arguments(name)
        if arguments is not None and _fits(view, arguments):
            alike.setdefault(repr(_function(arguments)), []).append(name)
    if not alike:
        return None
    if len(alike) > 1:
        names = ", ".join(row[0] for row in alike.values())
        raise CheckpointError(
            f"it holds no config, and its weights may be those of timm's {names}, which compute different functions",
            fix="say which it is: --architecture NAME",
        )
    [only] = alike.values()
    arguments = eva_arguments(only[0])
    assert arguments is not None
    why = f"it holds no config, and of timm's architectures such weights are those of {', '.join(only[:3])}"
    return Found(arguments, {}, (Assumed("architecture", only[0], why),), name=only[0])


def _function(arguments: Arguments) -> Arguments:
    """What the weights do not show; the size of images may be another."""
    return {name: value for name, value in arguments.items() if name not in ("img_size", "mlp_ratio")}


def _fits(view: Renamed, arguments: Arguments) -> bool:
    """Whether the weights have the names and widths of an architecture's, but for the head."""
    kinds, scaled = view.kinds, arguments["init_values"] is not None
    dim, _, *patch = view.common_shape(PATCHES, 4)
    rotates, mixed = arguments["use_rot_pos_emb"], arguments["rope_type"] == "mixed"
    pooled = arguments["global_pool"] == "avg"
    fc_norm = pooled if arguments["use_fc_norm"] is None else arguments["use_fc_norm"]
    last = not fc_norm if arguments["use_post_transformer_norm"] is None else arguments["use_post_transformer_norm"]
    registers = view.common_shape("reg_token", 3)[1] if "reg_token" in kinds else 0
    expected = {
        "cls_token": arguments["class_token"],
        "pos_embed": arguments["use_abs_pos_emb"],
        "norm_pre.weight": arguments["use_pre_transformer_norm"],
        "fc_norm.weight": fc_norm,
        "norm.weight": last,
        "attn_pool.latent": arguments["global_pool"] == "map",
        "blocks.*.ls1.gamma": scaled,
        "blocks.*.ls2.gamma": scaled and not arguments["attn_only_layer_scale"],
        "blocks.*.attn.norm.weight": arguments["scale_attn_inner"],
        "blocks.*.attn.q_norm.weight": arguments["qk_norm"],
        "blocks.*.mlp.norm.weight": arguments["scale_mlp"],
        "blocks.*.mlp.fc1_g.weight": arguments["swiglu_mlp"]
        and (arguments["scale_mlp"] or arguments["swiglu_align_to"]),
        FREQUENCIES: bool(rotates and mixed),
    }
    widths = (dim, patch, registers) == (
        arguments["embed_dim"],
        [*as_pair(arguments["patch_size"], "patch_size")],
        arguments["num_reg_tokens"],
    )
    ratio = _hidden(view) / dim / arguments["mlp_ratio"]
    # A feed-forward whose gate is apart rounds its width up.
    return widths and 0.99 < ratio < 1.05 and all((name in kinds) == bool(there) for name, there in expected.items())


def _hidden(view: Renamed) -> int:
    return view.common_shape("blocks.*.mlp.fc2.weight", 2)[1]


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
    data = dict(document.get("pretrained_cfg") or {})
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
    known = {*_defaults(), *SHOWN_BY_WEIGHTS, *WITHOUT_EFFECT, *MORE_WITHOUT_EFFECT}
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
    hidden = _hidden(view)
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
