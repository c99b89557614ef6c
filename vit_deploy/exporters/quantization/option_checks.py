"""Checks that a requested option has an effect in its format and precision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.format import FP32
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.options.quantizing import Clipping
from vit_deploy.errors import ConfigError
from vit_deploy.exporters import USUAL_OPSET
from vit_deploy.exporters.plan import INTEGER_INPUT
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.recipes import HALF, Activations, Recipe, quantizable

EIGHT = 8  # bits
OF_OTHERS = ("seed", "measure_speed")  # options that something else reads too, or that ask for nothing


def notes_on_idle(precisions: Iterable[str], options: QuantizeOptions) -> tuple[str, ...]:
    """What is said of options for other precisions where files in float32 are all that is made."""
    usual = QuantizeOptions()
    given = [name for name, value in vars(options).items() if value != getattr(usual, name) and name not in OF_OTHERS]
    if not given or set(precisions) != {FP32}:
        return ()
    said = " and ".join(f"--{name.replace('_', '-')}" for name in given)
    return (f"not used: {said}, for files in {FP32} are made without",)


def check_asked(source: Artifact, recipes: Sequence[Recipe], options: QuantizeOptions) -> None:
    """Refuse what could only be left out in silence.

    Args:
        source: what is quantized; its files need not be there yet.
        recipes: the recipes that are followed.
        options: the requested options.

    Raises:
        ConfigError: an option that does nothing here, or a layer that the model does not have.
    """
    _check_methods(source.format, recipes, options)
    names = list(dict.fromkeys(name for recipe in recipes for name in quantizable(recipe, source.config)))
    if unknown := [name for name in options.keep_float if name not in names]:
        raise ConfigError(f"no such layers: {', '.join(unknown)}", fix=f"they are called like {', '.join(names[:5])}")
    if options.smoothing and options.calibrate is None and source.options.get("ranges"):
        raise ConfigError(
            "--smoothing scales channels, and ranges that training left in the checkpoint hold for them as they are",
            fix="leave --smoothing out, or measure ranges again with --calibrate DIR",
        )
    if "bf16" in [recipe.precision for recipe in recipes] and options.keep_float:
        raise ConfigError(
            "bf16 has the range of float32, and no layer of it is kept in float", fix="leave --keep-float out"
        )
    whole = [recipe.precision for recipe in recipes if recipe.whole]
    if whole and FORMATS[source.format].has_opset and source.options.get("opset", USUAL_OPSET) < USUAL_OPSET:
        raise ConfigError(
            f"{' and '.join(whole)} has opset 21, the first whose quantizers have 16 bits, and the fp32 file is of "
            f"opset {source.options['opset']}, whose operators are others",
            fix=f"export it with --opset {USUAL_OPSET}",
        )
    if whole and source.is_for_any_size:
        raise ConfigError(
            f"{' and '.join(whole)} has every value in integers, whose ranges are those of one size of images, and "
            f"{source.directory} takes any",
            fix="export the fp32 file for one size",
        )
    integer = [recipe.precision for recipe in recipes if recipe.precision in INTEGER_INPUT]
    if integer and source.input.preprocessing_inside:
        raise ConfigError(
            f"the input of {', '.join(integer)} is int8, and that of {source.directory} is uint8 pixels",
            fix="export the fp32 file without --include-preprocessing",
        )
    if integer and (options.keep_float or options.max_drop is not None or options.min_cosine is not None):
        raise ConfigError(
            f"{', '.join(integer)} has integers alone, so no layer can stay in float",
            fix="ask for int8-static, or leave --keep-float, --max-drop and --min-cosine out",
        )


def _check_methods(format: str, recipes: Sequence[Recipe], options: QuantizeOptions) -> None:
    record = FORMATS[format]
    precisions = ", ".join(recipe.precision for recipe in recipes)
    if record.refuse_options is not None:
        record.refuse_options.load()(options)
    whole = [recipe for recipe in recipes if recipe.all_integers]
    if options.all_integers and not (whole and "all_integers" in record.quantization_options):
        raise ConfigError(
            f"--all-integers is for TFLite's int16x8, and {format} is asked for {precisions}",
            fix="leave it out, or ask for --format tflite --precision int16x8",
        )
    if whole and (options.keep_float or options.max_drop is not None or options.min_cosine is not None):
        raise ConfigError(
            "--all-integers has integers alone, so no layer can stay in float",
            fix="leave it out, or --keep-float, --max-drop and --min-cosine",
        )
    full = any(recipe.integer_io for recipe in recipes)
    if (options.softmax_bits or options.residual_bits) and not full:
        raise ConfigError(
            f"--softmax-bits and --residual-bits are for int8-full, and {format} is asked for {precisions}",
            fix="leave them out, or ask for TFLite's int8-full",
        )
    if options.attention_bits and not (full or whole):
        raise ConfigError(
            f"--attention-bits is for int8-full, and {format} is asked for {precisions}",
            fix="leave it out, or ask for TFLite's int8-full, or its int16x8 with --all-integers",
        )
    if options.half_io and (
        "half_io" not in record.quantization_options or HALF not in [recipe.precision for recipe in recipes]
    ):
        raise ConfigError(
            f"--half-io is for ONNX files in {HALF}, and {format} is asked for {precisions}",
            fix="leave it out, or ask for --format onnx --precision fp16",
        )
    if options.full_range and not (
        "full_range" in record.quantization_options and any(recipe.weight_bits == EIGHT for recipe in recipes)
    ):
        raise ConfigError(
            f"--full-range is for 8-bit weights of ONNX files, and {format} is asked for {precisions}",
            fix="leave it out, or ask for --format onnx --precision int8",
        )
    if options.clipping is not None and not any(recipe.activations is Activations.STATIC for recipe in recipes):
        raise ConfigError(
            f"--clipping is for calibrated ranges of activations, and there are none in {format} {precisions}",
            fix="leave it out, or ask for int8-static",
        )
    if options.bias_correction and not any(recipe.weight_bits <= EIGHT for recipe in recipes):
        raise ConfigError(
            f"--bias-correction makes up for kernels in integers, and {format} is asked for {precisions}",
            fix="leave it out, or ask for int8 or int4",
        )
    if options.percentile is not None and not any(recipe.clipping is Clipping.PERCENTILE for recipe in recipes):
        raise ConfigError(
            "--percentile says what --clipping percentile cuts off, and ranges are clipped otherwise",
            fix="add --clipping percentile",
        )
