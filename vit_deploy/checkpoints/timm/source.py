"""Checkpoints of timm's Vision Transformer, and of the facebookresearch models that share its names.

`qkv`, the pooling's `kv` and a gated `fc1` are packed along their outputs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_deploy.checkpoints.assumed import Assumed
from vit_deploy.checkpoints.gathering import Origin, gather, same, transposed, zeros
from vit_deploy.checkpoints.heads import label_problems, missing_head
from vit_deploy.checkpoints.importing import (
    Facts,
    default_heads,
    imported,
    known_heads,
    settle,
)
from vit_deploy.checkpoints.source import STATE_DICTS, Stated, TensorFile, original_name
from vit_deploy.checkpoints.timm.architectures import unsupported
from vit_deploy.checkpoints.timm.bare import Taken, taken_for
from vit_deploy.checkpoints.timm.config import (
    ASSUMED_PIXELS,
    DINOV2_DATA,
    EPSILON,
    SIXTEEN_HEADS,
    VIT_DATA,
    Hub,
    preprocess_of,
    read_hub,
)
from vit_deploy.checkpoints.timm.eva import as_tuned, read_eva
from vit_deploy.checkpoints.timm.eva_function import find_eva
from vit_deploy.checkpoints.timm.head_widths import settle_heads
from vit_deploy.checkpoints.timm.names import (
    IGNORED,
    NAFLEX,
    NAFLEX_PATCHES,
    PATCHES,
    PROJECTION,
    TEXT,
    Renamed,
    check_supported,
    family_of,
    is_timm,
    kind_of,
    renamed,
)
from vit_deploy.checkpoints.timm.parallel import is_parallel, parallel_origins
from vit_deploy.checkpoints.timm.perception_encoder import perception_encoder, prefix_of
from vit_deploy.checkpoints.timm.positions import Positions, positions_of
from vit_deploy.checkpoints.timm.recorded import recorded_by_training
from vit_deploy.checkpoints.timm.relative import INDEX, relative_origins
from vit_deploy.checkpoints.timm.shapes import shapes_of
from vit_deploy.checkpoints.timm.things import count_of, has_things, things_origins
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, FFNType, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.resize import resized_preprocess
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

HEADS = {"head.weight", "head_dist.weight"}
HEAD_TENSORS = re.compile(r"(^|\.)head(_dist)?\.(weight|bias)$")
CLIP_EPSILON = 1e-5  # of the models with a norm before the blocks


class TimmSource:
    """`patch_embed.proj`, `blocks.0.attn.qkv`, …, under whatever prefix."""

    heads = HEAD_TENSORS

    def detects(self, file: TensorFile) -> bool:
        """Whether the stem has timm's name; other networks that share it are refused when they are read."""
        return file.container in STATE_DICTS and (is_timm(file.names()) or prefix_of(file.names()) is not None)

    def read(self, file: TensorFile, stated: Stated) -> Checkpoint:
        """The checkpoint, with the preprocessing and the labels of the config.json beside it."""
        view = perception_encoder(file) or as_tuned(renamed(file))
        if (eva := find_eva(file, view)) is not None:
            return read_eva(file, view, eva, stated)
        check_supported(view)
        shapes = shapes_of(view)
        hub = read_hub(file)
        _check_head(view, hub)
        said = stated.get("image_size")
        defaults = _defaults(shapes)
        if has_things(view) and "num_heads" in defaults:
            defaults["num_heads"] *= count_of(view)
        family = family_of(view)
        taken = Taken()
        recorded = None
        if hub.architecture is None and family == "timm":
            recorded = recorded_by_training(file, shapes)
        if recorded is not None:
            hub, taken = recorded.hub, Taken(supposed=recorded.supposed)
        elif hub.architecture is None and family == "timm":
            rows = view.common_shape("pos_embed", 3)[1] if "pos_embed" in view.stored else 0
            taken = taken_for(shapes, defaults, rows)
            defaults |= taken.fields
        if _pools_patches(shapes, hub.pools_prefix or taken.pools_prefix):
            shapes["pool_patches"] = True
        beside = _beside(shapes, hub, stated)
        settle_heads(view, shapes, hub, stated, beside, defaults)
        facts = Facts(shapes, beside, defaults)
        with known_heads(facts, stated, shapes["embed_dim"]):
            positions = positions_of(view, shapes, [said] if said else (*hub.sizes, *taken.sizes))
        # As many patches make images of other sizes too.
        (shapes if said or positions.known else defaults)["image_size"] = positions.image_size
        settled = settle(facts, stated)
        config = settled.config
        _check_supported(config, hub, hub.pools_prefix or taken.pools_prefix)
        if hub.pads and positions.known not in (None, config.image_size):
            raise unsupported("it", [f"images of {positions.known} padded to whole patches"])
        ignored = {name for name in view.names() if IGNORED.match(name) or INDEX.search(name)}
        written = NAFLEX if NAFLEX in view.documents else family
        problems = list(settled.problems)
        if "head.weight" in view.kinds:
            problems += label_problems(hub.labels, shapes["num_classes"])
        weights = gather(view, _origins(view, config, positions), config, ignored=ignored, found=problems)
        if hub.preprocess is not None:
            whole = positions.known or config.image_size
            return imported(
                settled,
                weights,
                family=family,
                preprocess=resized_preprocess(hub.preprocess(config), config.image_size, whole),
                input_size=whole,
                left_out=["text tower"] if any(map(TEXT.match, view.names())) else [],
            )
        alone = hub.data is None and family == "timm"
        data = hub.data if hub.data is not None else VIT_DATA if alone else DINOV2_DATA
        whole = positions.known or config.image_size
        preprocess = preprocess_of(data, whole, config.channels)
        return imported(
            settled,
            weights,
            family=written,
            preprocess=preprocess,
            preprocess_assumed=hub.data is None or bool(hub.data.get(ASSUMED_PIXELS)),
            input_size=whole,
            supposed=(*(taken.supposed if alone else ()), *_head_outside(view, config)),
            labels=hub.labels,
        )


def _beside(shapes: Mapping[str, Any], hub: Hub, stated: Stated) -> dict[str, Any]:
    """What config.json adds, and what the architecture's name stands for where neither says otherwise.

    Raises:
        CheckpointError: the weights are of another width than the name's, and nobody says how many heads they have.
    """
    named = {name: value for name, value in hub.named.items() if name not in stated}
    if hub.architecture is not None and shapes["ffn_type"] is FFNType.SWIGLU:
        named["activation"] = Activation.GELU  # gates bring their own
    fields = {**named, **hub.fields}
    if hub.architecture is not None and hub.architecture.embed_dim != shapes["embed_dim"] and not hub.states_width:
        _check_width(hub, shapes, stated)
        if "num_heads" not in hub.fields:
            fields.pop("num_heads", None)
    if shapes["distillation_token"]:
        fields.pop("pooling", None)
    return fields


def _check_width(hub: Hub, shapes: Mapping[str, Any], stated: Stated) -> None:
    known = any("num_heads" in fields for fields in (hub.fields, shapes, stated))
    if hub.architecture is not None and hub.data is None and not known:
        raise CheckpointError(
            f"its tokens are {shapes['embed_dim']} wide, and those of {hub.architecture.name} "
            f"{hub.architecture.embed_dim}",
            fix="give the architecture that the weights are of, or its heads as well: --num-heads",
        )


def _head_outside(view: Renamed, config: ViTConfig) -> tuple[Assumed, ...]:
    """That a head which a program around the encoder has put beside it reads what the encoder pools."""
    if not config.include_top or "head.weight" not in view.stored:
        return ()
    head, patches = (original_name(view, name) for name in ("head.weight", PATCHES))
    encoder = patches.removesuffix(NAFLEX_PATCHES if NAFLEX in view.documents else PATCHES)
    if head.startswith(encoder) or head.endswith(f"{PROJECTION}weight"):
        return ()
    why = (
        f"it stands outside of the encoder {encoder.rstrip('.')}, and was taken to read what the pooling "
        f"{config.effective_pooling} gives; what a program does between the two is in no file (--no-head leaves it out)"
    )
    return (Assumed("head", head.removesuffix(".weight"), why),)


def _check_head(view: Renamed, hub: Hub) -> None:
    classes = hub.fields.get("num_classes", 0)
    if classes and not HEADS & set(view.stored):
        raise missing_head(f"config.json says num_classes {classes}")


def _defaults(shapes: Mapping[str, Any]) -> dict[str, Any]:
    average = shapes["norm_after_pooling"] or not shapes["class_token"]
    heads = {"num_heads": 16} if shapes["embed_dim"] in SIXTEEN_HEADS else default_heads(shapes["embed_dim"])
    return {
        **heads,
        "epsilon": CLIP_EPSILON if shapes["pre_norm"] else EPSILON,
        "activation": Activation.GELU,
        "pooling": Pooling.MEAN if average else Pooling.CLS,
    }


def _pools_patches(shapes: Mapping[str, Any], pools_prefix: bool) -> bool:
    """Whether attention pooling leaves the prefix tokens out."""
    prefix = shapes["class_token"] or shapes["distillation_token"] or shapes["register_tokens"]
    return shapes.get("pooling") is Pooling.MAP and bool(prefix) and not pools_prefix


def _check_supported(config: ViTConfig, hub: Hub, pools_prefix: bool) -> None:
    if config.ffn_type is FFNType.SWIGLU and hub.act_layer not in (None, Activation.SILU):
        raise unsupported("it", [f"a gate of {hub.act_layer}"])
    pooling, prefix = config.effective_pooling, config.num_prefix_tokens
    if config.include_top and "pooling" in hub.fields and hub.fields["pooling"] is None:
        raise unsupported("it", ["a head for every token"])
    if not prefix:
        return
    if config.pool_patches and hub.architecture is None:
        raise unsupported("it", ["attention pooling that leaves its prefix tokens out, or takes them in"])
    if pooling in (Pooling.MEAN, Pooling.MAX) and pools_prefix:
        raise unsupported("it", [f"a {pooling} that takes its prefix tokens in"])


def _origins(view: Renamed, config: ViTConfig, positions: Positions) -> dict[str, Origin]:
    dim, missing = config.embed_dim, config.num_prefix_tokens - positions.prefix
    normed = config.pre_norm or config.patch_norm

    def table(stored: Float32) -> Float32:
        rows = stored[0]
        return np.concatenate(
            [rows[: positions.prefix], np.zeros((missing, dim), np.float32), rows[positions.prefix :]]
        )

    origins = {
        "patch_embed.kernel": Origin((PATCHES,), lambda kernel: kernel.transpose(2, 3, 1, 0)),
        # timm leaves it out where a norm follows.
        "patch_embed.bias": (_bias("patch_embed.proj", view, dim) if normed else same("patch_embed.proj.bias")),
        "class_token.class": _first("cls_token"),
        "class_token.distillation": _first("dist_token"),
        "class_token.registers": _first("reg_token"),
        "pos_embed.table": (
            Origin(("pos_embed",), table) if "pos_embed" in view.stored else zeros(config.sequence_length, dim)
        ),
        **relative_origins(view, config),
        **_norm("patch_norm", "patch_embed.norm"),
        **_norm("pre_norm", "norm_pre"),
        **_norm("norm", "fc_norm" if config.norm_after_pooling else "norm"),
        **_dense("pre_logits", "pre_logits"),
        **_head(view, config),
    }
    for index in range(config.num_layers):
        block = parallel_origins if is_parallel(view) else things_origins if has_things(view) else _block
        origins |= block(f"block_{index}", f"blocks.{index}", view, config)
    return origins | (_map_pool() if config.effective_pooling is Pooling.MAP else {})


def _block(ours: str, theirs: str, view: Renamed, config: ViTConfig) -> dict[str, Origin]:
    dim, hidden = config.embed_dim, config.mlp_dim
    origins = {
        **_norm(f"{ours}.norm1", f"{theirs}.norm1"),
        **_norm(f"{ours}.norm2", f"{theirs}.norm2"),
        **_norm(f"{ours}.attention.query_norm", f"{theirs}.attn.q_norm"),
        **_norm(f"{ours}.attention.key_norm", f"{theirs}.attn.k_norm"),
        **_norm(f"{ours}.attention.norm", f"{theirs}.attn.norm"),
        **_norm(f"{ours}.ffn.norm", f"{theirs}.mlp.norm"),
        f"{ours}.attention.out.kernel": transposed(f"{theirs}.attn.proj.weight"),
        f"{ours}.attention.out.bias": _bias(f"{theirs}.attn.proj", view, dim),
        f"{ours}.ffn.down.kernel": transposed(f"{theirs}.mlp.fc2.weight"),
        f"{ours}.ffn.down.bias": _bias(f"{theirs}.mlp.fc2", view, dim),
        f"{ours}.scale1.gamma": same(f"{theirs}.ls1.gamma"),
        f"{ours}.scale2.gamma": same(f"{theirs}.ls2.gamma"),
        **_packed(f"{ours}.attention", ("query", "key", "value"), f"{theirs}.attn.qkv"),
    }
    if "blocks.*.attn.q_bias" in view.kinds:  # BEiT's keys have none
        origins |= {
            f"{ours}.attention.{role}.bias": same(f"{theirs}.attn.{role[0]}_bias") for role in ("query", "value")
        }
        origins[f"{ours}.attention.key.bias"] = zeros(config.attention_dim)
    if config.ffn_type is FFNType.SWIGLU and "blocks.*.mlp.fc1_g.weight" not in view.kinds:
        origins |= _packed(f"{ours}.ffn", ("gate", "up"), f"{theirs}.mlp.fc1")
        if "blocks.*.mlp.fc1.bias" not in view.kinds:
            origins |= {f"{ours}.ffn.gate.bias": zeros(hidden), f"{ours}.ffn.up.bias": zeros(hidden)}
        return origins
    apart = {"gate": "fc1_g", "up": "fc1_x"} if config.ffn_type is FFNType.SWIGLU else {"up": "fc1"}
    for role, name in apart.items():
        origins[f"{ours}.ffn.{role}.kernel"] = transposed(f"{theirs}.mlp.{name}.weight")
        origins[f"{ours}.ffn.{role}.bias"] = _bias(f"{theirs}.mlp.{name}", view, hidden)
    return origins


def _map_pool() -> dict[str, Origin]:
    return {
        "map_pool.probe": _first("attn_pool.latent"),
        **_dense("map_pool.attention.query", "attn_pool.q"),
        **_packed("map_pool.attention", ("key", "value"), "attn_pool.kv"),
        **_dense("map_pool.attention.out", "attn_pool.proj"),
        **_norm("map_pool.norm", "attn_pool.norm"),
        **_dense("map_pool.ffn.up", "attn_pool.mlp.fc1"),
        **_dense("map_pool.ffn.down", "attn_pool.mlp.fc2"),
    }


def _head(view: Renamed, config: ViTConfig) -> dict[str, Origin]:
    """The head; the average of two, where class and distillation token have one each."""
    if not config.distillation_token:
        projects = view.stored.get("head.weight", "").endswith(f"{PROJECTION}weight")
        bias = _bias("head", view, config.num_classes) if projects else same("head.bias")
        return {"head.kernel": transposed("head.weight"), "head.bias": bias}
    if not HEADS & set(view.stored):
        half = np.eye(config.embed_dim, dtype=np.float32) / 2
        return {"head.kernel": Origin((), lambda: np.concatenate([half, half])), "head.bias": zeros(config.num_classes)}
    return {
        "head.kernel": Origin(("head.weight", "head_dist.weight"), lambda a, b: np.concatenate([a.T / 2, b.T / 2])),
        "head.bias": Origin(("head.bias", "head_dist.bias"), lambda a, b: (a + b) / 2),
    }


def _first(name: str) -> Origin:
    return Origin((name,), lambda tensor: tensor[0])


def _packed(ours: str, roles: tuple[str, ...], theirs: str) -> dict[str, Origin]:
    """Dense layers that are packed along their outputs."""

    def part(name: str, index: int) -> Origin:
        return Origin((name,), lambda tensor: np.split(tensor, len(roles))[index].T)

    kernels = {f"{ours}.{role}.kernel": part(f"{theirs}.weight", index) for index, role in enumerate(roles)}
    return kernels | {f"{ours}.{role}.bias": part(f"{theirs}.bias", index) for index, role in enumerate(roles)}


def _norm(ours: str, theirs: str) -> dict[str, Origin]:
    return {f"{ours}.scale": same(f"{theirs}.weight"), f"{ours}.bias": same(f"{theirs}.bias")}


def _dense(ours: str, theirs: str) -> dict[str, Origin]:
    return {f"{ours}.kernel": transposed(f"{theirs}.weight"), f"{ours}.bias": same(f"{theirs}.bias")}


def _bias(theirs: str, view: Renamed, outputs: int) -> Origin:
    """The bias, or zeros where no block has it."""
    return same(f"{theirs}.bias") if kind_of(f"{theirs}.bias") in view.kinds else zeros(outputs)
