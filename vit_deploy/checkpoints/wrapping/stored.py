"""Weights that are stored otherwise and mean the same: eight bits with scales, masks beside them, MLX's matrices."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_deploy.checkpoints.source import KEY_END, TensorFile, TensorView
from vit_deploy.checkpoints.wrapping.mlx import WEIGHT, without_packing
from vit_deploy.checkpoints.wrapping.models import STEM
from vit_deploy.checkpoints.wrapping.pruned import with_masks
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

SCALES = (".weight_scale_inv", ".weight_scale", ".scale_weight")  # each is what the stored number is multiplied by
OF_INPUTS = (".input_scale", ".activation_scale", ".scale_input")
BLOCK = 128  # rows and columns that share a scale, where a scale is a matrix
FLOAT8 = ("F8_", "float8_")
MLX = "mlx"
CHANNELS = (1, 3, 4)


def as_plain(file: TensorFile) -> TensorFile:
    """The file with its weights as plain floats and its kernels as PyTorch has them; itself where they are that.

    Raises:
        CheckpointError: floats of eight bits whose scales cannot be told, or with scales for the activations too; or
            matrices that MLX has packed, and nothing says how.
    """
    file = with_masks(without_packing(file))
    names = list(file.names())
    scales = _scales(file, names)
    kernels = frozenset(_channels_last(file, names))
    return Stored(file, scales, kernels) if scales or kernels else file


@dataclass(frozen=True)
class Stored(TensorView):
    """A `TensorFile` whose weights are stored otherwise.

    Args:
        file: that is read.
        scales: name of the scale of each weight that has one.
        channels_last: names of kernels (outputs, rows, columns, channels).
    """

    scales: Mapping[str, str]
    channels_last: frozenset[str]

    @property
    def documents(self) -> Mapping[str, Any]:
        """Of the file."""
        return self.file.documents

    def names(self) -> Iterable[str]:
        """Names of all tensors but the scales."""
        hidden = frozenset(self.scales.values())
        return [name for name in self.file.names() if name not in hidden]

    def shape(self, name: str) -> tuple[int, ...]:
        """Of one tensor, a kernel's with its channels before rows and columns."""
        shape = self.file.shape(name)
        return (shape[0], shape[3], *shape[1:3]) if name in self.channels_last else shape

    def read(self, name: str) -> Float32:
        """One tensor as float32, scaled."""
        values = self.file.read(name)
        if name in self.scales:
            scale = _spread(self.file.read(self.scales[name]), values.shape, name)
            values = (values.astype(np.float64) * scale).astype(np.float32)
        return values.transpose(0, 3, 1, 2) if name in self.channels_last else values


def _scales(file: TensorFile, names: Iterable[str]) -> dict[str, str]:
    held = frozenset(names)
    eight = {name for name in held if file.dtype(name).startswith(FLOAT8)}
    if not eight:
        return {}
    of_inputs = {name.removesuffix(WEIGHT) + suffix for name in eight for suffix in OF_INPUTS}
    if found := next((name for name in sorted(held & of_inputs)), None):
        raise CheckpointError(
            f"its activations are quantized too, by {found.replace(KEY_END, '.')}",
            fix="get the weights that it was quantized from, and quantize what is exported: vit-deploy quantize",
        )
    scales: dict[str, str] = {}
    for name in eight:
        base = name.removesuffix(WEIGHT)
        beside = [base + suffix for suffix in SCALES if base + suffix in held]
        if len(beside) > 1:
            raise CheckpointError(f"{name} has several scales: {', '.join(beside)}", fix="save it as plain floats")
        if beside:
            scales[name] = beside[0]
    return scales


def _spread(scale: Float32, shape: tuple[int, ...], name: str) -> Float32:
    """A scale in the shape of its weight: one for all, one a row, or one a block of rows and columns."""
    rows = (shape[0], *(1,) * (len(shape) - 1)) if shape else ()
    if scale.size == 1:
        return scale.reshape(())
    if shape and scale.size == shape[0] and scale.shape[0] == shape[0]:
        return scale.reshape(rows)
    if len(shape) == 2 and scale.shape == tuple(math.ceil(side / BLOCK) for side in shape):
        return np.kron(scale, np.ones((BLOCK, BLOCK), np.float32))[: shape[0], : shape[1]]
    raise CheckpointError(
        f"{name.replace(KEY_END, '.')} {shape} has a scale of the shape {scale.shape}; expected one for all, "
        f"one a row, or one for {BLOCK} rows and columns",
        fix="save it as plain floats",
    )


def _channels_last(file: TensorFile, names: Iterable[str]) -> Iterable[str]:
    """Kernels as MLX has them: all where the file says so, else patch embeddings that can be nothing else."""
    said = file.documents.get("format") == MLX
    for name in names:
        shape = file.shape(name)
        if len(shape) != 4:
            continue
        if said or (
            STEM.match(name.rpartition(KEY_END)[2])
            and shape[3] in CHANNELS
            and shape[1] not in CHANNELS
            and shape[2] > 1
        ):
            yield name
