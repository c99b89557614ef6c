"""Text towers in NumPy: the embedding of a text, by the definitions that the ViT's own blocks have."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vit_deploy.core.choices import Activation
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.reference import Array, block, norm, weights_of
from vit_deploy.core.summation import product
from vit_deploy.core.weights import RELATIVE, Float32
from vit_deploy.text.tokens import Tokens

GROUP_BYTES = 1 << 28  # of the tokens that are taken through all blocks together, for which weights are converted once
BATCH_TOKENS = 2048  # that a block computes at once
TABLES = ("tokens", "positions")
SCORES = f"attention.{RELATIVE}.scores"  # what joins the scores of a block's attention


class TextPooling(StrEnum):
    """Which token's features are the text's: the first of a number, of the greatest number, the last, or the first."""

    END = "end"
    GREATEST = "greatest"
    LAST = "last"
    FIRST = "first"


@dataclass(frozen=True)
class TextConfig:
    """The function of a text tower besides its weights.

    Args:
        width: features of a token.
        num_heads: attention heads.
        num_layers: blocks.
        mlp_dim: hidden units of the feed-forward.
        context: tokens of a text at most.
        activation: of the feed-forward.
        epsilon: of the norms.
        causal: whether a token sees only those before it.
        pooling: which token is taken.
        end: the number of the token that ends a text, which `TextPooling.END` looks for.
        qk_norm: whether each head's queries and keys are normalized.
    """

    width: int
    num_heads: int
    num_layers: int
    mlp_dim: int
    context: int
    activation: Activation
    epsilon: float
    causal: bool
    pooling: TextPooling
    end: int = 0
    qk_norm: bool = False

    @property
    def of_blocks(self) -> ViTConfig:
        """The config of a ViT that has the same blocks."""
        return ViTConfig(
            embed_dim=self.width,
            num_heads=self.num_heads,
            num_layers=self.num_layers,
            mlp_dim=self.mlp_dim,
            activation=self.activation,
            epsilon=self.epsilon,
            qk_norm=self.qk_norm,
        )


@dataclass(frozen=True)
class TextTower:
    """A text tower, and what its model makes of an image's and a text's embedding.

    Args:
        config: its function.
        weights: `tokens` and `positions` `(rows, width)`; blocks and `norm` as a ViT's; `projection.kernel` and
            `projection.bias`, or neither.
        scale: that cosines are multiplied by.
        bias: that is added then.
        by_itself: whether each text is judged by itself, with a sigmoid.
    """

    config: TextConfig
    weights: Mapping[str, Float32]
    scale: float
    bias: float = 0.0
    by_itself: bool = False

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        kernel = self.weights.get("projection.kernel")
        return self.config.width if kernel is None else int(kernel.shape[1])


def embed(
    tower: TextTower,
    tokens: Tokens,
    dtype: DTypeLike = np.float64,
    *,
    progress: Callable[[float], object] = lambda share: None,
) -> Array:
    """The embeddings of texts `(texts, dim)`, of whatever length they come out.

    Rows that are there twice are computed once, and where tokens see only those before them, nothing is computed
    behind the one that is taken.

    Args:
        tower: the model's.
        tokens: no more than its context.
        dtype: float64, the definition, or float32.
        progress: called with the share that is done.
    """
    both = tokens.numbers if tokens.seen is None else np.concatenate([tokens.numbers, tokens.seen], axis=1)
    _, first, place = np.unique(both, axis=0, return_index=True, return_inverse=True)
    numbers, seen = tokens.numbers[first], None if tokens.seen is None else tokens.seen[first]
    taken = _taken(tower.config, numbers)
    needed = taken + 1 if tower.config.causal else np.full(len(numbers), numbers.shape[1])
    found = np.empty((len(numbers), tower.dim), dtype)
    done, whole = 0, int(needed.sum())
    for rows, length in _groups(needed, tower.config.width * np.dtype(dtype).itemsize):
        size = int(needed[rows].sum())
        group = Tokens(numbers[rows, :length], None if seen is None else seen[rows, :length], ())
        blocks = functools.partial(_tell_blocks, progress, done / whole, size / whole)
        found[rows] = _embedded(tower, group, taken[rows], dtype, blocks)
        done += size
    result: Array = found[place.reshape(-1)]
    return result


def _taken(config: TextConfig, numbers: NDArray[np.int64]) -> NDArray[np.intp]:
    """The place in each row of the token whose features are the text's."""
    match config.pooling:
        case TextPooling.END:
            return np.asarray(np.argmax(numbers == config.end, axis=1))
        case TextPooling.GREATEST:
            return np.asarray(np.argmax(numbers, axis=1))
        case TextPooling.LAST:
            return np.full(len(numbers), numbers.shape[1] - 1)
        case TextPooling.FIRST:
            return np.zeros(len(numbers), np.intp)


def _groups(needed: NDArray[np.intp], bytes_a_token: int) -> Iterator[tuple[NDArray[np.intp], int]]:
    """Rows that are computed together, short ones first, with the tokens of the longest."""
    order = np.argsort(needed, kind="stable")
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * int(needed[order[end]]) * bytes_a_token <= GROUP_BYTES:
            end += 1
        yield order[start:end], int(needed[order[end - 1]])
        start = end


def _tell_blocks(progress: Callable[[float], object], before: float, size: float, share: float) -> None:
    progress(before + size * share)


def _embedded(
    tower: TextTower, tokens: Tokens, taken: NDArray[np.intp], dtype: DTypeLike, progress: Callable[[float], object]
) -> Array:
    config, of_blocks = tower.config, tower.config.of_blocks
    numbers, seen = tokens.numbers, tokens.seen
    table, positions = (tower.weights[name] for name in TABLES)
    x = table[numbers].astype(dtype) + positions[: numbers.shape[1]].astype(dtype)
    later = np.tri(x.shape[1], dtype=np.bool_)[None, None] if config.causal else None
    for index in range(config.num_layers):
        weights = _part(tower, f"block_{index}", dtype)
        for start in range(0, len(x), size := max(1, BATCH_TOKENS // x.shape[1])):
            rows = slice(start, start + size)
            visible = _visible(later, None if seen is None else seen[rows])
            scores = {} if visible is None else {SCORES: np.where(visible, 0.0, -np.inf).astype(dtype)}
            x[rows] = block(x[rows], {**weights, **scores}, of_blocks, _unseen, "", _unseen)
            progress((index + min(1.0, (start + size) / len(x))) / config.num_layers)
    pooled = norm(x[np.arange(len(x)), taken], _part(tower, "norm", dtype), of_blocks)
    projection = _part(tower, "projection", dtype)
    return product(pooled, projection["kernel"], projection.get("bias")) if projection else pooled


def _visible(later: NDArray[np.bool_] | None, seen: NDArray[np.bool_] | None) -> NDArray[np.bool_] | None:
    """What each token sees, `(texts or 1, 1, tokens or 1, tokens)`; None where it is everything."""
    if seen is None or seen.all():
        return later
    keys = seen[:, None, None, :]
    return keys if later is None else keys & later


def _part(tower: TextTower, name: str, dtype: DTypeLike) -> dict[str, Array]:
    return {part: weight.astype(dtype) for part, weight in weights_of(name, tower.weights).items()}


def _unseen(name: str, values: Array) -> None:
    return None
