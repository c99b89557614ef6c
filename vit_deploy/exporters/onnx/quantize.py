"""An fp32 ONNX file in 16-bit floats or integers.

ONNX Runtime's own tools do the quantizing. What is done here is to bring the graph into the form that they and the
engines take (see `exporters.onnx.layers`), to tell them what to quantize, and to give them ranges.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import onnx
from onnx import helper
from onnxruntime.quantization.onnx_model import ONNXModel

import vit_deploy
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.input_output import OutputSpec
from vit_deploy.core.narrow_floats import PROTECTED
from vit_deploy.core.options.quantizing import Clipping
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.core.weights import weight_specs
from vit_deploy.errors import ConfigError
from vit_deploy.exporters.onnx.bfloat16 import with_bfloat16
from vit_deploy.exporters.onnx.dynamic import with_dynamic_integers
from vit_deploy.exporters.onnx.file import read, save
from vit_deploy.exporters.onnx.float16 import with_float16
from vit_deploy.exporters.onnx.half_guard import guard
from vit_deploy.exporters.onnx.int4_blocks import with_blocks
from vit_deploy.exporters.onnx.layer_inputs import largest_by_channel, observe
from vit_deploy.exporters.onnx.layers import PATCH_EMBED, array, layers_of, patches_as_product, set_array
from vit_deploy.exporters.onnx.static import with_static_integers
from vit_deploy.exporters.onnx.whole_graph import OPSET, with_whole_graph
from vit_deploy.exporters.onnx.write import EXTERNAL_LIMIT, check_model
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.half_protection import Protection
from vit_deploy.exporters.quantization.learned_ranges import learned_ranges
from vit_deploy.exporters.quantization.recipes import Activations, Part, Recipe
from vit_deploy.exporters.quantization.smoothing import smoothed

PRODUCER = "vit-deploy"
HALF = 16  # bits
BFLOAT16 = "bf16"


@dataclass(frozen=True)
class OnnxQuantizer:
    """Writes `model.onnx`, and `model.onnx.data` for large weights.

    Args:
        external_limit: bytes from which the weights are written beside the model.
    """

    external_limit: int = EXTERNAL_LIMIT
    libraries: tuple[str, ...] = ("onnx", "onnxruntime", "onnxruntime-gpu")

    def write(self, source: Artifact, target: Artifact, recipe: Recipe, calibration: Calibration | None) -> Artifact:
        """Write the file with the artifact's essentials as metadata; see `quantization.Quantizer`.

        Raises:
            ExportError: the graph is not the one of a ViT of ours, or the result is not valid.
            EngineError: the quantizer failed.
            OSError: the disk is full.
        """
        model = read(source.model_path)
        if recipe.half_io:
            inside = source.input.preprocessing_inside
            spec = source.input if inside else dataclasses.replace(source.input, dtype="float16")
            halves = {name: OutputSpec("float16") for name in target.output_names}
            target = dataclasses.replace(target.giving(halves), input=spec)
        with quiet_stderr():
            if calibration is not None and recipe.computes_in_half:
                guarded = guard(model, source, calibration, recipe)
                model = with_float16(model, recipe, recipe.keep_float, guarded.nodes)
                target = _with_record(target, guarded.told)
            else:
                model = quantized(model, source, recipe, calibration)
            ONNXModel(model).topological_sort()  # the tools put new nodes at the end
        if recipe.whole:
            target = dataclasses.replace(target, options={**target.options, "opset": OPSET})
        del model.metadata_props[:]
        helper.set_model_props(model, dict(sorted(target.essentials().items())))
        model.producer_name, model.producer_version = PRODUCER, vit_deploy.__version__
        save(model, target.model_path, external_limit=self.external_limit)
        check_model(target.model_path)
        return target


def _with_record(target: Artifact, told: Protection | None) -> Artifact:
    if told is None:
        return target
    recipe = {**target.options.get("recipe", {}), PROTECTED: told.to_dict()}
    return dataclasses.replace(target, options={**target.options, "recipe": recipe})


def quantized(
    model: onnx.ModelProto, source: Artifact, recipe: Recipe, calibration: Calibration | None
) -> onnx.ModelProto:
    """The model by a recipe.

    Raises:
        ExportError, EngineError: as `OnnxQuantizer.write`.
    """
    if recipe.weight_bits == HALF:
        return with_bfloat16(model) if recipe.precision == BFLOAT16 else with_float16(model, recipe, recipe.keep_float)
    _smooth(model, source, recipe, calibration)
    if recipe.whole:
        return with_whole_graph(model, source, recipe, calibration)
    if PATCH_EMBED not in recipe.keep_float and Part.PATCH_EMBED in recipe.parts:
        patches_as_product(model.graph, source.config)
    names = [layer.name for layer in layers_of(model.graph) if is_quantized(layer.name, recipe)]
    if recipe.activations is Activations.DYNAMIC:
        return with_dynamic_integers(model, names, recipe)
    if recipe.activations is Activations.FLOAT:
        return with_blocks(model, names, recipe, source.input, calibration)
    if calibration is None:
        raise ConfigError(f"{recipe.precision} needs images to calibrate with")
    seen = observe(model, source.input, calibration, counted=recipe.clipping is not Clipping.MIN_MAX)
    return with_static_integers(model, names, seen, recipe, learned_ranges(source, calibration))


def _smooth(model: onnx.ModelProto, source: Artifact, recipe: Recipe, calibration: Calibration | None) -> None:
    there = {weight.name for weight in model.graph.initializer}  # a layer scale is folded into its kernel
    weights = {name: array(model.graph, name) for name in weight_specs(source.config) if name in there}
    if recipe.needs_ranges and learned_ranges(source, calibration):  # which hold for the channels as they are
        return
    if recipe.smoothing is not None and calibration is not None:
        largest = largest_by_channel(model, source.input, calibration)
        changed = smoothed(weights, source.config, largest, recipe.smoothing, source.named_outputs)
    elif recipe.equalized:
        changed = smoothed(weights, source.config, outputs=source.named_outputs)
    else:
        return
    for name, values in changed.items():
        set_array(model.graph, name, values)


def is_quantized(name: str, recipe: Recipe) -> bool:
    """Whether a layer becomes integers."""
    part = {PATCH_EMBED: Part.PATCH_EMBED, "head": Part.HEAD}.get(name, Part.PROJECTIONS)
    return part in recipe.parts and name not in recipe.keep_float
