"""How many blocks, heads and hidden units a shrunk ViT has, and which of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vit_deploy.compression.narrowing import Kept, probe_sizes
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.cost import macs
from vit_deploy.core.options.compressing import CompressOptions, Schedule
from vit_deploy.core.weights import SHARED
from vit_deploy.errors import ConfigError

STEP = 8  # hidden units: kernels of engines take so many at once
ROUNDS = 4  # of a gradual shrinking, the last one among them
SHORT = 10  # parts of all epochs, of which each round but the last takes one
LEAST = 0.25  # of the hidden units, below which no mix is tried


@dataclass(frozen=True)
class Sizes:
    """Blocks, heads a block and hidden units a block."""

    num_layers: int
    num_heads: int
    mlp_dim: int

    @classmethod
    def of(cls, config: ViTConfig) -> Sizes:
        """Those of a config."""
        return cls(config.num_layers, config.num_heads, config.mlp_dim)


@dataclass(frozen=True, eq=False)
class Importance:
    """What removing each part would change the loss by, to first order.

    Args:
        blocks: `(blocks,)`.
        heads: `(blocks, heads)`.
        units: `(blocks, hidden units)`.
    """

    blocks: NDArray[np.float64]
    heads: NDArray[np.float64]
    units: NDArray[np.float64]


def asked_sizes(options: CompressOptions, config: ViTConfig) -> Sizes | None:
    """The sizes that are asked for by number or fraction; None where a speed-up is asked for.

    Raises:
        ConfigError: more than there are, or all of everything.
    """
    if options.speedup:
        return None
    whole = Sizes.of(config)
    asked = Sizes(
        _count("keep_layers", options.keep_layers, whole.num_layers, 1),
        _count("keep_heads", options.keep_heads, whole.num_heads, 1),
        _count("keep_mlp", options.keep_mlp, whole.mlp_dim, STEP),
    )
    if asked == whole:
        raise ConfigError(
            f"all {whole.num_layers} blocks, {whole.num_heads} heads and {whole.mlp_dim} hidden units would stay",
            fix="keep fewer with --keep-layers, --keep-heads or --keep-mlp",
        )
    return asked


def check_sizes(options: CompressOptions, config: ViTConfig) -> None:
    """Whether a model can have the sizes that are asked for.

    Raises:
        ConfigError: as `asked_sizes` and `mixes`.
    """
    if asked_sizes(options, config) is None:
        mixes(config, options.speedup)


def _count(name: str, asked: float | None, whole: int, step: int) -> int:
    if asked is None:
        return whole
    if not isinstance(asked, int):
        return min(max(round(asked * whole / step) * step, min(step, whole)), whole) if asked < 1 else whole
    if asked > whole:
        option = f"--{name.replace('_', '-')}"
        raise ConfigError(f"{option} is {asked}, and the model has {whole}", fix=f"give {option} 1 to {whole}")
    return asked


def mixes(config: ViTConfig, speedup: float) -> list[Sizes]:
    """Sizes whose multiply-adds are as few as asked for: fewer units alone, fewer heads too, and with fewer blocks.

    Raises:
        ConfigError: what is not in the blocks takes too much.
    """
    found = list(dict.fromkeys(_mixes(config, speedup)))
    if not found:
        raise ConfigError(
            f"no sizes of the blocks give a speed-up of {speedup} by multiply-adds",
            fix="ask for less, or say what stays with --keep-layers, --keep-heads and --keep-mlp",
        )
    return found


def _mixes(config: ViTConfig, speedup: float) -> Iterator[Sizes]:
    most = macs(config) / speedup
    for layers in range(config.num_layers, 0, -1):
        sizes = [
            Sizes(layers, heads, _most_units(config, layers, heads, most)) for heads in range(config.num_heads, 0, -1)
        ]
        enough = [size for size in sizes if size.mlp_dim >= LEAST * config.mlp_dim]
        if enough:
            yield enough[0]
            yield min(enough, key=lambda each: abs(each.num_heads / config.num_heads - each.mlp_dim / config.mlp_dim))
            if enough[0] == Sizes(layers, config.num_heads, config.mlp_dim):
                break


def _most_units(config: ViTConfig, layers: int, heads: int, most: float) -> int:
    """The largest number of hidden units that keeps below so many multiply-adds; 0 for none."""

    def cost(units: int) -> int:
        sizes = {"num_layers": layers, "num_heads": heads, "mlp_dim": units}
        return macs(config.replace(head_width=config.head_dim, **sizes, **probe_sizes(config)))

    every = [*range(STEP, config.mlp_dim, STEP), config.mlp_dim]
    fitting = bisect_right(every, most, key=cost)
    return every[fitting - 1] if fitting else 0


def rounds(options: CompressOptions, whole: Sizes, asked: Sizes) -> list[tuple[Sizes, int]]:
    """The sizes after each round of removing and training, with its epochs.

    Gradual ones follow the cubic of Zhu and Gupta 2017: much is removed at first, when there is much to spare.
    """
    short = options.epochs // SHORT
    if options.schedule is Schedule.CONSTANT or not short:
        return [(asked, options.epochs)]
    found: list[tuple[Sizes, int]] = []
    for number in range(1, ROUNDS):
        left = (1 - number / ROUNDS) ** 3
        found.append((Sizes(*(round(end + (begin - end) * left) for begin, end in _pairs(whole, asked))), short))
    return [*found, (asked, options.epochs - short * (ROUNDS - 1))]


def _pairs(whole: Sizes, asked: Sizes) -> Iterator[tuple[int, int]]:
    return zip(vars(whole).values(), vars(asked).values(), strict=True)


def most_important(importance: Importance, sizes: Sizes, config: ViTConfig) -> Kept:
    """What stays: of all blocks the most important ones, and of each block that stays its heads and units."""
    blocks = _largest(importance.blocks, sizes.num_layers)
    heads = importance.heads[list(blocks)]
    if config.relative_positions in SHARED:
        heads = np.broadcast_to(heads.sum(axis=0), heads.shape)
    return Kept(
        blocks,
        tuple(_largest(of_block, sizes.num_heads) for of_block in heads),
        tuple(_largest(of_block, sizes.mlp_dim) for of_block in importance.units[list(blocks)]),
    )


def _largest(values: NDArray[np.float64], count: int) -> tuple[int, ...]:
    return tuple(sorted(np.argsort(-values, kind="stable")[:count].tolist()))
