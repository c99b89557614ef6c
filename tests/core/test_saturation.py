"""Products in which pairs of 16 bits saturate, compared with their definition and ONNX Runtime on such a CPU."""

from __future__ import annotations

import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.haswell import QEMU, on_haswell
from vit_deploy.core.saturation import saturated_product, saturates


def integers(rows: int, inputs: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows + inputs)
    activations = rng.integers(0, 256, (rows, inputs), dtype=np.uint8)
    return activations, rng.integers(-127, 128, (inputs, outputs)).astype(np.int8)


@pytest.mark.parametrize("shape", [(7, 64, 48), (1, 64, 48), (5, 67, 13), (3, 1, 2)])
def test_each_pair_of_products_is_added_in_16_bits(shape):
    activations, weights = integers(*shape)
    expected = np.zeros((shape[0], shape[2]), np.int64)
    for first in range(0, shape[1], 2):
        pair = activations[:, first : first + 2].astype(np.int64) @ weights[first : first + 2].astype(np.int64)
        expected += np.clip(pair, -(2**15), 2**15 - 1)
    np.testing.assert_array_equal(saturated_product(activations, weights), expected)


def test_weights_of_which_no_two_neighbours_pass_128_are_exact():
    activations, weights = integers(9, 33, 6)
    assert saturates(weights)
    halved = weights // 2
    assert not saturates(halved)
    exact = activations.astype(np.int64) @ halved.astype(np.int64)
    np.testing.assert_array_equal(saturated_product(activations, halved), exact)
    assert not saturates(np.array([[100], [28], [1], [127]], np.int8))
    assert saturates(np.array([[100], [29]], np.int8)) and saturates(np.array([[-100], [-29]], np.int8))


@pytest.mark.skipif(QEMU is None or sys.platform != "linux", reason="qemu-user is not installed")
@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 193, 12), (7, 64, 48), (40, 192, 96)])
def test_onnx_runtime_on_a_processor_without_vnni_gives_the_same_integers(shape, tmp_path):
    activations, weights = integers(*shape)
    node = helper.make_node("MatMulInteger", ["images", "weights"], ["sums"])
    graph = helper.make_graph(
        [node],
        "product",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, activations.shape)],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, (shape[0], shape[2]))],
        [numpy_helper.from_array(weights, "weights")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), tmp_path / "p.onnx")
    np.save(tmp_path / "given.npy", activations)
    saturated = on_haswell(tmp_path / "p.onnx", tmp_path / "given.npy", "usual")
    np.testing.assert_array_equal(saturated, saturated_product(activations, weights))
    exact = on_haswell(tmp_path / "p.onnx", tmp_path / "given.npy", "exact")
    np.testing.assert_array_equal(exact, activations.astype(np.int64) @ weights.astype(np.int64))
