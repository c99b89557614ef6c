"""Kernels and activations of ONNX files in integers: the nearest at one scale a channel, that no sum saturates."""

from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
import onnx
import pytest

from tests.exporters.quantization.onnx_files import Case, arrays, fp32_case, made, operators, run
from vit_deploy.core.saturation import LARGEST_SUM, saturates, sums_of_pairs
from vit_deploy.core.weights import layer_names
from vit_deploy.exporters.onnx.int8_pairs import fitting
from vit_deploy.exporters.onnx.recipes import ONNX_RECIPES
from vit_deploy.exporters.quantization.recipes import Clipping


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {"plain": fp32_case("plain", tmp_path_factory.mktemp("fp32"))}


@pytest.mark.parametrize("precision", ["int8", "int8-static", "int4"])
def test_every_kernel_becomes_integers_that_of_the_patches_included(precision, cases, tmp_path):
    case = cases["plain"]
    _, model = made(case, ONNX_RECIPES[precision], tmp_path)
    floats = {name for name, values in arrays(model).items() if values.dtype == np.float32 and values.size > 100}
    assert floats == {"pos_embed.table"}
    assert operators(model)["Conv"] == 0


def test_int8_kernels_have_the_nearest_integers_at_one_scale_a_channel(cases, tmp_path):
    case = cases["plain"]
    recipe = dataclasses.replace(ONNX_RECIPES["int8"], equalized=False)
    _, model = made(case, recipe, tmp_path)
    found, weights = arrays(model), arrays(onnx.load(str(case.source.model_path)))
    for name in layer_names(case.source.config):
        kernel = weights[f"{name}.kernel"].reshape(-1, weights[f"{name}.kernel"].shape[-1]).astype(np.float64)
        stored, scale = found[f"{name}.kernel_quantized"], found[f"{name}.kernel_scale"]
        assert stored.dtype == np.int8 and not found[f"{name}.kernel_zero_point"].any()
        together = np.abs(sums_of_pairs(kernel)).max(axis=0)
        np.testing.assert_allclose(scale, np.maximum(np.abs(kernel).max(axis=0), together) / 127, rtol=1e-5)
        assert (np.abs(stored * scale.astype(np.float64) - kernel) <= scale * 0.5001).all()


@pytest.mark.parametrize("precision", ["int8", "int8-static"])
def test_no_two_neighbouring_weights_can_saturate_a_sum_of_16_bits(precision, cases, tmp_path):
    _, model = made(cases["plain"], ONNX_RECIPES[precision], tmp_path)
    kernels = {name: value for name, value in arrays(model).items() if name.endswith(".kernel_quantized")}
    assert kernels and not [name for name, kernel in kernels.items() if saturates(kernel)]
    assert max(np.abs(sums_of_pairs(kernel)).max() for kernel in kernels.values()) >= LARGEST_SUM - 1  # and all is used


def test_channels_of_zeros_of_tiny_values_and_of_one_huge_value_have_scales_that_are_numbers():
    kernel = np.zeros((5, 4), np.float32)
    kernel[1, 1], kernel[2, 2], kernel[:, 3] = 1e-44, 3e38, 1.0
    stored, scales = fitting(kernel)
    assert np.isfinite(scales).all() and (scales >= np.finfo(np.float32).tiny).all()
    assert (np.abs(stored * scales.astype(np.float64) - kernel) <= scales * 0.5001)[:, [0, 2, 3]].all()
    assert not stored[:, :2].any() and scales[0] == scales[1] == 1


def test_int8_is_of_standard_operators_that_quantize_as_they_run(cases, tmp_path):
    _, model = made(cases["plain"], ONNX_RECIPES["int8"], tmp_path)
    counts = operators(model)
    count = len(layer_names(cases["plain"].source.config))
    assert counts["MatMulInteger"] == count
    assert 0 < counts["DynamicQuantizeLinear"] < count  # query, key and value share one
    assert {node.domain for node in model.graph.node} == {""}


def test_int8_static_is_what_tensorrt_reads(cases, tmp_path):
    _, model = made(cases["plain"], ONNX_RECIPES["int8-static"], tmp_path)
    found = arrays(model)
    quantizers = [node for node in model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zeros = [found[node.input[2]] for node in quantizers]
    assert zeros and all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    assert not [name for name, values in found.items() if values.dtype == np.int32]
    assert {node.domain for node in model.graph.node} == {""}
    assert all((found[node.input[1]] > 0).all() for node in quantizers)


def test_int8_static_quantizes_the_inputs_of_products_and_nothing_else(cases, tmp_path):
    _, model = made(cases["plain"], ONNX_RECIPES["int8-static"], tmp_path)
    restored = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    readers = Counter(node.op_type for node in model.graph.node if restored & set(node.input))
    assert set(readers) == {"Gemm"}
    fine = [node for node in model.graph.node if node.op_type in ("LayerNormalization", "Softmax", "Gelu", "MatMul")]
    assert fine and not any(restored & set(node.input) for node in fine)


def test_no_quantizer_of_int8_static_has_two_readers(cases, tmp_path):
    # ONNX Runtime would multiply its signed integers without the instructions that are made for it.
    _, model = made(cases["plain"], ONNX_RECIPES["int8-static"], tmp_path)
    readers = Counter(name for node in model.graph.node for name in node.input)
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            assert readers[node.output[0]] == 1
        if node.op_type == "DequantizeLinear":
            assert readers[node.output[0]] == 1


def test_int8_static_ranges_hold_what_the_float_file_computes(cases, tmp_path):
    case = cases["plain"]
    recipe = dataclasses.replace(ONNX_RECIPES["int8-static"], clipping=Clipping.MIN_MAX, smoothing=None)
    _, model = made(case, recipe, tmp_path)
    seen = "block_0.ffn.Gelu"
    fp32 = onnx.load(str(case.source.model_path))
    fp32.graph.output.append(onnx.helper.make_tensor_value_info(seen, onnx.TensorProto.FLOAT, None))
    onnx.save(fp32, str(tmp_path / "seen.onnx"))
    (values,) = run(tmp_path / "seen.onnx", case.source, case.images, [seen])
    scale = next(node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear" and seen in node.input)
    assert float(arrays(model)[scale]) == pytest.approx(np.abs(values).max() / 127.5, rel=0.01)


def test_int4_stores_two_weights_of_the_feed_forward_halves_a_byte(cases, tmp_path):
    _, model = made(cases["plain"], ONNX_RECIPES["int4"], tmp_path)
    kernels = [node for node in model.graph.node if node.op_type == "MatMulNBits"]
    assert len(kernels) == len(layer_names(cases["plain"].source.config))
    for node in kernels:
        facts = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
        bits = 4 if ".ffn." in node.input[1] else 8
        assert (facts["bits"], facts["block_size"]) == (bits, 32)
        blocks = -(-facts["K"] // 32)
        assert arrays(model)[node.input[1]].shape == (facts["N"], blocks, 32 * bits // 8)
