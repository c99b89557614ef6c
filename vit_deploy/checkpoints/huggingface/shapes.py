"""What the shapes of a transformers checkpoint say of its config."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from vit_deploy.checkpoints.huggingface import aimv2
from vit_deploy.checkpoints.huggingface import names as hf
from vit_deploy.checkpoints.huggingface.names import Names
from vit_deploy.checkpoints.huggingface.relative import relative_fields
from vit_deploy.checkpoints.source import TensorFile
from vit_deploy.core.choices import FFNType, NormalizationType, PoolEnd
from vit_deploy.core.config_checks import is_count
from vit_deploy.errors import CheckpointError

COLORS = 3


def fields_from_shapes(file: TensorFile, names: Names, vision: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `ViTConfig` that the shapes and names of its tensors tell.

    Args:
        file: that holds them.
        names: its names.
        vision: the part of config.json that is about images, of which patches that are a matrix need the size.

    Raises:
        CheckpointError: a tensor that every ViT has is missing, or has another number of axes.
    """
    embed_dim, channels, patch_size = _patches(file, f"{names.part(hf.PATCHES)}.weight", vision)
    gates = _shapes_in_blocks(file, names, hf.WITHIN["ffn.gate"])
    packed = _shapes_in_blocks(file, names, (hf.PACKED_GATES,))
    gated = gates or packed
    hidden = [rows // 2 for rows, _ in packed] if packed and not gates else [rows for rows, _ in gated]
    hidden += [] if gated else [rows for rows, _ in _shapes_in_blocks(file, names, hf.WITHIN["ffn.up"])]
    hidden += [columns for _, columns in _shapes_in_blocks(file, names, hf.WITHIN["ffn.down"])]
    if not hidden:
        raise CheckpointError("no block has a feed-forward", fix="the file is damaged or no ViT: get it again")
    mlp_dim = Counter(hidden).most_common(1)[0][0]  # what is of another size is then found to be wrong
    query = (*hf.WITHIN["attention.query"], hf.PACKED)
    return {
        "embed_dim": embed_dim,
        "channels": channels,
        "patch_size": patch_size,
        "num_layers": 1 + max(names.blocks, default=-1),
        "mlp_dim": mlp_dim,
        "ffn_type": FFNType.SWIGLU if gated else FFNType.MLP,
        "qkv_bias": any(f"{names.within(block, query)}.bias" in names.stored for block in names.blocks),
        "class_token": any(names.has(token) for token in hf.CLASS),
        "distillation_token": names.has(hf.DISTILLATION),
        "register_tokens": sum(more_tokens(file, names)),
        "layer_scale": _scales_layers(names),
        "pre_norm": names.pre_norm,
        **({"patch_norm": True} if names.has(f"{aimv2.PATCH_NORM}.weight") else {}),
        **({"normalization_type": NormalizationType.RMS_NORM} if _has_rms_norms(names) else {}),
        **({"pool_end": PoolEnd.NONE} if names.has(aimv2.PROBE) else {}),
        **({"last_norm": False} if names.has(f"{hf.PIXTRAL}.weight") else {}),
        **relative_fields(names),
    }


def _patches(file: TensorFile, name: str, vision: Mapping[str, Any]) -> tuple[int, int, tuple[int, int]]:
    """Embed dim, channels and (height, width) of patches; a matrix over their pixels says the product of the latter."""
    if name in file.names() and len(file.shape(name)) == 2:
        embed_dim, pixels = shape_of(file, name, 2)
        channels = vision.get("num_channels", COLORS)
        side = vision.get("patch_size", math.isqrt(pixels // COLORS))
        if not (is_count(channels) and is_count(side)) or channels * side * side != pixels:
            raise CheckpointError(
                f"{name} is for patches of {pixels} numbers, not for {side!r} by {side!r} of {channels!r} channels",
                fix="correct config.json, or get the file again",
            )
        return embed_dim, channels, (side, side)
    embed_dim, channels, height, width = shape_of(file, name, 4)
    return embed_dim, channels, (height, width)


def _has_rms_norms(names: Names) -> bool:
    """Whether the norms of blocks have no bias, as all layer norms have."""
    norms = [names.within(block, hf.WITHIN["norm1"]) for block in names.blocks]
    there = any(f"{norm}.weight" in names.stored for norm in norms)
    return there and not any(f"{norm}.bias" in names.stored for norm in norms)


def _scales_layers(names: Names) -> bool:
    """Whether some block has a layer scale, by the name that most have, or every block by BEiT's."""
    beit = [f"{path}{hf.BEIT_SCALES['scale1.gamma']}" in names.stored for path in names.blocks.values()]
    return any(name.endswith(tuple(hf.SCALES.values())) for name in names.stored) or (any(beit) and all(beit))


def more_tokens(file: TensorFile, names: Names) -> tuple[int, int]:
    """How many tokens stand beside the class token: those without a position, and those with one."""
    registers, detection = names.prefix + hf.REGISTERS, names.prefix + hf.DETECTION
    unplaced = shape_of(file, registers, 3, empty=True)[1] if registers in names.stored else 0
    placed = shape_of(file, detection, 3)[1] if detection in names.stored else 0
    classes = names.tensor(hf.CLASS)
    if classes in names.stored and len(shape := file.shape(classes)) == 3:
        placed += max(shape[1], 1) - 1
    return unplaced, placed


def _shapes_in_blocks(file: TensorFile, names: Names, part: Iterable[str]) -> list[tuple[int, ...]]:
    """The shapes of a part's matrices in the blocks that have it."""
    weights = [f"{names.within(block, part)}.weight" for block in names.blocks]
    shapes = [file.shape(weight) for weight in weights if weight in names.stored]
    return [shape for shape in shapes if len(shape) == 2 and all(shape)]


def shape_of(file: TensorFile, name: str, axes: int, *, empty: bool = False) -> tuple[int, ...]:
    """The shape of a tensor.

    Args:
        file: that holds it.
        name: its full name there.
        axes: the number it has to have.
        empty: whether an axis may be zero.

    Raises:
        CheckpointError: it is missing, or has another shape.
    """
    if name not in file.names():
        raise CheckpointError(f"it has no {name}", fix="the file is damaged or no ViT: get it again")
    shape = file.shape(name)
    if len(shape) != axes or not (all(shape) or empty):
        raise CheckpointError(f"{name} has the shape {shape}; expected {axes} axes, none empty", fix="get it again")
    return shape
