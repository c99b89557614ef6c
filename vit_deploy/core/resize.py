"""A checkpoint resized for images, or patches, of another size.

The position tables, the patch kernel and the recorded resize of the preprocessing; nothing else depends on the size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import numpy as np

from vit_deploy.core.checkpoint import Checkpoint, weights_digests
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.image_sizes import resized_preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.core.resampling import (
    Filter,
    Float32,
    bicubic,
    bicubic_antialias,
    bicubic_dinov2,
    bilinear,
    bilinear_aligned,
    bilinear_antialias,
    progression,
    resample,
    resample_kernel,
)
from vit_deploy.core.weights import TABLES, relative_names
from vit_deploy.errors import ConfigError, did_you_mean

Size = tuple[int, int]
__all__ = [
    "DEFAULT",
    "FILTERS",
    "Convention",
    "Filters",
    "as_convention",
    "assumed_convention",
    "convention_of",
    "resize",
    "resized_positions",
    "resized_preprocess",
    "sizes",
]


class Convention(StrEnum):
    """Whose way of resampling.

    `dinov2` has one of its own for models with register tokens, and `siglip2` is that of TIPS v2, too; `pe` is that of
    Perception Encoder's authors.
    """

    TIMM = "timm"
    HUGGINGFACE = "huggingface"
    GOOGLE = "google"
    DINOV2 = "dinov2"
    DINOV2_REGISTERS = "dinov2-registers"
    SIGLIP2 = "siglip2"
    PE = "pe"


@dataclass(frozen=True)
class Filters:
    """What a convention resamples with.

    Args:
        positions: the positions of the grid of the position table.
        patches: that images are resized with, which the patch kernel is resized against.
        relative: of the tables of relative positions.
    """

    positions: Filter
    patches: Filter
    relative: Filter = progression


# Where the original program resizes no patches, FlexiViT's own bilinear stands in.
FILTERS: Mapping[Convention, Filters] = MappingProxyType(
    {
        Convention.TIMM: Filters(bicubic_antialias, bicubic_antialias),
        Convention.HUGGINGFACE: Filters(bicubic, bilinear, bilinear),
        Convention.GOOGLE: Filters(bilinear_aligned, bilinear),
        Convention.DINOV2: Filters(bicubic_dinov2, bilinear),
        Convention.DINOV2_REGISTERS: Filters(bicubic_antialias, bilinear),
        Convention.SIGLIP2: Filters(bilinear_antialias, bilinear),
        Convention.PE: Filters(bilinear, bilinear),
    }
)

RESAMPLED = "naflex"  # the family of models whose table is for another grid than that of their images
OF_THE_SIZE: Mapping[str, Any] = {"positions": "of the image size"}
"""The fact of a checkpoint whose positions its program computes for the size of the images."""
DEFAULT = Convention.TIMM  # of models that come from no other program, our own among them


def resize(
    checkpoint: Checkpoint,
    image_size: Size | None = None,
    patch_size: Size | None = None,
    like: Convention | None = None,
) -> Checkpoint:
    """The same model for images and patches of other sizes.

    Args:
        checkpoint: is not changed; the weights that stay are shared.
        image_size: (height, width) in pixels; None keeps it.
        patch_size: (height, width) in pixels; None keeps it.
        like: the convention; None follows `convention_of`.

    Returns:
        A checkpoint whose provenance has a step `resize` with sizes, convention and the digest before; the checkpoint
        itself where both sizes are what they were.

    Raises:
        ConfigError: an image that is not a multiple of its patch, relative positions that hold for one size, or other
            patches where the pixels of each have a norm.
    """
    convention = convention_of(checkpoint, like)
    old = checkpoint.config
    new = old.replace(image_size=image_size or old.image_size, patch_size=patch_size or old.patch_size)
    if new == old:
        return checkpoint
    if like is None and new.grid != old.grid:
        check_positions(checkpoint)
    if (old.pixel_norm or old.patch_padding) and new.patch_size != old.patch_size:
        what = "pads its images" if old.patch_padding else "normalizes the pixels of each patch"
        raise ConfigError(
            f"it {what}, pixel by pixel, so that its patches have one size",
            fix="leave --patch-size out",
        )
    filters = FILTERS[convention]
    prefix = old.num_prefix_tokens
    table, kernel = checkpoint.weights["pos_embed.table"], checkpoint.weights["patch_embed.kernel"]
    changed = {
        "pos_embed.table": resized_positions(table, old.grid, new.grid, filters.positions, prefix),
        "patch_embed.kernel": resample_kernel(kernel, new.patch_size, filters.patches),
        **_resized_relative(checkpoint, new, filters.relative),
    }
    # A digest takes longer than everything else here, and most of it is the same before and after.
    digest_before, digest_after = weights_digests(checkpoint.weights, {**checkpoint.weights, **changed})
    facts = {
        "from": sizes(old),
        "to": sizes(new),
        "convention": str(convention),
        "digest_before": digest_before,
    }
    preprocess = resized_preprocess(checkpoint.preprocess, old.image_size, new.image_size)
    resized = checkpoint.with_weights(changed, config=new, preprocess=preprocess, step=Step("resize", facts))
    vars(resized)["_digest"] = digest_after  # where its cached property looks first
    return resized


def check_positions(checkpoint: Checkpoint) -> None:
    """Refuse to resample positions that were computed for one size, or resampled for it, when they were read.

    Raises:
        ConfigError: they were, as a NaFlexViT's are.
    """
    fix = "give the file that it was read of, which is read at the size that is wanted; or say --like"
    if _resampled(checkpoint):
        raise ConfigError(
            "its positions were resampled for its image size when it was read, and would be resampled twice", fix=fix
        )
    if _computed(checkpoint):
        raise ConfigError("its positions were computed for its image size when it was read", fix=fix)


def follows_size(checkpoint: Checkpoint) -> bool:
    """Whether its positions are those of the size that it is read at, so that it is read again for another."""
    return _resampled(checkpoint) or _computed(checkpoint)


def _resampled(checkpoint: Checkpoint) -> bool:
    return any(step.facts.get("family") == RESAMPLED for step in checkpoint.provenance)


def _computed(checkpoint: Checkpoint) -> bool:
    return any(OF_THE_SIZE.items() <= step.facts.items() for step in checkpoint.provenance)


def as_convention(name: str) -> Convention:
    """The convention of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in list(Convention):
        raise ConfigError(f"unknown convention {name!r}", fix=did_you_mean(name, map(str, Convention)))
    return Convention(name)


def convention_of(checkpoint: Checkpoint, like: Convention | None = None) -> Convention:
    """The convention that was asked for, else that of the program the checkpoint came from, else timm's.

    The program is the fact `family` of the last step in the provenance that has one. DINOv2 resamples
    its models with registers in another way.
    """
    families = [step.facts.get("family") for step in checkpoint.provenance]
    known = [family for family in families if family in list(Convention)]
    convention = like or Convention(known[-1] if known else DEFAULT)
    has_registers = checkpoint.config.register_tokens > 0
    return Convention.DINOV2_REGISTERS if convention is Convention.DINOV2 and has_registers else convention


def assumed_convention(checkpoint: Checkpoint, like: Convention | None = None) -> str:
    """What to tell of a checkpoint from a program whose way of resampling is none of these; empty for others."""
    families = [str(step.facts["family"]) for step in checkpoint.provenance if step.facts.get("family")]
    if like is not None or not families or set(families) & set(Convention):
        return ""
    return f"assumed: a {families[-1]} checkpoint is resampled as {DEFAULT} does it (say otherwise with --like)"


def resized_positions(table: Float32, old: Size, new: Size, kind: Filter, prefix: int) -> Float32:
    """A position table `(tokens, dim)` for another grid; its first `prefix` rows belong to no patch and stay."""
    grid = table[prefix:].reshape(*old, -1)
    patches = resample(grid, new, kind).reshape(-1, table.shape[1])
    return np.concatenate([table[:prefix], patches])


def _resized_relative(checkpoint: Checkpoint, new: ViTConfig, kind: Filter) -> dict[str, Float32]:
    """The tables of relative positions for another grid.

    Raises:
        ConfigError: it holds what is added to the scores instead, which no table is left of.
    """
    old = checkpoint.config
    names = relative_names(old)
    if not names or new.grid == old.grid:
        return {}
    if old.relative_positions not in TABLES:
        raise ConfigError(
            f"its relative positions are {old.relative_positions}, which hold for images of "
            f"{old.image_size[0]}x{old.image_size[1]} alone",
            fix="resize it in the program that it comes from",
        )
    before, after = ((2 * grid[0] - 1, 2 * grid[1] - 1) for grid in (old.grid, new.grid))
    tables = {name: checkpoint.weights[name] for name in names}
    count = before[0] * before[1]
    return {
        name: np.concatenate(
            [resample(table[:count].reshape(*before, -1), after, kind).reshape(-1, table.shape[1]), table[count:]]
        )
        for name, table in tables.items()
    }


def sizes(config: ViTConfig) -> dict[str, list[int]]:
    """Image and patch size in plain JSON values."""
    return {"image_size": list(config.image_size), "patch_size": list(config.patch_size)}
