"""Checks of the options that only the Keras model has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from vit_deploy.core.config import ViTConfig
from vit_deploy.core.config_checks import is_count
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.errors import ConfigError

ATTENTION_ARGS = ("flash_attention", "qkv_bias")


def checked_shape(input_shape: object) -> tuple[Any, Any, Any]:
    """`input_shape` as height, width and channels, whose values the config checks.

    Raises:
        ConfigError: it is not three values.
    """
    if not isinstance(input_shape, Sequence) or len(input_shape) != 3:
        raise ConfigError(
            f"input_shape is {input_shape!r}; expected (height, width, channels)",
            fix="give input_shape as (224, 224, 3)",
        )
    return (input_shape[0], input_shape[1], input_shape[2])


def as_preprocess(given: Preprocess | Mapping[str, Any] | None, config: ViTConfig) -> Preprocess:
    """The preprocessing that was given, as itself or as plain values; the usual one where none was."""
    if given is None:
        return Preprocess.for_channels(config.channels)
    return given if isinstance(given, Preprocess) else Preprocess.from_dict(given)


def option_problems(rates: Mapping[str, float], attention_args: Mapping[str, Any], seed: int | None) -> list[str]:
    """What is wrong with the options that concern the making and the training of a model."""
    problems = [f"{name} is {rate!r}; expected 0 <= rate < 1" for name, rate in rates.items() if not 0 <= rate < 1]
    if seed is not None and not (is_count(seed) and seed >= 0):
        problems.append(f"seed is {seed!r}; expected a whole number from 0 on, or None")
    if unknown := [name for name in attention_args if name not in ATTENTION_ARGS]:
        problems.append(f"attention_args has {', '.join(unknown)}; known are {', '.join(ATTENTION_ARGS)}")
    flash = attention_args.get("flash_attention", False)
    if flash is not None and not isinstance(flash, bool):
        problems.append(f"flash_attention is {flash!r}; expected True, False or None")
    if flash is not False and rates["attention_dropout_rate"] > 0:
        problems.append("flash_attention computes no attention weights, so attention_dropout_rate has to be 0")
    if flash is True and keras.backend.backend() == "tensorflow":
        problems.append("flash_attention=True, and the tensorflow backend has none; None takes it where there is one")
    return problems


def companion_problems(config: ViTConfig, preprocess: Preprocess, labels: Sequence[str]) -> list[str]:
    """What does not fit the config among the things that travel with a model."""
    problems = []
    if preprocess.channels != config.channels:
        problems.append(f"preprocess is for {preprocess.channels} channels, input_shape has {config.channels}")
    if labels and config.include_top and len(labels) != config.num_classes:
        problems.append(f"labels has {len(labels)} names for {config.num_classes} classes")
    return problems
