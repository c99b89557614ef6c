"""Grids of vectors resampled to another size, as each program that checkpoints come from does it.

Every convention is separable: one matrix `(target, source)` an axis, applied as rows @ grid @ columns^T in float64.
Below, pixel i of n covers the interval from i to i + 1, so that its centre is at i + 0.5.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.floating]
Float32 = NDArray[np.float32]
Filter = Callable[[int, int], Matrix]

DINOV2_OFFSET = 0.1


def bicubic(source: int, target: int) -> Matrix:
    """Torch's bicubic interpolation without antialias: a = -0.75, half-pixel centres, edges repeated."""
    return _cubic_convolution(source, target, source / target)


def bicubic_dinov2(source: int, target: int) -> Matrix:
    """`bicubic` with the scale of DINOv2, which adds 0.1 to the target when it divides by it.

    The original passes scale factors instead of sizes to torch, and adds the offset so that rounding cannot cost a
    row (facebookresearch/dino, issue 8); torch then samples with these scales, so that the offset moves all positions.
    """
    return _cubic_convolution(source, target, source / (target + DINOV2_OFFSET))


def bicubic_antialias(source: int, target: int) -> Matrix:
    """Torch's and Pillow's bicubic filter: a = -0.5, widened when it shrinks, cut off at the edges and normalised."""
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale
    distances = (np.arange(source) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = _cubic(distances, -0.5)
    normalised: Matrix = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def bilinear(source: int, target: int) -> Matrix:
    """Bilinear interpolation without antialias: half-pixel centres, edges repeated (`tf.image.resize`)."""
    positions = (np.arange(target) + 0.5) * (source / target) - 0.5
    return _linear(source, positions)


def bilinear_antialias(source: int, target: int) -> Matrix:
    """Torch's and Pillow's bilinear filter: widened when it shrinks, cut off at the edges and normalised."""
    scale = source / target
    centres = (np.arange(target) + 0.5) * scale
    distances = (np.arange(source) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.maximum(1 - np.abs(distances), 0)
    normalised: Matrix = weights / weights.sum(axis=1, keepdims=True)
    return normalised


def bilinear_aligned(source: int, target: int) -> Matrix:
    """`scipy.ndimage.zoom` of order 1: first and last samples fall on each other; a single one takes the first.

    For some sizes (16 to 30 is one) scipy's last coordinate is rounded to beyond the edge and its answer there is
    zero. That is not copied: here the last sample is the last one, as with scipy's mode="nearest".
    """
    return _linear(source, np.arange(target) * ((source - 1) / max(target - 1, 1)))


def progression(source: int, target: int) -> Matrix:
    """BEiT's way with tables of relative positions: linear between distances that grow as a geometric progression.

    Small distances keep what they learned, and large ones are drawn out (unilm, `run_class_finetuning.py`, with the
    linear interpolation that timm has in place of scipy's splines). Both sizes are odd, with no distance in the middle.
    """
    low, high = 1.01, 1.5
    while high - low > 1e-6:
        ratio = (low + high) / 2
        reached = (1 - ratio ** (source // 2)) / (1 - ratio)
        low, high = (low, ratio) if reached > target // 2 else (ratio, high)
    right = np.cumsum([ratio**power for power in range(source // 2)])
    known = np.concatenate([-right[::-1], [0.0], right])
    wanted = np.arange(target) - target // 2
    matrix: Matrix = np.stack([np.interp(wanted, known, one) for one in np.eye(source)], axis=1)
    return matrix


def _linear(source: int, positions: Matrix) -> Matrix:
    inside = np.clip(positions, 0, source - 1)
    matrix: Matrix = np.maximum(1 - np.abs(np.arange(source) - inside[:, None]), 0)
    return matrix


def _cubic_convolution(source: int, target: int, scale: float) -> Matrix:
    positions = (np.arange(target) + 0.5) * scale - 0.5
    nearest = np.floor(positions).astype(np.intp)
    matrix = np.zeros((target, source))
    for tap in (-1, 0, 1, 2):
        column = nearest + tap
        np.add.at(matrix, (np.arange(target), np.clip(column, 0, source - 1)), _cubic(positions - column, -0.75))
    return matrix


def _cubic(distance: Matrix, a: float) -> Matrix:
    """The cubic convolution kernel (Keys 1981); zero from a distance of two on."""
    x = np.abs(distance)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def resample(grid: NDArray[np.floating], size: tuple[int, int], kind: Filter) -> Float32:
    """A grid of vectors `(height, width, dim)` at another (height, width); itself where nothing changes."""
    source = (grid.shape[0], grid.shape[1])
    if source == size:
        return grid.astype(np.float32, copy=False)
    rows, columns = (kind(old, new) for old, new in zip(source, size, strict=True))
    return _separable(rows, grid, columns)


def resample_kernel(kernel: NDArray[np.floating], size: tuple[int, int], kind: Filter) -> Float32:
    """A patch kernel `(height, width, channels, dim)` for patches of another (height, width).

    The pseudo-inverse resize of FlexiViT (Beyer et al. 2023, section 3.4): the kernel whose answers to resized patches
    are nearest to the old ones' answers to the patches themselves, w' = pinv(B^T) w for patches resized by B. They are
    equal where B loses nothing, as when it enlarges both sides; else they are equal for the patches that B keeps,
    those in the span of its rows. B is separable, and so is its pseudo-inverse.
    """
    source = (kernel.shape[0], kernel.shape[1])
    if source == size:
        return kernel.astype(np.float32, copy=False)
    rows, columns = (np.linalg.pinv(kind(old, new).T) for old, new in zip(source, size, strict=True))
    return _separable(rows, kernel, columns)


def _separable(rows: Matrix, values: NDArray[np.floating], columns: Matrix) -> Float32:
    # Not `@`: these are small, and the threads that it wakes in BLAS spin for longer than all of it takes.
    height, width, *rest = values.shape
    wide = values.astype(np.float64).reshape(height, width, -1)
    tall = np.einsum("ij,jkd->ikd", rows, wide)
    resampled: Float32 = np.einsum("ij,kjd->kid", columns, tall).astype(np.float32)
    return resampled.reshape(len(rows), len(columns), *rest)
