"""Outputs of the reference by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.outputs import FEATURES, LOGITS, Kind, Output
from vit_deploy.core.reference import Array, Hook, forward, norm, weights_of

SOFTMAX = ".softmax"  # the detail of an attention that is its probabilities


def forward_outputs(
    checkpoint: Checkpoint,
    images: Array,
    outputs: Sequence[Output],
    dtype: DTypeLike = np.float64,
    *,
    hook: Hook | None = None,
    detail: Hook | None = None,
) -> dict[str, Array]:
    """What a ViT gives for a batch of images, by the names of the outputs; its own output first, under the name "".

    Args:
        checkpoint: config and weights.
        images: `(batch, height, width, channels)`, normalised.
        outputs: the outputs, as `core.outputs` finds them.
        dtype: float64, the definition, or float32.
        hook: as of `reference.forward`, and
        detail: likewise.
    """
    config = checkpoint.config
    read = {f"block_{output.block}.attention{SOFTMAX}" for output in outputs if output.kind is Kind.ATTENTION}
    read |= {_source(output) for output in outputs}
    kept: dict[str, Array] = {}

    def watch(name: str, values: Array) -> None:
        if name in read:
            kept[name] = values

    def details(name: str, values: Array) -> None:
        watch(name, values)
        if detail is not None:
            detail(name, values)

    own = forward(checkpoint, images, dtype, hook=hook, detail=details if detail or read else None, watch=watch)
    kept[LOGITS] = own
    last_norm = {
        name: weight.astype(dtype, copy=False) for name, weight in weights_of("norm", checkpoint.weights).items()
    }
    found = {}
    for output in outputs:
        values = kept[_source(output)]
        if output.normed:
            values = norm(values, last_norm, config)
        found[output.name] = config.probabilities.of(values) if output.kind is Kind.PROBABILITIES else values
    return {"": own} | {output.name: part_of(found[output.name], output, config) for output in outputs}


def _source(output: Output) -> str:
    """What an output is computed from."""
    if output.kind in (Kind.LOGITS, Kind.PROBABILITIES):
        return LOGITS
    if output.kind is Kind.ATTENTION:
        return f"block_{output.block}.attention{SOFTMAX}"
    if output.part is None:
        return FEATURES
    return "tokens" if output.block is None else f"block_{output.block}"


def part_of(values: Array, output: Output, config: ViTConfig) -> Array:
    """The tokens that an output holds, of all tokens `(batch, tokens, dim)`; as they are where it holds no tokens."""
    if output.part is None:
        return values
    start, stop = output.rows(config)
    if output.kind is Kind.VECTOR:
        return values[:, start]
    return values[:, start:stop].reshape(-1, *output.shape(config))
