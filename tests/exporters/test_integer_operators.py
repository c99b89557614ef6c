"""Operators of TFLite files that are spelled so that accelerators of integers have kernels for all of them."""

from __future__ import annotations

import pytest

from vit_deploy.errors import ConfigError, ExportError
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.pipeline import export
from vit_deploy.formats.accelerators import ACCELERATORS, fallbacks, verdict
from vit_deploy.formats.tflite.file import opened
from vit_deploy.formats.tflite.operators import read_steps


@pytest.fixture(scope="module")
def files(make_checkpoint, tmp_path_factory):
    """A model with norms of queries and keys, and the largest of all tokens, by precision."""
    jobs, _ = plan(["tflite"], ["fp32", "int8-full"])
    checkpoint = make_checkpoint(qk_norm=True, pooling="max")
    options = QuantizeOptions(measure_speed=False)
    made = export(checkpoint, tmp_path_factory.mktemp("made"), jobs, options)
    assert [result.parity.ok for result in made.results] == [True, True]
    return {result.artifact.precision: result.artifact.model_path for result in made.results}


def test_norms_of_heads_and_the_largest_token_are_integers(files):
    with opened(files["int8-full"]) as model:
        steps = list(read_steps(model))
        computed = {tensor.dtype for step in steps for tensor in (*step.inputs, *step.outputs)}
        assert computed <= {"int8", "int16", "int32"}
        means = [step for step in steps if step.kind == "MEAN"]
        assert means and all(len(step.inputs[0].shape) <= 3 for step in means)
        assert [step.kind for step in steps].count("MAX_POOL_2D") == 1
        assert not any(step.kind == "REDUCE_MAX" for step in steps)


@pytest.fixture(scope="module")
def wide(make_checkpoint, tmp_path_factory):
    """A model in 16-bit integers throughout: products of attention in 16 bits, and in 8."""
    [job], _ = plan(["tflite"], ["int16x8"])
    found = {}
    for bits in (16, 8):
        options = QuantizeOptions(measure_speed=False, all_integers=True, attention_bits=bits)
        folder = tmp_path_factory.mktemp("wide")
        [result] = export(make_checkpoint(), folder, [job], options).results
        assert result.parity.ok and result.parity.snr_db > 25
        assert result.artifact.options["recipe"]["all_integers"] is True
        found[bits] = result.artifact.model_path
    return found


@pytest.mark.slow
def test_of_sixteen_bits_everything_between_input_and_output_is_integers(wide):
    for bits, path in wide.items():
        with opened(path) as model:
            steps = list(read_steps(model))
            types = [(step.kind, {tensor.dtype for tensor in (*step.inputs, *step.outputs)}) for step in steps]
            products = {step.inputs[1].dtype for step in steps if step.kind == "BATCH_MATMUL"}
        assert [kind for kind, found in types if "float32" in found] == ["QUANTIZE", "DEQUANTIZE"]
        assert products == {f"int{bits}"}


@pytest.mark.slow
def test_only_input_and_output_are_left_to_the_cpu(wide):
    for bits, device in ((16, "ethos-u85"), (8, "ethos-u")):
        left = verdict(wide[bits], ACCELERATORS[device]).left
        assert {entry.operator: entry.count for entry in left} == {"QUANTIZE": 1, "DEQUANTIZE": 1}


@pytest.mark.slow
def test_norms_that_cannot_be_centred_are_integers_of_sixteen_bits_too(make_checkpoint, tmp_path):
    """A norm behind a residual sum subtracts the mean of what it reads, and squares what is left."""
    [job], _ = plan(["tflite"], ["int16x8"])
    options = QuantizeOptions(measure_speed=False, all_integers=True)
    [result] = export(make_checkpoint(normalization_position="post"), tmp_path, [job], options).results
    assert result.parity.ok and result.parity.snr_db > 25
    path = result.artifact.model_path
    with opened(path) as model:
        steps = list(read_steps(model))
        types = [(step.kind, {tensor.dtype for tensor in (*step.inputs, *step.outputs)}) for step in steps]
    assert not any(kind == "SQUARED_DIFFERENCE" for kind, _ in types)
    assert [kind for kind, found in types if "float32" in found] == ["QUANTIZE", "DEQUANTIZE"]
    left = verdict(path, ACCELERATORS["ethos-u85"]).left
    assert {entry.operator: entry.count for entry in left} == {"QUANTIZE": 1, "DEQUANTIZE": 1}


@pytest.mark.slow
def test_squares_that_cannot_be_products_are_refused(make_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("vit_deploy.exporters.tflite.quantize.with_products_for_squares", bytearray)
    [job], _ = plan(["tflite"], ["int16x8"])
    options = QuantizeOptions(measure_speed=False, all_integers=True)
    with pytest.raises(ExportError, match="squared difference") as caught:
        export(make_checkpoint(normalization_position="post"), tmp_path, [job], options)
    assert "leave --all-integers out" in caught.value.fix


@pytest.mark.parametrize(
    ("format", "precision", "more", "words"),
    [
        ("tflite", "int8", {}, "is for TFLite's int16x8"),
        ("onnx", "int8", {}, "is for TFLite's int16x8"),
        ("tflite", "int16x8", {"keep_float": ("head",)}, "no layer can stay in float"),
    ],
)
def test_where_it_does_nothing_it_is_refused(make_checkpoint, tmp_path, format, precision, more, words):
    jobs, _ = plan([format], [precision])
    with pytest.raises(ConfigError, match=words):
        export(make_checkpoint(), tmp_path, jobs, QuantizeOptions(all_integers=True, **more))


def test_axes_of_means_count_from_the_first(files):
    for path in files.values():
        with opened(path) as model:
            axes = [step.inputs[1].values().tolist() for step in read_steps(model) if step.kind == "MEAN"]
        assert axes and all(axis >= 0 for each in axes for axis in each)


@pytest.mark.parametrize("device", ["ethos-u", "ethos-u85", "hexagon"])
def test_accelerators_leave_nothing_of_it_to_the_cpu(files, device):
    assert verdict(files["int8-full"], ACCELERATORS[device]).left == ()
    assert fallbacks(files["int8-full"], ACCELERATORS[device]) == ()
