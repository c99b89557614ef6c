"""What a file of timm's class Eva, or of Meta's DINOv3, is: its architecture, by name, by config or by its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_deploy.checkpoints.assumed import Assumed
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.checkpoints.timm.architectures import unsupported
from vit_deploy.checkpoints.timm.config import ARCHITECTURE, CONFIG, data_of
from vit_deploy.checkpoints.timm.eva_table import eva_arguments, eva_names
from vit_deploy.checkpoints.timm.eva_weights import FREQUENCIES
from vit_deploy.checkpoints.timm.names import PATCHES, Renamed
from vit_deploy.checkpoints.timm.perception_encoder import FAMILY, PerceptionEncoder
from vit_deploy.checkpoints.timm.perception_encoder import preprocess_of as preprocess_of_authors
from vit_deploy.checkpoints.timm.towers import Tower, tower_of
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.rotary import RotaryConvention
from vit_deploy.core.rotary_angles import as_bfloat16
from vit_deploy.errors import CheckpointError

Arguments = Mapping[str, Any]

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
        return Found({**defaults(), **META_DINOV3, **_meta_heads(view)}, {}, convention=_convention(view))
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


def defaults() -> Arguments:
    """Arguments of the class where an architecture says nothing else."""
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
    data = data_of(document)
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
    ratio = hidden_width(view) / dim / arguments["mlp_ratio"]
    # A feed-forward whose gate is apart rounds its width up.
    return widths and 0.99 < ratio < 1.05 and all((name in kinds) == bool(there) for name, there in expected.items())


def hidden_width(view: Renamed) -> int:
    """Units of a feed-forward."""
    return view.common_shape("blocks.*.mlp.fc2.weight", 2)[1]
