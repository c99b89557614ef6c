"""Forward passes of a ViT, to its usual output and to outputs by name."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras

from vit_deploy.core.choices import Pooling, Probabilities
from vit_deploy.core.outputs import FEATURES, LOGITS, PROBABILITIES, Kind, Output, Part
from vit_deploy.errors import ConfigError
from vit_deploy.model.layers import part_of, pool, take_patches

if TYPE_CHECKING:
    from vit_deploy.model.vit import ViT


def forward(model: ViT, images: Any, training: bool | None) -> Any:
    """Images `(batch, height, width, channels)`, normalised, to logits or features."""
    x = _embedded(model, images, training)
    shared = None if model.relative is None else model.relative.scores_of_pairs()
    for block in model.transformer_layers:
        x = block(x, training=training) if shared is None else block(x, training=training, shared=shared)
    if model.norm is None:
        x = _pooled(model, x)
    else:
        x = model.norm(_pooled(model, x)) if model.config.norm_after_pooling else _pooled(model, model.norm(x))
    if model.pre_logits is not None:
        x = model.pre_logits(x)
    if model.head_norm is not None:
        x = model.head_norm(x)
    return x if model.head is None else model.head(x)


def outputs_by_name(model: ViT, images: Any, outputs: Sequence[Output], training: bool | None) -> dict[str, Any]:
    """What the model gives for images `(batch, height, width, channels)`, normalised, by the names of outputs.

    Raises:
        ConfigError: an attention that a fused kernel computes, or one of a symbolic input.
    """
    x = _embedded(model, images, training)
    shared = None if model.relative is None else model.relative.scores_of_pairs()
    found: dict[str, Any] = {}
    for index, block in enumerate(model.transformer_layers):
        own = [output for output in outputs if output.block == index]
        attentions = [output for output in own if output.kind is Kind.ATTENTION]
        with contextlib.ExitStack() as observing:
            seen = observing.enter_context(block.attention.observed()) if attentions else []
            x = block(x, training=training) if shared is None else block(x, training=training, shared=shared)
        if attentions and not seen:
            raise ConfigError(
                f"{attentions[0].name} is computed inside of a layer, and on a symbolic input no layer computes",
                fix="call outputs_by_name on images, or leave the attention out of the functional model",
            )
        found |= {output.name: seen[0] for output in attentions}
        for output in own:
            if output.kind is not Kind.ATTENTION:
                values = _restored(model, block.name, x)
                values = _restored(model, "norm", model.norm(values)) if output.normed and model.norm else values
                found[output.name] = part_of(values, output, model.config, model.open_grid)
    after = model.config.norm_after_pooling
    tokens = x if after or model.norm is None else model.norm(x)
    vector = _pooled(model, tokens)
    end = model.transformer_layers[-1].name if after or model.norm is None else "norm"
    for output in outputs:
        if output.block is None and output.part is not None:
            is_pooled = output.part is Part.CLASS and model.config.effective_pooling is Pooling.CLS
            values = vector if is_pooled else part_of(tokens, output, model.config, model.open_grid)
            found[output.name] = _restored(model, end, values)
    if after and model.norm is not None:
        vector = model.norm(vector)
    if model.pre_logits is not None:
        vector = model.pre_logits(vector)
    read = vector if model.head_norm is None else model.head_norm(vector)
    logits = read if model.head is None else model.head(read)
    whole = {
        LOGITS: lambda: logits,
        FEATURES: lambda: _read(model, vector),
        PROBABILITIES: lambda: _probabilities(model, logits),
    }
    return {output.name: found[output.name] if output.name in found else whole[output.name]() for output in outputs}


def _embedded(model: ViT, images: Any, training: bool | None) -> Any:
    """The tokens that the first block reads."""
    x = model.patch_embed(images if model.pixel_norm is None else model.pixel_norm(images))
    if model.patch_norm is not None:
        x = model.patch_norm(x)
    x = model.class_token(x)
    x = model.pos_embed(x, training=training)
    return x if model.pre_norm is None else model.pre_norm(x)


def _pooled(model: ViT, tokens: Any) -> Any:
    config = model.config
    if model.largest_in is not None and config.effective_pooling is Pooling.MAX:
        grid = keras.ops.reshape(take_patches(tokens, config), (-1, *config.grid, config.embed_dim))
        return keras.ops.reshape(model.largest_in(grid), (-1, config.embed_dim))
    return pool(tokens, config) if model.map_pool is None else model.map_pool(tokens)


def _read(model: ViT, vector: Any) -> Any:
    """What the head reads."""
    if model.config.projection_after_pool == "head":
        return _restored(model, "map_pool", vector)
    return _restored(model, "norm", vector) if model.config.projection_after_norm == "head" else vector


def _restored(model: ViT, name: str, values: Any) -> Any:
    return values if model.restored is None else model.restored(name, values)


def _probabilities(model: ViT, logits: Any) -> Any:
    by_sigmoid = model.config.probabilities is Probabilities.SIGMOID
    return keras.ops.sigmoid(logits) if by_sigmoid else keras.ops.softmax(logits, axis=-1)
