"""Products of 8-bit integers as x86 processors without VNNI compute them: pairs of products added in 16 bits.

AVX2, and AVX-512 before VNNI, multiply unsigned by signed bytes with `VPMADDUBSW`, which adds the products of two
neighbours along the inputs and saturates at 16 bits; sums of 32 bits come after that. Two products of 255 with weights
of one sign pass 16 bits once the weights add up to more than 128.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format_table import FORMATS

LEAST, MOST = -(1 << 15), (1 << 15) - 1  # of a sum of two products
LARGEST = 255  # of an activation
LARGEST_SUM = MOST // LARGEST  # of two neighbouring weights that no activations bring to saturation

EXACT_KERNELS = ("session.x64quantprecision", "1")  # a setting of ONNX Runtime's sessions, for x86 without VNNI
WARNING = (
    "this x86 processor has no VNNI: ONNX Runtime adds products of 8 bits in pairs of 16 here, and int8 files whose "
    "weights reach 127 everywhere answer wrong; those of vit-deploy quantize fit, others need "
    "session.x64quantprecision=1"
)
FIX = "quantize it again, or set ONNX Runtime's session.x64quantprecision to 1, which is slower"

Integers = NDArray[np.int64]


def saturated_product(activations: NDArray[np.uint8], weights: NDArray[np.int8]) -> Integers:
    """`activations @ weights` without VNNI.

    Args:
        activations: `(rows, inputs)`; the zero point is not yet taken off.
        weights: `(inputs, outputs)`.

    Returns:
        Integers `(rows, outputs)`; the exact product minus what saturation takes off.
    """
    exact: Integers = np.rint(activations.astype(np.float64) @ weights.astype(np.float64)).astype(np.int64)
    values, kernel = _even(activations, axis=1).astype(np.int64), _even(weights, axis=0).astype(np.int64)
    largest = values.max(axis=0, initial=0)[:, None]
    reached = kernel * largest
    pairs = reached[0::2] + reached[1::2]  # exceeds nothing where the signs differ
    beyond = (pairs > MOST) | (pairs < LEAST)
    for pair in np.flatnonzero(beyond.any(axis=1)):
        columns, first = np.flatnonzero(beyond[pair]), 2 * pair
        sums = values[:, first, None] * kernel[first, columns] + values[:, first + 1, None] * kernel[first + 1, columns]
        exact[:, columns] += np.clip(sums, LEAST, MOST) - sums
    return exact


def has_products(artifact: Artifact) -> bool:
    """Whether an engine multiplies unsigned activations by signed weights of 8 bits for an artifact.

    ONNX Runtime does in both precisions, OpenVINO in `int8-static`. LiteRT's kernels for AVX2 do not: under QEMU's
    Haswell its int8, int8-static, int8-full and int4 files of a trained ViT were as near to the reference as here.
    """
    return artifact.format in FORMATS and artifact.precision in FORMATS[artifact.format].saturating


def may_saturate(artifact: Artifact) -> bool:
    """Whether its weights were not made to fit; other tools and earlier versions let them reach 127 in every place."""
    recipe = artifact.options.get("recipe") or {}
    return has_products(artifact) and not recipe.get("fitting_pairs", False)


def lacks_vnni(features: Mapping[str, bool]) -> bool:
    """Whether a processor of these features (see `cpu_features`) is an x86 one without VNNI; unknown ones are not."""
    return not features.get("VNNI", True)


def saturates(weights: NDArray[Any]) -> bool:
    """Whether some activations bring a pair of products of weights `(inputs, outputs)` to saturation."""
    return bool(np.any(np.abs(sums_of_pairs(weights)) > LARGEST_SUM))


def sums_of_pairs(weights: NDArray[Any]) -> NDArray[Any]:
    """The sums of weights next to each other along the inputs, `(ceil(inputs / 2), outputs)`, as wider integers.

    Two weights of different signs never add up to more than one of them.
    """
    kernel = _even(weights, axis=0)
    kernel = kernel.astype(np.int64) if kernel.dtype.itemsize == 1 else kernel
    sums: NDArray[Any] = kernel[0::2] + kernel[1::2]
    return sums


def _even(array: NDArray[Any], *, axis: int) -> NDArray[Any]:
    """With a zero behind an odd number, as the kernels fill up."""
    if array.shape[axis] % 2 == 0:
        return array
    return np.pad(array, [(0, int(dimension == axis)) for dimension in range(array.ndim)])
