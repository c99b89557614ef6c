"""Ranges that training learned count in calibrated files, unless images to calibrate with are given."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from vit_deploy import checkpoints
from vit_deploy.compression.stage import ready
from vit_deploy.core import reference
from vit_deploy.core.checkpoint import range_problems
from vit_deploy.core.resize import resize
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.core.weights import layer_names
from vit_deploy.errors import ConfigError
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export
from vit_deploy.exporters.quantization import QUANTIZERS, QuantizeOptions, pipeline
from vit_deploy.exporters.quantization.calibration import read_calibration
from vit_deploy.exporters.quantization.learned_ranges import LEARNED_NOTE, learned_ranges
from vit_deploy.exporters.quantization.recipes import recipe_for
from vit_deploy.exporters.tflite.chosen_ranges import learned_by_tensor
from vit_deploy.exporters.tflite.layers import find_layers, find_tensors
from vit_deploy.exporters.tflite.ranges import observe
from vit_deploy.formats.tflite.file import opened

LEARNED = (-3.0, 5.0)


@pytest.fixture(scope="module")
def sources(make_checkpoint, tmp_path_factory):
    checkpoint = ready(make_checkpoint(num_layers=1))
    names = [f"{layer}.{side}" for layer in layer_names(checkpoint.config) for side in ("input", "output")]
    checkpoint = dataclasses.replace(checkpoint, ranges=dict.fromkeys(names, LEARNED))
    jobs, _ = plan(["onnx", "tflite"], ["fp32"])
    made = export(checkpoint, tmp_path_factory.mktemp("learned"), jobs)
    return {each.artifact.format: each.artifact for each in made}


def written(source, folder: Path, calibration):
    recipe = recipe_for(source.format, "int8-static")
    target = dataclasses.replace(source, directory=folder, precision="int8-static", files={}, model="")
    return QUANTIZERS.load(source.format)().write(source, target, recipe, calibration).model_path


def test_an_onnx_file_has_the_learned_scales(sources, tmp_path):
    model = onnx.load(written(sources["onnx"], tmp_path, read_calibration(None, sources["onnx"])))
    values = {initializer.name: numpy_helper.to_array(initializer) for initializer in model.graph.initializer}
    scales = [values[node.input[1]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert scales and all(scale == pytest.approx(5 / 127.5, rel=0.01) for scale in scales)


def test_a_tflite_file_has_the_learned_scales(sources, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    path = written(sources["tflite"], tmp_path, read_calibration(None, sources["tflite"]))
    engine = Interpreter(model_path=str(path))
    details = [detail for detail in engine.get_tensor_details() if detail["dtype"] == np.int8]
    scales = [detail["quantization"][0] for detail in details if len(detail["quantization_parameters"]["scales"]) == 1]
    assert sum(scale == pytest.approx(8 / 255, rel=1e-3) for scale in scales) >= len(scales) / 2


def test_an_integer_file_has_the_ranges_between_its_layers_too(make_checkpoint, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    wide = {"block_0.norm1.mean.0": (-40.0, 62.0), "block_0.add.0": (-100.0, 2.0)}
    checkpoint = dataclasses.replace(ready(make_checkpoint(num_layers=1)), ranges=wide)
    jobs = plan(["tflite"], ["fp32", "int8-full"])[0]
    made = pipeline.export(checkpoint, tmp_path, jobs, QuantizeOptions(measure_speed=False), keep_failed=True)
    assert made.notes == [LEARNED_NOTE]
    with opened(made.results[0].artifact.model_path) as model:
        tensors = find_tensors(model, checkpoint.config)
    engine = Interpreter(model_path=str(made.results[1].artifact.model_path))
    scales = {detail["name"]: detail["quantization"][0] for detail in engine.get_tensor_details()}
    for name in wide:
        assert scales[tensors[name]] == pytest.approx(102 / 255, rel=1e-3), name


VARIANTS = {
    "plain": {},
    "map pooling, norms of heads, swiglu": {
        "class_token": False,
        "pooling": "map",
        "qk_norm": True,
        "ffn_type": "swiglu",
        "normalization_type": "rms_norm",
        "pre_norm": True,
        "layer_scale": True,
    },
    "post-norm, all prefix tokens": {
        "normalization_position": "post",
        "normalization_type": "dynamic_tanh",
        "distillation_token": True,
        "register_tokens": 2,
        "pooling": "cls_distillation",
        "pre_logits_dim": 7,
    },
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_tensor_of_a_tflite_file_has_one_name_that_a_checkpoint_takes(make_checkpoint, tmp_path, changes):
    checkpoint = ready(make_checkpoint(num_layers=1, **changes))
    (made,) = export(checkpoint, tmp_path, plan(["tflite"], ["fp32"])[0])
    with opened(made.artifact.model_path) as model:
        layers, between = find_layers(model, checkpoint.config), find_tensors(model, checkpoint.config)
    named = set(between.values()) | {layer.output for layer in layers.values()}
    calibration = read_calibration(None, made.artifact, count=8)
    seen = observe(made.artifact.model_path, made.artifact.input, calibration, counted=False).tensors
    given = layers["patch_embed"].input
    assert set(seen) - {given} == named and len(set(between.values())) == len(between)
    assert range_problems(checkpoint.config, dict.fromkeys(between, (-1.0, 1.0))) == []
    assert not any(name.startswith("model.") and "slice" not in name and "reshape" not in name for name in between)


@pytest.mark.parametrize("suffix", [".keras", ".safetensors"])
def test_ranges_survive_resizing_and_converting_and_are_exported(make_checkpoint, tmp_path, suffix):
    checkpoint = ready(make_checkpoint(num_layers=1))
    ranges = {"head.input": (-2.5, 3.0), "block_0.norm1.mean.0": (-1.0, 0.5), "patch_embed.input": (-1.0, 1.0)}
    checkpoints.save(dataclasses.replace(checkpoint, ranges=ranges), tmp_path / f"small{suffix}")
    larger = resize(checkpoints.load(tmp_path / f"small{suffix}"), image_size=(48, 32), patch_size=(12, 8))
    checkpoints.save(larger, tmp_path / f"larger{suffix}")
    again = checkpoints.load(tmp_path / f"larger{suffix}")
    assert dict(again.ranges) == ranges and again.config.patch_size == (12, 8)
    (made,) = export(again, tmp_path, plan(["onnx"], ["fp32"])[0])
    assert learned_ranges(made.artifact, read_calibration(None, made.artifact)) == ranges


def test_images_to_calibrate_with_count_more(sources, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 24, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    source = sources["onnx"]
    assert learned_ranges(source, read_calibration(None, source))
    assert learned_ranges(source, read_calibration(tmp_path / "images.npz", source)) == {}


def test_smoothing_is_refused_where_ranges_were_learned_for_channels_as_they_are(sources, tmp_path):
    options = QuantizeOptions(smoothing=0.5, measure_speed=False)
    with pytest.raises(ConfigError, match="ranges that training left") as error:
        pipeline.quantize(sources["onnx"], tmp_path / "out", ["int8"], options)
    assert "--calibrate" in error.value.fix and not (tmp_path / "out").exists()


def test_the_range_of_pixels_is_not_that_of_normalised_images(sources):
    source = sources["onnx"]
    inside = dataclasses.replace(source, input=dataclasses.replace(source.input, preprocessing_inside=True))
    found = learned_ranges(inside, read_calibration(None, source))
    assert "patch_embed.input" not in found and "head.input" in found


@pytest.mark.parametrize("changes", [{}, {"qk_norm": True}, {"ffn_type": "swiglu"}], ids=str)
def test_a_tflite_file_has_the_tensors_that_are_trained_with(make_checkpoint, tmp_path, changes):
    """A range of `block_0.attention.query.output` is worth nothing if the file's tensor of that layer is another."""
    checkpoint = ready(make_checkpoint(num_layers=2, **changes))
    exact, ranges = {}, {}
    images = checkpoint.preprocess.normalize(natural_pixels(8, 24, 32, 3, seed=0))
    reference.forward(checkpoint, images, detail=exact.__setitem__)
    inside = {
        **{f"attention.{role}.input": "attention.norm" for role in ("query", "key", "value")},
        "attention.out.input": "attention.mix",
        "ffn.up.input": "ffn.norm",
        "ffn.down.input": "ffn.hidden",
        **{f"{name}.output": name for name in ("attention.query", "attention.key", "attention.value", "ffn.up")},
    }
    for name, tapped in inside.items():
        if f"block_0.{tapped}" in exact:
            values = exact[f"block_0.{tapped}"]
            ranges[f"block_0.{name}"] = (float(values.min()), float(values.max()))
    assert len(ranges) >= 9  # the first block has all tokens, as the reference has
    jobs, _ = plan(["tflite"], ["fp32"])
    (made,) = export(dataclasses.replace(checkpoint, ranges=ranges), tmp_path, jobs)
    calibration = dataclasses.replace(read_calibration(None, made.artifact), images=images)
    with opened(made.artifact.model_path) as model:
        layers = find_layers(model, made.artifact.config)
    seen = observe(made.artifact.model_path, made.artifact.input, calibration, counted=False).tensors
    learned = learned_by_tensor(made.artifact, calibration, layers, {})
    assert len(learned) >= 7  # query, key and value have one input
    for tensor, known in learned.items():
        assert known == pytest.approx((seen[tensor].low, seen[tensor].high), rel=1e-3), tensor


def test_ranges_of_norms_that_were_learned_when_these_took_squares_are_measured_anew(make_checkpoint, tmp_path):
    """Their second product was the first: its range is not that of the squares."""
    ranges = {"block_0.norm1.square.0": (0.0, 9.0), "block_0.norm1.mul.0": (-3.0, 3.0), "block_0.add.0": (-7.0, 7.0)}
    checkpoint = ready(make_checkpoint(num_layers=1, normalization_type="rms_norm"))
    (made,) = export(dataclasses.replace(checkpoint, ranges=ranges), tmp_path, plan(["tflite"], ["fp32"])[0])
    with opened(made.artifact.model_path) as model:
        between = find_tensors(model, checkpoint.config)
    assert "block_0.norm1.mul.1" in between
    calibration = read_calibration(None, made.artifact)
    assert learned_by_tensor(made.artifact, calibration, {}, between) == {between["block_0.add.0"]: (-7.0, 7.0)}
