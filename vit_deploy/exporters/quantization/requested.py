"""The recipes with the options that were asked for, checked before any work."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from vit_deploy.core.artifact import Artifact, describe
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.datasets import read_dataset
from vit_deploy.core.format import FP32
from vit_deploy.exporters.plan import Job
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.calibration import read_calibration
from vit_deploy.exporters.quantization.option_checks import check_asked
from vit_deploy.exporters.quantization.recipes import HALF, SIXTEEN_BITS, Recipe, in_integers, recipe_for


def requested_recipes(source: Artifact, precisions: Sequence[str], options: QuantizeOptions) -> list[Recipe]:
    """The recipes with what was asked for in the place of their own.

    Raises:
        ConfigError: the format has no such precision, or what was asked for does nothing there.
    """
    target = source.options.get("for", "cpu")
    recipes = [_asked(recipe_for(source.format, precision, target), options) for precision in dict.fromkeys(precisions)]
    check_asked(source, recipes, options)
    return recipes


def check_before(checkpoint: Checkpoint, directory: Path, jobs: Sequence[Job], options: QuantizeOptions) -> None:
    """What `quantize` would refuse is refused before an fp32 file is made.

    Raises:
        ConfigError, DataError: as `quantize`.
    """
    for format in dict.fromkeys(job.format for job in jobs):
        wanted = [job for job in jobs if job.format == format and job.precision != FP32]
        if not wanted:
            continue
        spec = wanted[0].options.input_spec(checkpoint.config)
        source = describe(
            checkpoint,
            directory / f"{format}-{FP32}",
            format=format,
            precision=FP32,
            input=spec,
            options={"for": str(wanted[0].options.target), "opset": wanted[0].options.opset},
        )
        requested_recipes(source, [job.precision for job in wanted], options)
        if options.calibrate is not None:
            read_calibration(options.calibrate, source, seed=options.seed)
        if options.data is not None:
            read_dataset(options.data).classes(source)


def _asked(recipe: Recipe, options: QuantizeOptions) -> Recipe:
    smoothing = recipe.smoothing if options.smoothing is None else options.smoothing
    bias_correction = recipe.bias_correction if options.bias_correction is None else options.bias_correction
    if options.all_integers and recipe.precision == SIXTEEN_BITS:
        recipe = in_integers(recipe)
    if recipe.integer_io:
        recipe = dataclasses.replace(
            recipe,
            softmax_bits=options.softmax_bits or recipe.softmax_bits,
            residual_bits=options.residual_bits or recipe.residual_bits,
            fixed_residual_bits=options.residual_bits is not None,
        )
    if recipe.integer_io or recipe.all_integers:
        recipe = dataclasses.replace(
            recipe,
            attention_bits=options.attention_bits or recipe.attention_bits,
            fixed_attention_bits=options.attention_bits is not None,
        )
    return dataclasses.replace(
        recipe,
        clipping=options.clipping or recipe.clipping,
        percentile=options.percentile or recipe.percentile,
        smoothing=smoothing or None,
        equalized=recipe.equalized and options.smoothing != 0,
        bias_correction=bias_correction,
        half_io=options.half_io and recipe.precision == HALF,
        fitting_pairs=recipe.fitting_pairs and not options.full_range,
        keep_float=tuple(dict.fromkeys((*recipe.keep_float, *options.keep_float))),
    )
