"""What a ViT is saved as: the constructor's arguments, variables by their canonical names, and a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import LATER
from vit_deploy.core.weights import weight_specs

if TYPE_CHECKING:
    from vit_deploy.model.vit import ViT


def arguments_of(model: ViT) -> dict[str, Any]:
    """The constructor's arguments that make such a model, as plain values."""
    config = model.config
    fields = ("num_classes", "include_top", "embed_dim", "num_heads", "num_layers", "mlp_dim", "epsilon")
    kinds = ("pooling", "normalization_type", "normalization_position", "ffn_type", "activation")
    plain = config.to_dict()
    features = ("class_token", "distillation_token", "register_tokens", "layer_scale", "qk_norm", "pre_norm")
    after = ("norm_after_pooling", "pre_logits_dim", *(["rotary"] if config.rotary else []))
    return {
        **{name: plain[name] for name in (*fields, *kinds, *features, *after)},
        **{name: plain[name] for name in LATER if name in plain},
        **model.rates,
        **model.weight_options.to_config(),
        "input_shape": [*config.image_size, config.channels],
        "patch_size": list(config.patch_size),
        "scale": model.scale,
        "attention_args": dict(model.attention_args),
        "preprocess": model.preprocess.to_dict(),
        "labels": list(model.labels),
        "provenance": [step.to_dict() for step in model.provenance],
        # Versions that know no ranges read the files of models that have none.
        **({"ranges": {tensor: list(spread) for tensor, spread in model.ranges.items()}} if model.ranges else {}),
        "name": model.name,
        "dtype": keras.dtype_policies.serialize(model.dtype_policy),
        "trainable": model.trainable,
    }


def canonical_variables(model: ViT) -> dict[str, Any]:
    """Every variable by its canonical name, in the order in which the network uses them.

    The states of the random generators are not among them: the function does not depend on them.
    """
    layers = [
        model.pixel_norm,
        model.patch_embed,
        model.patch_norm,
        model.class_token,
        model.pos_embed,
        model.pre_norm,
        *model.transformer_layers,
    ]
    layers += [model.relative, model.norm, model.map_pool, model.pre_logits, model.head]
    # The path of a variable begins with whatever scopes the model was built in.
    variables = {
        f"{layer.name}/{f'/{variable.path}'.rpartition(f'/{layer.name}/')[2]}".replace("/", "."): variable
        for layer in layers
        if layer is not None
        for variable in layer.weights
    }
    return {name: variables[name] for name in weight_specs(model.config)}


def checkpoint_of(model: ViT) -> Checkpoint:
    """Config, weights as float32 NumPy arrays, and all that travels with the model."""
    weights = {
        name: np.asarray(keras.ops.convert_to_numpy(variable), np.float32)
        for name, variable in model.canonical_variables().items()
    }
    return Checkpoint(model.config, weights, model.preprocess, model.labels, model.provenance, model.ranges)
