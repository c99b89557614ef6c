"""timm's NaFlexViT at one image size, as the plain ViT that it is there.

Its patches are a matrix over pixels (row, column, channel), and its position table is that of a grid of its own, which
it resamples for the grid of the images: `par` models and RADIO to a square of which they take the top left, `parfac`
ones for rows and columns apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vit_deploy.checkpoints.documents import explained
from vit_deploy.checkpoints.importing import without_rest
from vit_deploy.checkpoints.source import Stated, TensorFile
from vit_deploy.checkpoints.timm.architectures import architecture_named
from vit_deploy.checkpoints.timm.config import data_of
from vit_deploy.checkpoints.timm.named import Documents
from vit_deploy.checkpoints.timm.names import NAFLEX, NAFLEX_PATCHES, PATCHES, Renamed
from vit_deploy.core.config_checks import as_pair
from vit_deploy.core.resampling import (
    Filter,
    bicubic_antialias,
    bilinear,
    bilinear_aligned,
    bilinear_antialias,
    resample,
)
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

MARK = re.compile(rf"(?P<prefix>(?:.*\.)?){re.escape(NAFLEX_PATCHES)}")
TABLE, ROWS, COLUMNS = "embeds.pos_embed", "embeds.pos_embed_y", "embeds.pos_embed_x"
NAMES: Mapping[str, str] = {
    "embeds.proj.": "patch_embed.proj.",
    "embeds.norm.": "patch_embed.norm.",
    "embeds.cls_token": "cls_token",
    "embeds.reg_token": "reg_token",
}
Grid = tuple[int, int]


@dataclass(frozen=True)
class Interpolation:
    """How an architecture resamples its position table.

    Args:
        kind: the filter.
        square: whether to a square of the longer side, of which the top left is taken.
    """

    kind: Filter
    square: bool = False


ARCHITECTURES: Mapping[str, Interpolation] = {
    **dict.fromkeys(
        (
            *("naflexvit_base_patch16_gap", "naflexvit_base_patch16_map"),
            *("naflexvit_so150m2_patch16_reg1_gap", "naflexvit_so150m2_patch16_reg1_map"),
        ),
        Interpolation(bicubic_antialias),
    ),
    **dict.fromkeys(
        ("naflexvit_base_patch16_siglip", "naflexvit_so400m_patch16_siglip"), Interpolation(bilinear_antialias)
    ),
    "naflexvit_base_patch16_par_gap": Interpolation(bicubic_antialias, square=True),
    "naflexvit_base_patch16_parfac_gap": Interpolation(bilinear, square=True),
    **dict.fromkeys(
        ("naflexvit_base_patch16_radio_v3", "naflexvit_huge_patch16_radio_v3"),
        Interpolation(bilinear_aligned, square=True),
    ),
    **dict.fromkeys(
        (
            *("naflexvit_large_patch16_radio_v3", "naflexvit_giant_patch16_radio_v3"),
            *("naflexvit_so400m_patch16_radio_v4", "naflexvit_huge_patch16_radio_v4"),
        ),
        Interpolation(bilinear, square=True),
    ),
}


@dataclass(frozen=True)
class Naflex(Renamed):
    """A `TensorFile` of a NaFlexViT under the names and with the shapes of a plain ViT.

    Args:
        file: that is read.
        stored: name in the file, by the name here.
        patch: pixels of a patch along (height, width).
        grid: the patches along (height, width) that positions are resampled for.
        interpolation: how they are.
    """

    patch: Grid
    grid: Grid
    interpolation: Interpolation

    @property
    def documents(self) -> Mapping[str, Any]:
        """Of the file, and that it is one of these."""
        return Documents(self.file.documents, NAFLEX, "yes")

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        shape = super().shape(name)
        if name == PATCHES:
            return (shape[0], shape[1] // (self.patch[0] * self.patch[1]), *self.patch)
        return (1, self.grid[0] * self.grid[1], shape[-1]) if name == "pos_embed" else shape

    def read(self, name: str) -> Float32:
        """One tensor as float32."""
        values = super().read(name)
        if name == PATCHES:
            return values.reshape(len(values), *self.patch, -1).transpose(0, 3, 1, 2)
        return self._positions(values)[None] if name == "pos_embed" else values

    def _positions(self, values: Float32) -> Float32:
        if values.ndim == 4:
            return self._resampled(values[0]).reshape(-1, values.shape[-1])
        columns = self.file.read(self.stored_name("pos_embed").removesuffix("_y") + "_x")
        rows = self._resampled(values[0][:, None], sides=(True, False))
        across = self._resampled(columns[0][None], sides=(False, True))
        return (rows + across).reshape(-1, values.shape[-1])

    def _resampled(self, table: Float32, sides: tuple[bool, bool] = (True, True)) -> Float32:
        wanted = (max(self.grid),) * 2 if self.interpolation.square else self.grid
        if all(sides) and table.shape[:2] == self.grid:  # which the program leaves as it is
            return table
        size = tuple(length if along else 1 for length, along in zip(wanted, sides, strict=True))
        whole = resample(table, (size[0], size[1]), self.interpolation.kind)
        return whole[: self.grid[0] if sides[0] else 1, : self.grid[1] if sides[1] else 1]


def at_one_size(file: TensorFile, stated: Stated) -> TensorFile:
    """The file as that of a plain ViT, where it is a NaFlexViT's; the one given where it is not.

    Args:
        file: under its own names.
        stated: what the user says, of which the image size counts; else it is that of config.json.

    Raises:
        CheckpointError: nobody says which of timm's architectures it is, or its tensors are damaged.
    """
    names = list(file.names())
    prefixes = [found["prefix"] for name in names if (found := MARK.fullmatch(name))]
    if len(prefixes) != 1 or "model_type" in (file.documents.get("config.json") or {}):
        return file
    (prefix,) = prefixes
    table = next((prefix + name for name in (TABLE, ROWS) if prefix + name in names), None)
    matrix = file.shape(prefix + NAFLEX_PATCHES)
    if table is None or len(matrix) != 2 or (table.endswith("_y") and prefix + COLUMNS not in names):
        return file
    with explained("config.json"):
        architecture, patch, size = _said(file, stated)
    if architecture not in ARCHITECTURES:
        raise CheckpointError(
            f"it is a NaFlexViT of timm, and its architecture {architecture!r} is none that is known",
            fix=f"say which: --architecture with one of {', '.join(ARCHITECTURES)}",
        )
    if matrix[1] % (patch[0] * patch[1]):
        what = f"{prefix}{NAFLEX_PATCHES} {matrix} is for no patches of {patch[0]}x{patch[1]} pixels"
        raise CheckpointError(what, fix="get the file again")
    home = file.shape(table)
    read = without_rest(size, patch)
    grid = (read[0] // patch[0], read[1] // patch[1])
    if 0 in grid or (table.endswith(TABLE) and len(home) != 4):
        raise CheckpointError(f"{table} {home} is no table of patches", fix="get the file again")
    stored = {_renamed(name.removeprefix(prefix)): name for name in names if name != prefix + COLUMNS}
    return Naflex(file, {**stored, "pos_embed": table}, patch, grid, ARCHITECTURES[architecture])


def _renamed(name: str) -> str:
    if name in (TABLE, ROWS):
        return "pos_embed"
    for theirs, ours in NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _said(file: TensorFile, stated: Stated) -> tuple[str, Grid, Grid]:
    """Architecture, patch and image size that somebody says."""
    document = file.documents.get("config.json") or {}
    arguments, data = dict(document.get("model_args") or {}), data_of(document)
    architecture = str(file.documents.get("--architecture") or document.get("architecture") or "").partition(".")[0]
    patch = as_pair(arguments.get("patch_size", 16), "patch_size")
    said = stated.get("image_size") or arguments.get("img_size") or (data.get("input_size") or [])[1:]
    known = architecture_named(architecture)
    usual = patch if known is None else known.image_size
    return architecture, patch, as_pair(said or usual, "image_size")
