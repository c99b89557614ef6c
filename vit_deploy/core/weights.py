"""The weights of a ViT with a given config: names, shapes and initial values.

The canonical names are the paths of the Keras model's variables with dots: `block_3.attention.query.kernel`.
Kernels are (inputs, outputs), the patch kernel (height, width, channels, embed dim), the position table
(tokens, embed dim) with the prefix tokens first: class, distillation, registers. What a model of another program does
without is the value that changes nothing: a bias it has not is zero, and so are the positions of tokens that get none.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.choices import (
    FFNType,
    NormalizationPosition,
    NormalizationType,
    PoolEnd,
    Pooling,
    RelativePositions,
)
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.relative_tables import table_rows

Float32 = NDArray[np.float32]

JOINED = "+"  # between the names of layers that became one in a file
STDDEV = 0.02  # of the truncated normal that kernels, tokens and positions are drawn from
ALPHA = 0.5  # first value of dynamic tanh's alpha (Zhu et al. 2025, section 4)
RELATIVE = "relative"  # the part that holds relative positions
SHARED = (RelativePositions.SHARED_TABLE, RelativePositions.SHARED_SCORES)
OF_BLOCKS = (RelativePositions.TABLE, RelativePositions.SCORES)
TABLES = (RelativePositions.TABLE, RelativePositions.SHARED_TABLE)
LAYER_SCALE = 0.1  # first value of a layer scale (Touvron et al. 2021, arXiv 2103.17239, for up to 18 layers)


class Initial(StrEnum):
    """How a weight starts."""

    TRUNCATED_NORMAL = "truncated_normal"
    ZEROS = "zeros"
    ONES = "ones"
    ALPHA = "alpha"
    LAYER_SCALE = "layer_scale"


@dataclass(frozen=True)
class WeightSpec:
    """Shape and first value of one weight."""

    shape: tuple[int, ...]
    initial: Initial


def weight_specs(config: ViTConfig) -> dict[str, WeightSpec]:
    """All weights of a ViT by canonical name, in the order in which the network uses them."""
    return dict(_specs(config))


def layer_names(config: ViTConfig) -> tuple[str, ...]:
    """Names of all layers that have kernels, in the order in which the network uses them: `block_0.attention.query`."""
    suffix = ".kernel"
    return tuple(name.removesuffix(suffix) for name in weight_specs(config) if name.endswith(suffix))


def learned_positions(config: ViTConfig) -> tuple[str, ...]:
    """The weights that only say how far queries and keys are turned; an exported file has sines of them instead."""
    if config.rotary is None:
        return ()
    shapes = config.rotary.weight_shapes(config.num_heads, config.head_dim)
    return tuple(f"block_{index}.attention.{name}" for index in range(config.num_layers) for name in shapes)


def _specs(config: ViTConfig) -> Iterator[tuple[str, WeightSpec]]:
    dim = config.embed_dim
    if config.pixel_norm:
        yield from _norm("pixel_norm", config, config.patch_dim)
    yield "patch_embed.kernel", _drawn(*config.patch_size, config.channels, dim)
    yield "patch_embed.bias", _zeros(dim)
    if config.patch_norm:
        yield from _norm("patch_norm", config, dim)
    if config.class_token:
        yield "class_token.class", _drawn(1, dim)
    if config.distillation_token:
        yield "class_token.distillation", _drawn(1, dim)
    if config.register_tokens:
        yield "class_token.registers", _drawn(config.register_tokens, dim)
    yield "pos_embed.table", _drawn(config.sequence_length, dim)
    if config.pre_norm:
        yield from _norm("pre_norm", config, dim)
    if config.relative_positions in SHARED:
        yield from _relative("", config)
    for index in range(config.num_layers):
        yield from _block(f"block_{index}", config)
    if config.last_norm:
        yield from _norm("norm", config, config.pooled_dim if config.norm_after_pooling else dim)
    yield from _after(config)


def _block(block: str, config: ViTConfig) -> Iterator[tuple[str, WeightSpec]]:
    dim = config.embed_dim
    yield from _norm(f"{block}.norm1", config, dim)
    for role in ("query", "key", "value"):
        yield from _dense(f"{block}.attention.{role}", dim, config.attention_dim, bias=config.qkv_bias)
    if config.rotary is not None:
        for name, shape in config.rotary.weight_shapes(config.num_heads, config.head_dim).items():
            yield f"{block}.attention.{name}", WeightSpec(shape, Initial.TRUNCATED_NORMAL)
    if config.qk_norm:
        for role in ("query", "key"):
            yield from _norm_of(config.query_norm_type, f"{block}.attention.{role}_norm", config.query_norm_dim)
    if config.relative_positions in OF_BLOCKS:
        yield from _relative(f"{block}.attention.", config)
    if config.attention_norm:
        yield from _norm(f"{block}.attention.norm", config, config.attention_dim)
    yield from _dense(f"{block}.attention.out", config.attention_dim, dim)
    if "attention" in config.scaled_halves:
        yield f"{block}.scale1.gamma", WeightSpec((dim,), Initial.LAYER_SCALE)
    if config.normalization_position is not NormalizationPosition.PARALLEL:
        yield from _norm(f"{block}.norm2", config, dim)
    if config.ffn_type is not FFNType.MLP:
        yield from _dense(f"{block}.ffn.gate", dim, config.mlp_dim)
    yield from _dense(f"{block}.ffn.up", dim, config.mlp_dim)
    if config.ffn_norm:
        yield from _norm(f"{block}.ffn.norm", config, config.mlp_dim)
    yield from _dense(f"{block}.ffn.down", config.mlp_dim, dim)
    if "ffn" in config.scaled_halves:
        yield f"{block}.scale2.gamma", WeightSpec((dim,), Initial.LAYER_SCALE)


def relative_names(config: ViTConfig) -> tuple[str, ...]:
    """Names of the weights of relative positions, in the order of the network."""
    blocks = (f"block_{index}.attention." for index in range(config.num_layers))
    owners = blocks if config.relative_positions in OF_BLOCKS else ("",) if config.relative_positions in SHARED else ()
    return tuple(f"{owner}{RELATIVE}.{config.relative_positions.removeprefix('shared_')}" for owner in owners)


def _relative(owner: str, config: ViTConfig) -> Iterator[tuple[str, WeightSpec]]:
    if config.relative_positions in TABLES:
        yield f"{owner}{RELATIVE}.table", _drawn(table_rows(config.grid, config.num_prefix_tokens), config.num_heads)
    else:
        yield f"{owner}{RELATIVE}.scores", _drawn(config.num_heads, config.sequence_length, config.sequence_length)


def _after(config: ViTConfig) -> Iterator[tuple[str, WeightSpec]]:
    dim, vector = config.embed_dim, config.pooled_dim
    if config.effective_pooling is Pooling.MAP:
        yield "map_pool.probe", _drawn(1, vector)
        for role, inputs in (("query", vector), ("key", dim), ("value", dim), ("out", vector)):
            yield from _dense(f"map_pool.attention.{role}", inputs, vector)
        if config.pool_end is not PoolEnd.NONE:
            yield from _norm("map_pool.norm", config, vector)
        if config.pool_end is PoolEnd.FFN:
            yield from _dense("map_pool.ffn.up", vector, config.probe_mlp_dim)
            yield from _dense("map_pool.ffn.down", config.probe_mlp_dim, vector)
    if config.pre_logits_dim:
        yield from _dense("pre_logits", vector, config.pre_logits_dim)
        vector = config.pre_logits_dim
    if config.include_top:
        yield from _dense("head", vector, config.num_classes)


def _norm(name: str, config: ViTConfig, dim: int) -> Iterator[tuple[str, WeightSpec]]:
    yield from _norm_of(config.normalization_type, name, dim)


def _norm_of(kind: NormalizationType, name: str, dim: int) -> Iterator[tuple[str, WeightSpec]]:
    ones, zeros = WeightSpec((dim,), Initial.ONES), _zeros(dim)
    match kind:
        case NormalizationType.LAYER_NORM:
            yield f"{name}.scale", ones
            yield f"{name}.bias", zeros
        case NormalizationType.RMS_NORM:
            yield f"{name}.scale", ones
        case NormalizationType.DYNAMIC_TANH:
            yield f"{name}.alpha", WeightSpec((), Initial.ALPHA)
            yield f"{name}.scale", ones
            yield f"{name}.bias", zeros
        case NormalizationType.BAND_RMS:
            yield f"{name}.band", _zeros()


def _dense(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Iterator[tuple[str, WeightSpec]]:
    yield f"{name}.kernel", _drawn(inputs, outputs)
    if bias:
        yield f"{name}.bias", _zeros(outputs)


def _drawn(*shape: int) -> WeightSpec:
    return WeightSpec(shape, Initial.TRUNCATED_NORMAL)


def _zeros(*shape: int) -> WeightSpec:
    return WeightSpec(shape, Initial.ZEROS)


def draw_weights(config: ViTConfig, seed: int) -> Iterator[tuple[str, Float32]]:
    """Random weights in canonical order, drawn with NumPy so that every backend gets the same model.

    Each weight has a stream of its own, keyed by the seed and its name: a model keeps its other weights
    when one more is added to it, and a single layer can draw its own.
    """
    specs = weight_specs(config)
    # NumPy draws outside of the interpreter's lock, so that threads share the work without changing it.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from zip(specs, pool.map(initial_value, specs, specs.values(), repeat(seed)), strict=True)


def initial_value(name: str, spec: WeightSpec, seed: int) -> Float32:
    """The first value of the weight `name`."""
    match spec.initial:
        case Initial.TRUNCATED_NORMAL:
            return truncated_normal(name, spec.shape, seed)
        case Initial.ZEROS:
            return np.zeros(spec.shape, np.float32)
        case Initial.ONES:
            return np.ones(spec.shape, np.float32)
        case Initial.ALPHA:
            return np.full(spec.shape, ALPHA, np.float32)
        case Initial.LAYER_SCALE:
            return np.full(spec.shape, LAYER_SCALE, np.float32)


def truncated_normal(name: str, shape: tuple[int, ...], seed: int, stddev: float = STDDEV) -> Float32:
    """Normal values redrawn until they lie within two standard deviations."""
    rng = np.random.default_rng([seed, *name.encode()])
    values = rng.standard_normal(math.prod(shape), dtype=np.float32)
    outside = np.flatnonzero(np.abs(values) > 2)
    while outside.size:
        again = rng.standard_normal(outside.size, dtype=np.float32)
        values[outside] = again
        outside = outside[np.abs(again) > 2]
    values *= np.float32(stddev)
    return values.reshape(shape)
