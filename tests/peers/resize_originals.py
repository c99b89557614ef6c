"""The programs that checkpoints come from, asked to resample a grid of positions or a patch kernel.

Needs torch, timm (for kernels and timm's positions) and scipy; grids are float32 `(height, width, dim)`, kernels
`(height, width, channels, dim)`, as everywhere here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Size = tuple[int, int]


def torch_interpolate(grid: NDArray[Any], **options: Any) -> NDArray[Any]:
    import torch

    # In this layout, which is that of a position table with its axes swapped: for a contiguous tensor torch 2.13's
    # antialias returns something else when the width becomes 1.
    tensor = torch.from_numpy(grid)[None].permute(0, 3, 1, 2)
    out = torch.nn.functional.interpolate(tensor, align_corners=False, **options)
    return out[0].permute(1, 2, 0).contiguous().numpy()


def timm(grid: Array, size: Size) -> Array:
    import torch
    from timm.layers import resample_abs_pos_embed

    table = torch.from_numpy(grid).reshape(1, -1, grid.shape[-1])
    out = resample_abs_pos_embed(table, new_size=list(size), old_size=list(grid.shape[:2]), num_prefix_tokens=0)
    return out.reshape(*size, -1).numpy()


def huggingface(grid: Array, size: Size) -> Array:
    return torch_interpolate(grid, size=size, mode="bicubic")


def google(grid: Array, size: Size) -> Array:
    from scipy.ndimage import zoom

    # mode="nearest" differs from the original's call only where rounding takes the last sample beyond the edge.
    zooms = (size[0] / grid.shape[0], size[1] / grid.shape[1], 1)
    result: Array = zoom(grid, zooms, order=1, mode="nearest")
    return result


def dinov2(grid: Array, size: Size) -> Array:
    # facebookresearch/dinov2, dinov2/models/vision_transformer.py, interpolate_pos_encoding
    factors = tuple(float((new + 0.1) / old) for new, old in zip(size, grid.shape, strict=False))
    return torch_interpolate(grid, scale_factor=factors, mode="bicubic")


def dinov2_registers(grid: Array, size: Size) -> Array:
    # the same function with the options of the models with registers: no offset, antialias
    return torch_interpolate(grid, size=size, mode="bicubic", antialias=True)


def siglip2(grid: Array, size: Size) -> Array:
    # what big_vision and TIPS v2 call, and transformers writes out for SigLIP 2
    return torch_interpolate(grid, size=size, mode="bilinear", antialias=True)


def pe(grid: Array, size: Size) -> Array:
    # facebookresearch/perception_models, core/vision_encoder/pe.py, _sample_abs_posemb
    return torch_interpolate(grid, size=size, mode="bilinear")


def timm_kernel(kernel: Array, size: Size) -> Array:
    import torch
    from timm.layers import resample_patch_embed

    tensor = torch.from_numpy(kernel).permute(3, 2, 0, 1)
    out = resample_patch_embed(tensor, list(size))
    return out.permute(2, 3, 1, 0).contiguous().numpy()


def flexivit_kernel(kernel: Array, size: Size) -> Array:
    """google-research/big_vision, proj/flexi/vit.py: the whole matrix of basis images and its pseudo-inverse.

    In float64: where one side grows and the other shrinks the matrix has no full rank, and the original's
    pseudo-inverse in float32 divides by what rounding made of zero.
    """
    height, width, *rest = kernel.shape
    basis = np.eye(height * width).reshape(height, width, -1)
    matrix = torch_interpolate(basis, size=size, mode="bilinear").reshape(-1, height * width)
    inverse = np.linalg.pinv(matrix.T)
    return (inverse @ kernel.reshape(height * width, -1)).reshape(*size, *rest).astype(np.float32)


POSITIONS = {
    "timm": timm,
    "huggingface": huggingface,
    "google": google,
    "dinov2": dinov2,
    "dinov2-registers": dinov2_registers,
    "siglip2": siglip2,
    "pe": pe,
}
KERNELS = {
    "timm": timm_kernel,
    "huggingface": flexivit_kernel,
    "google": flexivit_kernel,
    "dinov2": flexivit_kernel,
    "dinov2-registers": flexivit_kernel,
    "siglip2": flexivit_kernel,
    "pe": flexivit_kernel,
}
