"""Outliers moved from activations into weights, where each channel has its own scale, by an exact rewrite.

A channel that is written by a norm or by a linear layer and read by products alone can be divided where it is written
and multiplied where it is read; a ReLU in between lets a factor through, a GELU does not. Xiao et al. 2023
(SmoothQuant) choose the factors so that activations and weights share the difficulty, from activations that were
measured; Nagel et al. 2019 (Data-Free Quantization) balance by the weights alone. Queries and keys are multiplied with
each other, so what divides a channel of one multiplies that of the other. The function stays the same but for
the rounding of float32. Powers of two would keep it to the last bit, and leave channels up to twice as large as others:
on a ViT with planted outliers int8 then kept 98.7 % of the first classes, and keeps 99.4 % with exact factors.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.choices import Activation, FFNType, NormalizationPosition, NormalizationType, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.outputs import FEATURES, Output
from vit_deploy.core.weights import weight_specs

Float32 = NDArray[np.float32]

DATA_FREE_ALPHA = 0.5  # activations and weights share the difficulty equally
HOMOGENEOUS = (
    Activation.RELU,
    Activation.LEAKY_RELU,
    Activation.LEAKY_RELU_TORCH,
)  # of a positive multiple they give that multiple
MOST = 2.0**15  # that a channel is multiplied or divided by
UNEVEN = 4.0  # between queries and keys, from where on a channel costs the others bits


@dataclass(frozen=True)
class Link:
    """Channels that can be scaled in between.

    Args:
        written: names of the weights whose last axis writes the channels.
        read: names of the layers that read them, all that there are.
        inputs: name of the norm whose outputs `written` multiplies; empty where it is a norm itself.
    """

    written: tuple[str, ...]
    read: tuple[str, ...]
    inputs: str = ""


def smoothed(
    weights: Mapping[str, Float32],
    config: ViTConfig,
    largest: Mapping[str, NDArray[np.floating]] | None = None,
    alpha: float = DATA_FREE_ALPHA,
    outputs: Sequence[Output] = (),
) -> dict[str, Float32]:
    """The weights that are different in the same function with smoother activations.

    Args:
        weights: the weights by canonical name; links of which some are not there are left as they are.
        config: the function.
        largest: absolute value of each channel of each layer's input, by the layer's name; None estimates it from the
            weights.
        alpha: share of the difficulty that moves into the weights, from 0 (none) to 1 (all of it).
        outputs: the outputs by name, which stay as they are; none for the one that the config says.
    """
    fixed = LAST_NORM if any(_is_behind_norm(output) for output in outputs) else ()
    changed: dict[str, Float32] = {}
    for link in links(config):
        needed = (*link.written, *(f"{name}.kernel" for name in link.read))
        if link.written[:1] == fixed or not all(name in weights for name in needed):
            continue
        now = {**weights, **changed}
        kernels = [now[f"{name}.kernel"] for name in link.read]
        channels = _estimated(link, now) if largest is None else np.asarray(largest[link.read[0]], np.float64)
        strongest = np.max([np.abs(kernel).max(axis=1) for kernel in kernels], axis=0).astype(np.float64)
        factors = _factors(channels, strongest, alpha)
        changed |= {name: now[name] / factors for name in _with_biases(link.written, weights)}
        changed |= {f"{name}.kernel": now[f"{name}.kernel"] * factors[:, None] for name in link.read}
    for block, inputs in _scored(config):
        changed |= _evened(block, inputs, {**weights, **changed})
    return changed


def _scored(config: ViTConfig) -> Iterator[tuple[str, str]]:
    """Attentions whose queries are multiplied with their keys as they were written, and the norms that those read."""
    if config.qk_norm or config.rotary is not None:
        return
    scales = _reads_norms(config)
    for index in range(config.num_layers):
        yield f"block_{index}.attention", f"block_{index}.norm1" if scales else ""


def _reads_norms(config: ViTConfig) -> bool:
    """Whether attention reads what a norm with a scale of its own gives."""
    before = config.normalization_position in (NormalizationPosition.PRE, NormalizationPosition.PARALLEL)
    return before and config.normalization_type is not NormalizationType.BAND_RMS


def _evened(attention: str, inputs: str, weights: Mapping[str, Float32]) -> dict[str, Float32]:
    """Queries and keys of the same scores with channels of one size; none where they have it nearly."""
    sides = [_parts(f"{attention}.{role}", weights) for role in ("query", "key")]
    if not all(f"{attention}.{role}.kernel" in weights for role in ("query", "key")):
        return {}
    queries, keys = (_estimated(Link(side, (), inputs), weights) for side in sides)
    factors = _factors(queries, keys, DATA_FREE_ALPHA)
    if max(factors.max(), 1 / factors.min()) < UNEVEN:
        return {}
    divided = {name: weights[name] / factors for name in _with_biases(sides[0], weights)}
    return divided | {name: weights[name] * factors for name in _with_biases(sides[1], weights)}


LAST_NORM = ("norm.scale",)


def _is_behind_norm(output: Output) -> bool:
    """Whether an output may be what the last norm gives."""
    return output.name == FEATURES or output.normed or (output.part is not None and output.block is None)


def links(config: ViTConfig) -> Iterator[Link]:
    """Everything in a ViT that can be scaled, in the order of the network."""
    weights = weight_specs(config)
    both = config.normalization_position is NormalizationPosition.PARALLEL
    scales = config.normalization_type is not NormalizationType.BAND_RMS
    before = _reads_norms(config)
    gated = config.ffn_type is not FFNType.MLP
    homogeneous = not gated and config.activation in HOMOGENEOUS
    for index in range(config.num_layers):
        block = f"block_{index}"
        norms = [f"{block}.norm{half}" if before else "" for half in (1, 1 if both else 2)]
        up = tuple(f"{block}.ffn.{role}" for role in (("gate", "up") if gated else ("up",)))
        # A norm after its half is read by the residual sum too.
        if norms[0]:
            read = tuple(f"{block}.attention.{role}" for role in QKV)
            yield Link(_parts(norms[0], weights), (*read, *up) if both else read)
        # Heads mix tokens, not channels.
        mixed = f"{block}.attention.{'norm' if config.attention_norm else 'value'}"
        if not config.attention_norm or scales:
            yield Link(_parts(mixed, weights), (f"{block}.attention.out",), "" if config.attention_norm else norms[0])
        if norms[1] and not both:
            yield Link(_parts(norms[1], weights), up)
        if config.ffn_norm:
            if scales:
                yield Link(_parts(f"{block}.ffn.norm", weights), (f"{block}.ffn.down",))
        elif gated or homogeneous:  # what the gate is multiplied with is linear
            yield Link(_parts(f"{block}.ffn.up", weights), (f"{block}.ffn.down",), norms[1])
    pooled = config.norm_after_pooling or config.effective_pooling in (Pooling.CLS, Pooling.MEAN, Pooling.MAX)
    reader = "pre_logits" if config.pre_logits_dim else "head"
    if config.include_top and pooled and scales and config.last_norm and not (config.head_norm and reader == "head"):
        yield Link(_parts("norm", weights), (reader,))


QKV = ("query", "key", "value")


def _parts(name: str, weights: Container[str]) -> tuple[str, ...]:
    return tuple(full for part in ("scale", "kernel", "bias") if (full := f"{name}.{part}") in weights)


def _with_biases(written: tuple[str, ...], weights: Container[str]) -> tuple[str, ...]:
    """Also the biases that a config does not have and a file does, of a norm that became part of the kernel."""
    biases = (f"{name.removesuffix('.kernel')}.bias" for name in written if name.endswith(".kernel"))
    return tuple(dict.fromkeys((*written, *(name for name in biases if name in weights))))


def _estimated(link: Link, weights: Mapping[str, Float32]) -> NDArray[np.float64]:
    """Size of the channels: a norm's outputs have unit variance before its scale, and add up as independent values."""
    kernel = next((name for name in link.written if name.endswith(".kernel")), "")
    if not kernel:
        return _combined(link.written, weights)
    # A norm that is part of the kernels that read it leaves independent values of unit variance.
    norm = _parts(link.inputs, weights.keys()) if link.inputs else ()
    inputs = _combined(norm, weights) if norm else np.float64(1)
    squares = np.square(np.asarray(weights[kernel], np.float64).T * inputs).sum(axis=1)
    written = _with_biases(link.written, weights)
    biases = [np.square(weights[name].astype(np.float64)) for name in written if name.endswith(".bias")]
    size: NDArray[np.float64] = np.sqrt(squares + sum(biases))
    return size


def _combined(names: tuple[str, ...], weights: Mapping[str, Float32]) -> NDArray[np.float64]:
    size: NDArray[np.float64] = np.sqrt(sum(np.square(weights[name].astype(np.float64)) for name in names))
    return size


def _factors(channels: NDArray[np.float64], strongest: NDArray[np.float64], alpha: float) -> Float32:
    """SmoothQuant's eq. 4, about a mean of one; channels without values stay as they are."""
    used = (channels > 0) & (strongest > 0)
    exponents = np.zeros(len(channels))
    exponents[used] = alpha * np.log2(channels[used]) - (1 - alpha) * np.log2(strongest[used])
    exponents[used] -= exponents[used].mean() if used.any() else 0
    limit = np.log2(MOST)
    return np.exp2(np.clip(exponents, -limit, limit)).astype(np.float32)
