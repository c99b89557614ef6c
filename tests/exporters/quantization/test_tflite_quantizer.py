"""Quantized TFLite files: what they answer, what is in them, what they say of themselves, read with plain engines."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tests.exporters.quantization.likeness import alike
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.manifest import read_artifact, sha256
from vit_deploy.core.reference import forward
from vit_deploy.core.weights import layer_names
from vit_deploy.errors import ConfigError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.calibration import COUNT, read_calibration
from vit_deploy.exporters.quantization.outputs import answers, cosines
from vit_deploy.exporters.quantization.pipeline import quantize
from vit_deploy.exporters.quantization.recipes import recipe_for
from vit_deploy.exporters.tflite.export import TFLiteExporter
from vit_deploy.exporters.tflite.layers import find_layers
from vit_deploy.exporters.tflite.quantize import TFLiteQuantizer
from vit_deploy.exporters.tflite.ranges import observe
from vit_deploy.exporters.tflite.recipes import TFLITE_RECIPES
from vit_deploy.formats.inspect import inspect
from vit_deploy.formats.tflite.file import opened

# Smallest cosine of the answers with the reference in float64; a broken file is far below.
COSINES = {"fp16": 0.999999, "int8": 0.9995, "int8-static": 0.9985, "int8-full": 0.997, "int16x8": 0.999, "int4": 0.99}
QUIET = QuantizeOptions(measure_speed=False)


@pytest.fixture(scope="module")
def checkpoint(make_checkpoint):
    return make_checkpoint(embed_dim=24, mlp_dim=64)


@pytest.fixture(scope="module")
def source(checkpoint, tmp_path_factory):
    checkpoint = dataclasses.replace(checkpoint, labels=("a", "b", "c", "d", "e"))
    (result,) = export(checkpoint, tmp_path_factory.mktemp("source"), plan(["tflite"], ["fp32"])[0])
    return result.artifact


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    made = quantize(source, tmp_path_factory.mktemp("made"), list(COSINES), QUIET)
    return {result.artifact.precision: result for result in made.results}


@pytest.mark.parametrize("precision", COSINES)
def test_every_precision_is_proven_and_answers_nearly_what_the_reference_does(precision, made, checkpoint):
    artifact = read_artifact(made[precision].artifact.directory)
    assert made[precision].parity.ok and made[precision].published
    assert alike(artifact, checkpoint) > COSINES[precision]


@pytest.mark.parametrize("precision", COSINES)
def test_a_file_says_of_itself_what_its_manifest_says(precision, made, source):
    artifact = read_artifact(made[precision].artifact.directory)
    alone = inspect(artifact.model_path).artifact
    assert (alone.precision, alone.input, alone.output, alone.labels) == (
        precision,
        artifact.input,
        artifact.output,
        source.labels,
    )
    assert artifact.parent == sha256(source.directory / "artifact.json")
    assert artifact.weights_digest == source.weights_digest
    assert artifact.options["recipe"]["precision"] == precision
    calibration = artifact.options["calibration"]
    if precision in ("int8-static", "int8-full", "int16x8", "int4"):
        assert calibration == read_calibration(None, source).to_dict() and calibration["images"] == COUNT
    else:
        assert calibration is None
    assert artifact.producer["litert-quantizer"]


def tensors(artifact):
    engine = Interpreter(
        model_path=str(artifact.model_path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    engine.allocate_tensors()
    return engine, {detail["index"]: detail for detail in engine.get_tensor_details()}


def test_int8_full_has_no_float_anywhere_and_its_scales_are_in_the_manifest(made):
    artifact = made["int8-full"].artifact
    engine, found = tensors(artifact)
    used = [index for step in engine._get_ops_details() for index in (*step["inputs"], *step["outputs"]) if index >= 0]
    assert {np.dtype(found[index]["dtype"]).name for index in used} == {"int8", "int16", "int32"}
    wide = {
        step["op_name"]
        for step in engine._get_ops_details()
        if any(found[index]["dtype"] == np.int16 for index in step["outputs"])
    }
    assert wide == {"SOFTMAX", "QUANTIZE"}
    (given,), (result,) = engine.get_input_details(), engine.get_output_details()
    assert (artifact.input.dtype, artifact.input.scale, artifact.input.zero_point) == ("int8", *given["quantization"])
    assert (artifact.output.dtype, artifact.output.scale, artifact.output.zero_point) == (
        "int8",
        *result["quantization"],
    )


def test_kernels_are_the_nearest_integers_of_a_scale_for_each_channel(source, tmp_path):
    (result,) = quantize(source, tmp_path, ["int8"], dataclasses.replace(QUIET, smoothing=0)).results
    exact, stored = kernels(source), kernels(result.artifact, np.int8)
    assert set(stored) == set(layer_names(source.config))
    for name, values in stored.items():
        weights = exact[name].reshape(len(values), -1)
        expected = np.rint(weights / (np.abs(weights).max(axis=1, keepdims=True) / 127))
        assert np.abs(values.reshape(weights.shape) - expected).max() <= 1  # where halves round in float32
        assert np.mean(values.reshape(weights.shape) != expected) < 0.01


def kernels(artifact, dtype=np.float32):
    with opened(artifact.model_path) as model:
        shapes = {tensor.buffer: tensor.shape for tensor in model.graph.tensors}
        found = {}
        for name, layer in find_layers(model, artifact.config).items():
            content = bytes(model.buffers[layer.kernel].content)
            if len(content) == math.prod(shapes[layer.kernel]) * np.dtype(dtype).itemsize:
                found[name] = np.frombuffer(content, dtype).reshape(shapes[layer.kernel])
        return found


def test_calibration_sees_what_the_reference_computes(source, checkpoint):
    calibration = read_calibration(None, source, count=8)
    seen = observe(source.model_path, source.input, calibration, counted=True)
    activations = {}
    forward(checkpoint, calibration.images, hook=activations.__setitem__)
    with opened(source.model_path) as model:
        name = find_layers(model, source.config)["patch_embed"].output
    embedded = activations["patch_embed"] - activations["patch_embed"].mean(
        axis=-1, keepdims=True
    )  # nobody reads a token's mean
    assert seen.tensors[name].low == pytest.approx(embedded.min(), rel=1e-4)
    assert seen.tensors[name].high == pytest.approx(embedded.max(), rel=1e-4)
    assert seen.tensors[name].counts.sum() == activations["patch_embed"].size


def test_layers_that_are_to_stay_in_float_do(source, tmp_path):
    kept = ("block_1.ffn.down", "patch_embed")
    options = dataclasses.replace(QUIET, keep_float=kept)
    made = quantize(source, tmp_path, ["int8", "int8-static"], options)
    for result in made.results:
        assert set(kernels(result.artifact)) == set(kept)
        assert result.artifact.options["recipe"]["keep_float"] == list(kept)


def test_int4_has_four_bits_but_for_the_layers_that_cost_most(made, source):
    recipe = recipe_for("tflite", "int4")
    wide = set(kernels(made["int4"].artifact, np.int8))
    # LiteRT has no 4-bit convolution.
    expected = {name for name in layer_names(source.config) if recipe.bits_of(name) == 8} | {"patch_embed"}
    assert wide == expected and "block_1.ffn.up" not in wide


@pytest.mark.slow
def test_outliers_that_leave_the_function_unchanged_leave_the_quantized_file_unchanged(
    checkpoint, source, made, tmp_path
):
    weights = dict(checkpoint.weights)
    for norm, readers in (("norm1", ("attention.query", "attention.key", "attention.value")), ("norm2", ("ffn.up",))):
        factors = np.ones(24, np.float32)
        factors[:10] = 32  # a power of two: the same function to the last bit
        for index in range(checkpoint.config.num_layers):
            for part in ("scale", "bias"):
                weights[f"block_{index}.{norm}.{part}"] = weights[f"block_{index}.{norm}.{part}"] * factors
            for reader in readers:
                kernel = f"block_{index}.{reader}.kernel"
                weights[kernel] = weights[kernel] / factors[:, None]
    planted = Checkpoint(checkpoint.config, weights, checkpoint.preprocess)
    (result,) = export(planted, tmp_path / "fp32", plan(["tflite"], ["fp32"])[0])
    again = {
        each.artifact.precision: each for each in quantize(result.artifact, tmp_path, list(COSINES), QUIET).results
    }
    images = read_calibration(None, source, seed=9, count=12).images
    for precision, value in again.items():
        before, after = (answers(artifact, images) for artifact in (made[precision].artifact, value.artifact))
        np.testing.assert_allclose(after, before, atol=1e-4 * np.abs(before).max(), err_msg=precision)


def test_weights_outside_of_the_flatbuffer_are_quantized_too(checkpoint, source, made, tmp_path):
    copy = dataclasses.replace(source, directory=tmp_path)
    TFLiteExporter(inline_limit=1000).write(checkpoint, copy, ExportOptions())
    target = tmp_path / "quantized"
    target.mkdir()
    recipe = recipe_for("tflite", "int8")
    result = TFLiteQuantizer(inline_limit=1000).write(copy, dataclasses.replace(copy, directory=target), recipe, None)
    images = read_calibration(None, source, seed=9, count=3).images
    np.testing.assert_allclose(answers(result, images), answers(made["int8"].artifact, images), atol=1e-6)
    assert json.loads(inspect(result.model_path).graph.metadata["vit_deploy.precision"]) == "fp32"


def test_bias_correction_brings_the_mean_output_nearer(source, tmp_path):
    images = read_calibration(None, source, count=16)
    exact = answers(source, images.images)
    errors = []
    for wanted in (False, True):
        options = dataclasses.replace(QUIET, bias_correction=wanted)
        (result,) = quantize(source, tmp_path / str(wanted), ["int8"], options).results
        errors.append(np.abs((answers(result.artifact, images.images) - exact).mean(axis=0)).mean())
    assert errors[1] < errors[0]


@pytest.mark.parametrize("precision", ["int8", "int16x8", "int4"])
def test_corrected_biases_make_up_for_what_a_layer_loses_of_a_channel_that_is_always_large(
    precision, make_checkpoint, tmp_path
):
    checkpoint = make_checkpoint(embed_dim=32, num_heads=2, mlp_dim=64, num_layers=1)
    scale = checkpoint.weights["block_0.norm2.bias"].copy()
    scale[5] += 200
    weights = {**checkpoint.weights, "block_0.norm2.bias": scale}
    weights["block_0.ffn.up.bias"] = (
        weights["block_0.ffn.up.bias"] - 200 * weights["block_0.ffn.up.kernel"][5]
    )  # which takes it out again
    checkpoint = dataclasses.replace(checkpoint, weights=weights)
    (result,) = export(checkpoint, tmp_path / "fp32", plan(["tflite"], ["fp32"])[0])
    images = read_calibration(None, result.artifact, count=16)
    exact, errors = answers(result.artifact, images.images), []
    for wanted in (False, True):
        recipe = dataclasses.replace(recipe_for("tflite", precision), bias_correction=wanted)
        target = dataclasses.replace(result.artifact, directory=tmp_path / str(wanted), precision=precision)
        target.directory.mkdir()
        made = TFLiteQuantizer().write(result.artifact, target, recipe, images)
        errors.append(np.abs((answers(made, images.images) - exact).mean(axis=0)).mean())
    assert errors[1] < errors[0] / 2


def test_smoothing_by_activations_is_refused(source, tmp_path):
    with pytest.raises(ConfigError, match="smoothed by their weights alone"):
        quantize(source, tmp_path / "out", ["int8"], dataclasses.replace(QUIET, smoothing=0.5))
    assert not (tmp_path / "out").exists()


def test_residual_sums_and_norms_of_an_integer_file_can_have_16_bits(made, source, tmp_path):
    (result,) = quantize(source, tmp_path, ["int8-full"], dataclasses.replace(QUIET, residual_bits=16)).results
    engine, found = tensors(result.artifact)
    used = {}
    for step in engine._get_ops_details():
        kinds = {np.dtype(found[index]["dtype"]).name for index in step["outputs"]}
        used.setdefault(step["op_name"], set()).update(kinds)
    assert used["ADD"] == used["RSQRT"] == used["MUL"] == {"int16"} and used["FULLY_CONNECTED"] == {"int8"}
    assert not {"float32", "float16"} & set().union(*used.values())
    images = read_calibration(None, source, seed=9, count=12).images
    narrow, wide = (
        cosines(answers(each, images), answers(source, images)).mean()
        for each in (made["int8-full"].artifact, result.artifact)
    )
    assert wide > narrow


def test_every_recipe_says_why_it_is_as_it_is():
    assert set(TFLITE_RECIPES) == set(COSINES)
    assert all(len(recipe.reason) > 40 for recipe in TFLITE_RECIPES.values())
