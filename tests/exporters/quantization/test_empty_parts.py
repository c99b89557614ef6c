"""Every precision of models with empty blocks, channels, heads and layers, with denormals, and with one huge weight."""

from __future__ import annotations

import numpy as np
import pytest

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.format import Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.manifest import read_artifact
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.float16_kernels import fits_blocks, fits_half
from vit_deploy.exporters.quantization.pipeline import export
from vit_deploy.exporters.tflite.empty_scales import fitting_scales
from vit_deploy.formats.tflite.file import opened

BLOCK = 32
DENORMAL = np.float32(1e-40)
HUGE = 1e5  # past the largest 16-bit float


def rows(kernel):
    """`(inputs, outputs)`, of the same memory."""
    return kernel.reshape(-1, kernel.shape[-1])


def kernels(weights):
    return [name for name in weights if name.endswith(".kernel")]


def empty_blocks(weights):
    for name in kernels(weights):
        rows(weights[name])[:BLOCK, ::2] = 0


def next_to_empty_blocks(weights):
    for name in kernels(weights):
        rows(weights[name])[:BLOCK, ::2] *= 1e-7
        rows(weights[name])[:BLOCK, 1::4] *= 3e-6


def empty_channels(weights):  # whose biases are all that they have
    for name in kernels(weights):
        rows(weights[name])[:, ::2] = 0


def denormal_channels(weights):
    for name in kernels(weights):
        rows(weights[name])[:, ::2] = DENORMAL


def an_empty_head(weights):
    for role in ("query", "key", "value"):
        for part in ("kernel", "bias"):
            weights[f"block_0.attention.{role}.{part}"][..., :BLOCK] = 0


def empty_layers(weights):
    for name in weights:
        if name.startswith("block_1.") and name.endswith((".kernel", ".bias")):
            weights[name][...] = 0


def four_fifths_of_zeros(weights):
    for name in kernels(weights):
        kernel = weights[name]
        kernel[np.abs(kernel) < np.quantile(np.abs(kernel), 0.8)] = 0
        rows(kernel)[:BLOCK, :4] = 0


def a_huge_weight(weights):
    weights["block_0.ffn.down.kernel"][3, 5] = HUGE


def layers_too_small_for_block_scales(weights):  # which the layer beside makes up for
    for name, factor in (("query", 1e-7), ("key", 1e7)):
        for part in ("kernel", "bias"):
            weights[f"block_1.attention.{name}.{part}"] *= np.float32(factor)


PLANTED = (
    empty_blocks,
    next_to_empty_blocks,
    empty_channels,
    denormal_channels,
    an_empty_head,
    empty_layers,
    four_fifths_of_zeros,
    layers_too_small_for_block_scales,
)


# Each is in one format among the quick ones, and in the other among the slow ones.
TURNS = [
    pytest.param(plant, format, id=f"{plant.__name__}-{format}", marks=[] if (place + turn) % 2 else pytest.mark.slow)
    for place, plant in enumerate(PLANTED)
    for turn, format in enumerate(("onnx", "tflite"))
]


@pytest.mark.slow
@pytest.mark.parametrize(("plant", "format"), TURNS)
def test_every_precision_is_made_and_proven(plant, format, make_checkpoint, tmp_path):
    checkpoint = make_checkpoint(embed_dim=64, num_heads=2, mlp_dim=96)
    weights = {name: value.copy() for name, value in checkpoint.weights.items()}
    plant(weights)
    precisions = list(FORMATS[format].precisions_for(Target.CPU))
    planted = Checkpoint(checkpoint.config, weights, checkpoint.preprocess)
    made = export(planted, tmp_path, plan([format], precisions)[0], QuantizeOptions(measure_speed=False))
    failures = {result.artifact.name: result.parity.failures for result in made.results if not result.published}
    assert (failures, made.skipped) == ({}, [])
    assert len(made.results) == len(precisions)


@pytest.mark.parametrize("format", ["onnx", pytest.param("tflite", marks=pytest.mark.slow)])
def test_one_huge_weight_is_in_every_file_and_costs_only_where_activations_are_integers(
    format, make_checkpoint, tmp_path
):
    checkpoint = make_checkpoint(embed_dim=64, num_heads=2, mlp_dim=96)
    weights = {name: value.copy() for name, value in checkpoint.weights.items()}
    a_huge_weight(weights)
    planted = Checkpoint(checkpoint.config, weights, checkpoint.preprocess)
    jobs = plan([format], list(FORMATS[format].precisions_for(Target.CPU)))[0]
    made = export(planted, tmp_path, jobs, QuantizeOptions(measure_speed=False))
    assert [result.artifact.precision for result in made.results] == list(FORMATS[format].precisions_for(Target.CPU))
    for result in made.results:
        assert result.parity.snr_db is not None or result.parity.max_abs == 0, "NaN"
        integers = result.artifact.name in (
            "onnx-int16x8",
            *(f"{format}-int8{kind}" for kind in ("", "-static", "-full")),
        )
        assert result.published or integers, result.parity.failures


def test_an_empty_block_of_4_bit_weights_has_scale_one_and_zeros(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint(embed_dim=64, num_heads=2, mlp_dim=96)
    weights = {name: value.copy() for name, value in checkpoint.weights.items()}
    empty_blocks(weights)
    planted = Checkpoint(checkpoint.config, weights, checkpoint.preprocess)
    export(planted, tmp_path, plan(["tflite"], ["int4"])[0], QuantizeOptions(measure_speed=False))
    found = 0
    with opened(read_artifact(tmp_path / "tflite-int4").model_path) as model:
        tensors, buffers = model.graph.tensors, model.buffers
        for tensor in tensors:
            blockwise = tensor.quantization.blockwise if tensor.quantization else None
            if blockwise is None:
                continue
            scales = np.frombuffer(buffers[tensors[blockwise.scales].buffer].content, np.float16)
            packed = np.frombuffer(buffers[tensor.buffer].content, np.uint8).reshape(len(scales), -1)
            assert (scales > 0).all()
            assert not packed[scales == 1].any()
            found += int((scales == 1).sum())
    assert found > 0


def test_a_channel_without_weights_has_steps_in_which_its_bias_fits():
    kernel = np.array([[0.5, -1.0], [0.0, 0.0], [1e-11, 0.0]], np.float32)
    scales = np.array([1 / 127, 1e-9 / 127, 1e-9 / 127])
    found = fitting_scales(scales, kernel, np.array([0.1, 0.2, -3e7], np.float32), step=0.02)
    assert found[0] == scales[0] and found[1] == scales[0]
    assert found[2] == pytest.approx(3e7 / (0.02 * 2**30)) and found[2] > scales[0]


def test_a_layer_without_any_values_keeps_its_bias_to_a_millionth():
    bias = np.array([0.2, -0.7, 0.0], np.float32)
    scales = np.full(3, 1e-9 / 127)
    found = fitting_scales(scales, np.zeros((3, 4), np.float32), bias, step=0.02)
    restored = np.rint(bias / (0.02 * found)) * 0.02 * found
    np.testing.assert_allclose(restored, bias, atol=1e-6)
    assert (fitting_scales(scales, np.zeros((3, 4), np.float32), np.zeros(3, np.float32), 0.02) == 1).all()


@pytest.mark.parametrize(("largest", "fits"), [(0.0, True), (1e-6, False), (0.1, True), (1e5, False)])
def test_kernels_that_16_bit_floats_cannot_hold_are_told(largest, fits):
    assert fits_half(np.array([0, largest, -largest / 2], np.float32)) is fits


@pytest.mark.parametrize(("largest", "fits"), [(0.0, True), (1e-40, True), (1e-6, False), (0.1, True), (1e6, False)])
def test_kernels_that_16_bit_scales_cannot_hold_are_told(largest, fits):
    assert fits_blocks(np.array([0, largest, -largest / 2], np.float32)) is fits
