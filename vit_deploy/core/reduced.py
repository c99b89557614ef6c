"""The part of a model that some of its outputs depend on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.outputs import Output, reduced_config
from vit_deploy.core.weights import weight_specs
from vit_deploy.errors import ConfigError


def reduced(checkpoint: Checkpoint, outputs: Sequence[Output]) -> Checkpoint:
    """The model without what none of these outputs reads; the one given where all of it is read.

    Args:
        checkpoint: the model.
        outputs: the outputs by name; none for the one that the config says.

    Raises:
        ConfigError: a model whose training learned ranges of activations, which are those of its own output.
    """
    if outputs and checkpoint.ranges:
        raise ConfigError(
            "training learned the ranges of this model's activations, and there are none for outputs by name",
            fix="leave --output out, or give the model before its quantization-aware training",
        )
    config = reduced_config(checkpoint.config, outputs)
    if config == checkpoint.config:
        return checkpoint
    weights = {name: checkpoint.weights[name] for name in weight_specs(config)}
    labels = checkpoint.labels if config.include_top else ()
    return dataclasses.replace(checkpoint, config=config, weights=weights, labels=labels)
