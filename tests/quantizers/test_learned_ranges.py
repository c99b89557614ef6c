"""Ranges that training learned count in calibrated files, unless images to calibrate with are given."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from vit_deploy import reference
from vit_deploy.calibration import read_calibration
from vit_deploy.compress import layer_names
from vit_deploy.compress.stage import ready
from vit_deploy.exporters.stage import export, plan
from vit_deploy.golden import natural_pixels
from vit_deploy.quantizers import QUANTIZERS, tflite
from vit_deploy.quantizers.learned import learned_ranges
from vit_deploy.quantizers.recipes import recipe_for
from vit_deploy.quantizers.tflite_layers import find_layers
from vit_deploy.quantizers.tflite_ranges import observe
from vit_deploy.tflite_file import opened

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
    values = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    scales = [values[node.input[1]] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert scales and all(each == pytest.approx(5 / 127.5, rel=0.01) for each in scales)


def test_a_tflite_file_has_the_learned_scales(sources, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    path = written(sources["tflite"], tmp_path, read_calibration(None, sources["tflite"]))
    engine = Interpreter(model_path=str(path))
    details = [each for each in engine.get_tensor_details() if each["dtype"] == np.int8]
    scales = [each["quantization"][0] for each in details if len(each["quantization_parameters"]["scales"]) == 1]
    assert sum(scale == pytest.approx(8 / 255, rel=1e-3) for scale in scales) >= len(scales) / 2


def test_images_to_calibrate_with_count_more(sources, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 24, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels)
    source = sources["onnx"]
    assert learned_ranges(source, read_calibration(None, source))
    assert learned_ranges(source, read_calibration(tmp_path / "images.npz", source)) == {}


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
    learned = tflite._learned(made.artifact, calibration, layers, {})
    assert len(learned) >= 7  # query, key and value have one input
    for tensor, known in learned.items():
        assert known == pytest.approx((seen[tensor].low, seen[tensor].high), rel=1e-3), tensor
