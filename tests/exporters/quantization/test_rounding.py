"""Kernels of 4 bits whose rounding errors make up for each other."""

from __future__ import annotations

import dataclasses
import re
import weakref

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from vit_deploy.core.reference import forward
from vit_deploy.errors import ExportError
from vit_deploy.exporters.onnx.int4_blocks import FOUR_BITS, _tools
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export
from vit_deploy.exporters.quantization import QUANTIZERS, squares
from vit_deploy.exporters.quantization.calibration import read_calibration
from vit_deploy.exporters.quantization.outputs import answers
from vit_deploy.exporters.quantization.recipes import recipe_for
from vit_deploy.exporters.quantization.rounding import Levels, rounded_in_blocks
from vit_deploy.exporters.tflite import layer_weights
from vit_deploy.exporters.tflite.layers import find_layers
from vit_deploy.formats.tflite.file import opened

SIZE = 32
SYMMETRIC = Levels(-7, 7, half=True)


@pytest.fixture(scope="module")
def drawn():
    """A kernel of 3 blocks and a bit, and inputs that go together; a row of a block is zero, and a whole block."""
    rng = np.random.default_rng(5)
    kernel = rng.standard_normal((3 * SIZE + 7, 5)).astype(np.float32)
    kernel[3], kernel[SIZE : 2 * SIZE, 2] = 0, 0
    mixed = rng.standard_normal((900, 20)) @ rng.standard_normal((20, len(kernel)))
    inputs = (mixed + 0.1 * rng.standard_normal(mixed.shape)).astype(np.float32)
    return kernel, inputs


@pytest.mark.parametrize("levels", [SYMMETRIC, FOUR_BITS])
def test_errors_that_make_up_for_each_other_are_smaller_where_inputs_go_together(drawn, levels):
    kernel, inputs = drawn
    alone = rounded_in_blocks(kernel, None, levels, SIZE)
    together = rounded_in_blocks(kernel, inputs.T @ inputs, levels, SIZE)
    errors = [np.square(inputs @ (kernel - way)).mean() for way in (alone, together)]
    assert errors[1] < errors[0] / 3
    # Of inputs that do not go together there is nothing to gain.
    assert np.array_equal(rounded_in_blocks(kernel, np.eye(len(kernel), dtype=np.float32), levels, SIZE), alone)


@pytest.mark.parametrize("levels", [SYMMETRIC, FOUR_BITS])
def test_each_weight_by_itself_is_rounded_to_the_nearest_level(drawn, levels):
    kernel, _ = drawn
    for start in range(0, len(kernel), SIZE):
        block, result = (each[start : start + SIZE] for each in (kernel, rounded_in_blocks(kernel, None, levels, SIZE)))
        scale = np.abs(block).max(axis=0) / -levels.lowest
        # The level that there is none of, on the other side of the lowest, costs a whole step.
        assert (np.abs(result - block) <= scale * (0.51 if levels.half else 1.01)).all()
        assert np.median(np.abs(result - block)) < 0.3 * np.median(scale)


@pytest.mark.parametrize("levels", [SYMMETRIC, FOUR_BITS])
def test_a_block_has_the_levels_of_one_scale_and_its_largest_weight_is_the_lowest_of_them(drawn, levels):
    kernel, inputs = drawn
    result = rounded_in_blocks(kernel, inputs.T @ inputs, levels, SIZE)
    for start in range(0, len(kernel), SIZE):
        block = result[start : start + SIZE].astype(np.float64)
        for column in range(block.shape[1]):
            values = block[:, column]
            if not values.any():
                continue
            scale = values[np.abs(values).argmax()] / levels.lowest
            whole = values / scale
            assert np.abs(whole - np.rint(whole)).max() < 1e-5
            assert whole.min() >= levels.lowest - 1e-5 and whole.max() <= -levels.lowest + 1e-5
            if levels.half:
                assert np.float16(scale) == scale


def test_what_is_zero_stays_zero(drawn):
    kernel, inputs = drawn
    alone = np.zeros_like(kernel)
    assert not rounded_in_blocks(alone, inputs.T @ inputs, SYMMETRIC, SIZE).any()
    # So do the weights that scales of 16 bits are too coarse for.
    assert not rounded_in_blocks(kernel * 1e-12, None, SYMMETRIC, SIZE).any()
    assert rounded_in_blocks(kernel * 1e-12, None, FOUR_BITS, SIZE).any()
    assert not rounded_in_blocks(kernel, None, FOUR_BITS, SIZE)[SIZE : 2 * SIZE, 2].any()


def test_onnx_runtimes_quantizer_finds_the_integers_again(drawn):
    kernel, inputs = drawn
    wanted = rounded_in_blocks(kernel, inputs.T @ inputs, FOUR_BITS, SIZE)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "kernel"], ["y"], name="layer")],
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, len(kernel)])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, kernel.shape[1]])],
        [numpy_helper.from_array(wanted, "kernel")],
    )
    tools = _tools()
    config = tools.DefaultWeightOnlyQuantConfig(block_size=SIZE, is_symmetric=True, accuracy_level=1, bits=4)
    work = tools.MatMulNBitsQuantizer(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), algo_config=config
    )
    work.process()
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in work.model.model.graph.initializer}
    (packed,) = (values for values in stored.values() if values.dtype == np.uint8)
    (scales,) = (values for values in stored.values() if values.dtype == np.float32)
    whole = np.stack([packed & 15, packed >> 4], axis=-1).reshape(kernel.shape[1], -1).astype(np.float32) - 8
    restored = whole * np.repeat(scales.reshape(kernel.shape[1], -1), SIZE, axis=1)
    np.testing.assert_allclose(restored[:, : len(kernel)].T, wanted, rtol=1e-5, atol=1e-7)


def test_litert_quantizer_stores_the_very_values_that_kernels_were_rounded_to(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint(embed_dim=32, num_heads=2, mlp_dim=64, num_layers=1)
    (result,) = export(checkpoint, tmp_path / "fp32", plan(["tflite"], ["fp32"])[0])
    source, images = result.artifact, read_calibration(None, result.artifact, count=8)
    quantizer, recipe = QUANTIZERS.load("tflite")(), recipe_for("tflite", "int4")
    with quantizer._balanced(source, recipe, images) as balanced:
        wanted = quantizer._kernels(balanced, recipe, images)
    with opened(quantized(source, "int4", images, tmp_path / "made").model_path) as model:
        tensors, buffers, layers = model.graph.tensors, model.buffers, find_layers(model, source.config)
        assert wanted.keys() == {"block_0.ffn.up.kernel", "block_0.ffn.down.kernel"}
        for name, kernel in wanted.items():
            (tensor,) = (each for each in tensors if each.buffer == layers[name.removesuffix(".kernel")].kernel)
            scales = np.frombuffer(buffers[tensors[tensor.quantization.blockwise.scales].buffer].content, np.float16)
            packed = np.frombuffer(buffers[tensor.buffer].content, np.uint8).reshape(len(scales), -1)
            whole = np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(scales), -1).astype(np.int8)
            whole[whole > 7] -= 16
            restored = (whole * scales[:, None].astype(np.float32)).reshape(kernel.T.shape)
            np.testing.assert_array_equal(restored.T, kernel)


# LiteRT rounds what layers read to 8 bits too.
@pytest.mark.parametrize(("format", "most"), [("onnx", 0.7), ("tflite", 0.9)])
def test_a_file_is_nearer_to_the_reference_with_kernels_that_are_rounded_together(
    format, most, make_checkpoint, tmp_path
):
    checkpoint = make_checkpoint(embed_dim=96, mlp_dim=128)
    (result,) = export(checkpoint, tmp_path / "fp32", plan([format], ["fp32"])[0])
    seen, others = (read_calibration(None, result.artifact, seed=seed, count=32) for seed in (0, 1))
    expected = forward(checkpoint, others.images)
    errors = []
    for compensated in (False, True):
        recipe = dataclasses.replace(recipe_for(format, "int4"), compensated=compensated)
        target = dataclasses.replace(result.artifact, directory=tmp_path / str(compensated), precision="int4")
        target.directory.mkdir()
        made = QUANTIZERS.load(format)().write(result.artifact, target, recipe, seen)
        errors.append(np.square(answers(made, others.images) - expected).mean())
    assert errors[1] < most * errors[0]


COMPENSATED = [("onnx", "int4"), ("onnx", "int16x8"), ("tflite", "int4")]


@pytest.fixture(scope="module")
def plain(make_checkpoint, tmp_path_factory):
    """Files in fp32 by their format, and calibration images."""
    made = export(make_checkpoint(), tmp_path_factory.mktemp("plain"), plan(["onnx", "tflite"], ["fp32"])[0])
    sources = {result.artifact.format: result.artifact for result in made}
    return sources, read_calibration(None, sources["onnx"], count=8)


def quantized(source, precision, images, folder):
    recipe = recipe_for(source.format, precision)
    target = dataclasses.replace(source, directory=folder, precision=precision, options={"recipe": recipe.to_dict()})
    folder.mkdir()
    return QUANTIZERS.load(source.format)().write(source, target, recipe, images)


@pytest.mark.parametrize(("format", "precision"), COMPENSATED)
def test_sums_that_do_not_fit_memory_together_are_made_one_after_the_other_and_give_the_same_file(
    format, precision, plain, tmp_path, monkeypatch
):
    sources, images = plain
    together = quantized(sources[format], precision, images, tmp_path / "together")
    alive, most = [], []

    class Counted(squares.Sum):
        def total(self):
            found = super().total()
            alive[:] = [each for each in alive if each() is not None and each() is not found] + [weakref.ref(found)]
            most.append(len(alive))
            return found

    monkeypatch.setattr(squares, "Sum", Counted)
    monkeypatch.setattr(squares, "MOST_BYTES", 1)
    apart = quantized(sources[format], precision, images, tmp_path / "apart")
    assert apart.model_path.read_bytes() == together.model_path.read_bytes()
    assert max(most) <= 2 <= len(most)  # the last is there until the next is made


def test_kernels_of_4_bits_have_no_zero_point_and_those_of_8_have_one_as_the_recipe_says(plain, tmp_path):
    sources, images = plain
    graph = onnx.load(quantized(sources["onnx"], "int4", images, tmp_path / "made").model_path).graph
    nodes = [node for node in graph.node if node.op_type == "MatMulNBits"]
    bits = [next(each.i for each in node.attribute if each.name == "bits") for node in nodes]
    assert {(bit, len(node.input)) for bit, node in zip(bits, nodes, strict=True)} == {(4, 3), (8, 4)}
    assert "a zero point where they have 8 bits" in recipe_for("onnx", "int4").reason


@pytest.mark.parametrize(("format", "precision"), COMPENSATED)
def test_squares_that_are_not_finite_are_told_by_the_layer(format, precision, plain, tmp_path, monkeypatch):
    sources, images = plain
    monkeypatch.setattr(squares.Sum, "total", lambda self: np.full((1, 1), np.inf, np.float32))
    with pytest.raises(
        ExportError, match=r"the kernel of (block_0\..*|patch_embed) is rounded by what it reads"
    ) as caught:
        quantized(sources[format], precision, images, tmp_path / "made")
    assert re.search(r"--keep-float (block_0|patch_embed)", caught.value.fix)


def test_what_fails_in_rounding_is_not_called_a_damaged_file(plain, tmp_path, monkeypatch):
    sources, images = plain

    def fail(*values):
        raise ValueError("a matrix that cannot be")

    monkeypatch.setattr("vit_deploy.exporters.tflite.block_rounding.rounded_in_blocks", fail)
    with pytest.raises(ValueError, match="a matrix that cannot be"):
        quantized(sources["tflite"], "int4", images, tmp_path / "made")


def test_weights_are_turned_when_it_is_their_turn_to_be_written(plain, tmp_path, monkeypatch):
    with opened(plain[0]["tflite"].model_path) as model:
        layers = find_layers(model, plain[0]["tflite"].config)
        layer = layers["block_0.ffn.up"]
        kernel = np.zeros((layer.inputs, 3), np.float32)
        contents = {}
        monkeypatch.setattr(layer_weights, "write_model", lambda path, model, given, *_, **__: contents.update(given))
        layer_weights.write_weights(tmp_path / "x", model, layers, {"block_0.ffn.up.kernel": kernel})
    kernel[1] = 1, 2, 3
    size, content = contents[layer.kernel]
    assert size == len(content()) == kernel.nbytes
    np.testing.assert_array_equal(np.frombuffer(content(), np.float32).reshape(3, -1)[:, 1], [1, 2, 3])
