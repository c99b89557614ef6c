"""Positions of a grid whose size is known when a graph runs, in the arithmetic of any engine.

What `core.resampling` and `core.rotary_angles` compute in float64 is spelled here in float32, so that any engine can do
it: distances between samples are quotients of whole numbers, which are exact, and so each weight is rounded a few times
alone. Grids are (rows, columns), each a scalar or a vector of one number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core import resampling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.resampling import Filter
from vit_deploy.core.rotary import FREQUENCIES, Rotary, RotaryConvention
from vit_deploy.core.rotary_angles import frequencies

Pair = tuple[Any, Any]


class Arithmetic(Protocol):
    """What an engine computes with; its values also have `+`, `-`, `*` and `/` with each other and with numbers."""

    def constant(self, values: NDArray[Any]) -> Any:
        """A float32 constant."""

    def counted(self, count: Any) -> Any:
        """The whole numbers below `count` as a column `(count, 1)`."""

    def absolute(self, value: Any) -> Any:
        """Without its sign."""

    def least(self, one: Any, other: Any) -> Any:
        """The smaller of each two."""

    def largest(self, one: Any, other: Any) -> Any:
        """The larger of each two."""

    def cosine(self, value: Any) -> Any:
        """Of radians."""

    def sine(self, value: Any) -> Any:
        """Of radians."""

    def product(self, left: Any, right: Any) -> Any:
        """Of matrices, or of each of a stack."""

    def row_sum(self, value: Any) -> Any:
        """Along the last axis, which is kept."""

    def reshaped(self, value: Any, sides: Sequence[int]) -> Any:
        """With other sides, of which one may be -1."""

    def part(self, value: Any, start: int, end: int | None) -> Any:
        """Rows from `start` to before `end`; None for all that follow."""

    def joined(self, values: Sequence[Any], axis: int) -> Any:
        """One behind the other."""


@dataclass(frozen=True)
class Sampling:
    """How far each source sample is from where each target sample falls, as quotients of whole numbers.

    Args:
        distances: from an arithmetic, the count of the source, that of the target as a value, whether anything is
            resampled at all (1 or 0, as a value) and a filter's row of source samples, to `(target, source)`.
        kernel: from an arithmetic and absolute distances to weights.
        edge: samples beyond each edge that the kernel reaches, whose weights the last sample gets.
        normalised: whether weights are divided by their sum.
    """

    distances: Callable[[Arithmetic, int, Any, Any, Any], Any]
    kernel: Callable[[Arithmetic, Any], Any]
    edge: int = 0
    normalised: bool = False


def _half_pixel(xp: Arithmetic, source: int, target: Any, moved: Any, samples: Any) -> Any:
    places = (xp.counted(target) * 2 + 1) * source - target
    return (places - samples * (target * 2)) / (target * 2)


def _half_pixel_offset(xp: Arithmetic, source: int, target: Any, moved: Any, samples: Any) -> Any:
    # Ten times the offset of 0.1 is a whole number; where nothing is resampled there is none.
    tenths = target * 10 + moved
    places = (xp.counted(target) * 2 + 1) * (10 * source) - tenths
    return (places - samples * (tenths * 2)) / (tenths * 2)


def _widened(xp: Arithmetic, source: int, target: Any, moved: Any, samples: Any) -> Any:
    centres = (xp.counted(target) * 2 + 1) * source
    return ((samples * 2 + 1) * target - centres) / (
        xp.largest(target, xp.constant(np.array([source], np.float32))) * 2
    )


def _ends_aligned(xp: Arithmetic, source: int, target: Any, moved: Any, samples: Any) -> Any:
    steps = xp.largest(target - 1, xp.constant(np.array([1], np.float32)))
    return (xp.counted(target) * (source - 1) - samples * steps) / steps


def _cubic(a: float) -> Callable[[Arithmetic, Any], Any]:
    def kernel(xp: Arithmetic, distance: Any) -> Any:
        # Both polynomials in factors: each is zero where the other takes over, and exact near there.
        one, two = xp.constant(np.array([1], np.float32)), xp.constant(np.array([2], np.float32))
        x = xp.least(distance, one)
        y = xp.least(xp.largest(distance, one), two)
        near = (one - x) * (one + x - x * x * (a + 2))
        return near + (y - 1) * (y - 2) * (y - 2) * a

    return kernel


def _triangle(xp: Arithmetic, distance: Any) -> Any:
    return xp.largest(distance * -1 + 1, xp.constant(np.array([0], np.float32)))


SAMPLINGS: Mapping[Filter, Sampling] = MappingProxyType(
    {
        resampling.bicubic: Sampling(_half_pixel, _cubic(-0.75), edge=2),
        resampling.bicubic_dinov2: Sampling(_half_pixel_offset, _cubic(-0.75), edge=2),
        resampling.bicubic_antialias: Sampling(_widened, _cubic(-0.5), normalised=True),
        resampling.bilinear: Sampling(_half_pixel, _triangle, edge=1),
        resampling.bilinear_antialias: Sampling(_widened, _triangle, normalised=True),
        resampling.bilinear_aligned: Sampling(_ends_aligned, _triangle),
    }
)
"""The filters that can be computed where the target's size is open."""


def interpolation(xp: Arithmetic, kind: Filter, source: int, target: Any, moved: Any) -> Any:
    """The matrix `(target, source)` of a filter; see `core.resampling`.

    Args:
        xp: the arithmetic of the result.
        kind: the filter, one of `SAMPLINGS`.
        source: the count of samples that there are.
        target: the count of samples that are wanted.
        moved: 0 where neither side of the grid changes, which some filters leave as it is; else 1.
    """
    sampling = SAMPLINGS[kind]
    samples = np.arange(-sampling.edge, source + sampling.edge)
    found = sampling.distances(xp, source, target, moved, xp.constant(samples[None].astype(np.float32)))
    weights = sampling.kernel(xp, xp.absolute(found))
    if sampling.edge:
        repeated = np.clip(samples, 0, source - 1)[:, None] == np.arange(source)
        weights = xp.product(weights, xp.constant(repeated.astype(np.float32)))
    return weights / xp.row_sum(weights) if sampling.normalised else weights


def position_table(xp: Arithmetic, kind: Filter, table: Any, config: ViTConfig, grid: Pair) -> Any:
    """A position table for another grid, prefix tokens first; see `core.resize.resized_positions`.

    Args:
        xp: the arithmetic of the result.
        kind: the filter.
        table: `(tokens, dim)`, for the grid of the config.
        config: of the ViT, whose image size is the one that it was trained for.
        grid: the patches along (height, width) that are wanted.
    """
    (height, width), prefix, dim = config.grid, config.num_prefix_tokens, config.embed_dim
    changes = [xp.absolute(wanted - there) for wanted, there in zip(grid, config.grid, strict=True)]
    moved = xp.least(changes[0] + changes[1], xp.constant(np.array([1], np.float32)))
    rows, columns = (
        interpolation(xp, kind, there, wanted, moved) for wanted, there in zip(grid, config.grid, strict=True)
    )
    patches = xp.reshaped(xp.part(table, prefix, None), (height, width * dim))
    tall = xp.reshaped(xp.product(rows, patches), (-1, width, dim))
    resampled = xp.reshaped(xp.product(columns, tall), (-1, dim))
    return xp.joined([xp.part(table, 0, prefix), resampled], 0) if prefix else resampled


def rotary_tables(xp: Arithmetic, config: ViTConfig, grid: Pair, learned: Mapping[str, NDArray[Any]]) -> Pair:
    """Cosine and sine of rotary positions, as `core.rotary_angles.tables` of `angles` for another grid.

    Args:
        xp: the arithmetic of the result.
        config: of a ViT with rotary positions.
        grid: the patches along (height, width).
        learned: what the attention of a block learned for its positions, by name.

    Returns:
        Two tables `(tokens, head_dim)`, or `(heads, tokens, head_dim)` where heads learn their frequencies.
    """
    rotary = config.rotary
    assert rotary is not None  # it is asked of models that have some
    places = [
        _coordinates(xp, rotary, length, None if rotary.reference_grid is None else rotary.reference_grid[axis], config)
        for axis, length in enumerate(grid)
    ]
    if rotary.learns_frequencies:
        cosine, sine = _of_heads(xp, config, places, learned[FREQUENCIES])
    else:
        cosine, sine = _of_axes(xp, config, places, grid)
    ahead = np.zeros((config.num_prefix_tokens, config.head_dim // 2))
    if rotary.turns_class_token:
        ahead[:1] = learned[rotary.traits.weight]
    if rotary.learns_frequencies:
        ahead = np.broadcast_to(ahead, (config.num_heads, *ahead.shape))
    halves = (xp.joined([cosine, cosine], -1), xp.joined([sine * -1, sine], -1))
    if not config.num_prefix_tokens:
        return halves
    fixed = np.concatenate([np.cos(ahead)] * 2, -1), np.concatenate([-np.sin(ahead), np.sin(ahead)], -1)
    axis = fixed[0].ndim - 2
    first, second = (
        xp.joined([xp.constant(prefix.astype(np.float32)), patches], axis)
        for prefix, patches in zip(fixed, halves, strict=True)
    )
    return first, second


def _coordinates(xp: Arithmetic, rotary: Rotary, length: Any, reference: int | None, config: ViTConfig) -> Any:
    """Where the patches along an axis are, as a column."""
    if rotary.traits.centred:
        return (xp.counted(length) * 2 + 1 - length) / length
    start = 1 if rotary.convention is RotaryConvention.PE and config.class_token else 0
    places = xp.counted(length) + start
    return places if reference is None else places * reference / length


def _of_axes(xp: Arithmetic, config: ViTConfig, places: Sequence[Any], grid: Pair) -> Pair:
    """Tables `(patches, head_dim / 2)` of which one half follows from the row and the other from the column."""
    rotary = config.rotary
    assert rotary is not None
    first, second = frequencies(rotary, config.head_dim)
    of_rows, of_columns = (second, first) if rotary.traits.columns_first else (first, second)
    down, across = (
        places[0] * xp.constant(of_rows.astype(np.float32)[None]),
        places[1] * xp.constant(of_columns.astype(np.float32)[None]),
    )
    count = len(first)
    nothing_down = xp.reshaped(xp.counted(grid[0]) * 0, (-1, 1, 1))
    nothing_across = xp.counted(grid[1]) * 0
    tables = []
    for function in (xp.cosine, xp.sine):
        rows = xp.reshaped(function(down), (-1, 1, count)) + nothing_across
        columns = function(across) + nothing_down
        both = [columns, rows] if rotary.traits.columns_first else [rows, columns]
        tables.append(xp.reshaped(xp.joined(both, -1), (-1, 2 * count)))
    return tables[0], tables[1]


def _of_heads(xp: Arithmetic, config: ViTConfig, places: Sequence[Any], learned: NDArray[Any]) -> Pair:
    """Tables `(heads, patches, head_dim / 2)` of frequencies that each head has learned for both axes."""
    rotary = config.rotary
    assert rotary is not None
    heads, half = config.num_heads, config.head_dim // 2
    of_rows, of_columns = learned[::-1] if rotary.traits.columns_first else learned
    down = xp.reshaped(places[0] * xp.constant(of_rows.astype(np.float32)[:, None]), (heads, -1, 1, half))
    across = xp.reshaped(places[1] * xp.constant(of_columns.astype(np.float32)[:, None]), (heads, 1, -1, half))
    turned = xp.reshaped(down + across, (heads, -1, half))
    return xp.cosine(turned), xp.sine(turned)
