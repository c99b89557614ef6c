"""ONNX files whose every value is an integer, as the compilers of NPUs take them."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from tests.hexagon import on_hexagon
from tests.verification.locate.planting import change_weight, copied
from vit_deploy.core.format import Target
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import ConfigError
from vit_deploy.exporters.onnx.even_norms import with_even_norms
from vit_deploy.exporters.onnx.int8_pairs import scales
from vit_deploy.exporters.onnx.whole_graph import BIAS_LIMIT, scale_of
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.pipeline import export, quantize
from vit_deploy.exporters.quantization.rounding import rounded
from vit_deploy.runtimes import RUNTIMES, RuntimeOptions
from vit_deploy.verification.locate.divergence import locate
from vit_deploy.verification.verifying import verify

QUIETLY = QuantizeOptions(measure_speed=False)
INTEGERS = ("int8-static", "int16x8")


@pytest.fixture(scope="module")
def made(make_checkpoint, tmp_path_factory):
    """For Hexagon, in every precision, by its name."""
    jobs, _ = plan(["onnx"], ["fp32", "fp16", *INTEGERS], target="qnn")
    results = export(make_checkpoint(), tmp_path_factory.mktemp("whole"), jobs, QUIETLY).results
    assert all(result.published for result in results), [result.parity.failures for result in results]
    return {result.artifact.precision: result for result in results}


def graph_of(artifact):
    return onnx.load(artifact.model_path).graph


def floats_between(graph):
    """Names of operators that read or give floats which are not restored integers, or become some at once."""
    makers = {name: node for node in graph.node for name in node.output}
    readers = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    stored = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    found = []
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue
        restored = [
            name not in stored and (name not in makers or makers[name].op_type == "DequantizeLinear")
            for name in node.input
        ]
        if not all(restored) or any(set(readers.get(name, ["none"])) != {"QuantizeLinear"} for name in node.output):
            found.append(node.name)
    return found


@pytest.mark.parametrize("precision", INTEGERS)
def test_every_operator_reads_integers_and_gives_some(made, precision):
    graph = graph_of(made[precision].artifact)
    assert floats_between(graph) == []
    kinds = {tensor.data_type for tensor in graph.initializer if tensor.name.endswith(".integers")}
    types = onnx.TensorProto
    assert {types.INT8, types.INT32} <= kinds <= {types.INT8, types.INT32, types.UINT8, types.UINT16}


def test_16_bit_activations_lose_next_to_nothing_and_8_bit_ones_stay_within_their_limits(made):
    assert made["int16x8"].parity.snr_db > 35
    assert made["int16x8"].parity.snr_db > made["int8-static"].parity.snr_db > 20


@pytest.mark.parametrize("precision", INTEGERS)
def test_such_a_file_has_an_opset_whose_quantizers_have_16_bits_and_says_so(made, precision):
    artifact = made[precision].artifact
    model = onnx.load(artifact.model_path)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 21)]
    assert {node.domain for node in model.graph.node} == {""}
    assert (artifact.options["opset"], artifact.options["for"], artifact.input.batch) == (21, "qnn", 1)


@pytest.mark.parametrize("precision", INTEGERS)
def test_what_it_computes_on_the_way_is_found_and_right(made, precision):
    found = locate(made[precision].artifact)
    assert found.activation is None
    assert [activation.name for activation in found.activations if activation.error is None] == ["norm"]


def test_files_for_cpus_are_whole_too_and_take_any_batch(bundles, tmp_path):
    [result] = quantize(read_artifact(bundles["onnx"]), tmp_path, ["int16x8"], QUIETLY).results
    assert result.published and result.artifact.input.batch is None and result.parity.snr_db > 35
    counting = {"Concat", "Expand", "Shape"}  # of the images of a call
    graph = graph_of(result.artifact)
    kinds = {node.name: node.op_type for node in graph.node}
    assert {kinds[name] for name in floats_between(graph)} <= counting


def test_a_layer_and_the_products_of_an_attention_can_stay_in_float(made, tmp_path):
    kept = ("block_0.ffn.down", "block_1.attention.products")
    asked = QuantizeOptions(measure_speed=False, keep_float=kept)
    [result] = quantize(made["fp32"].artifact, tmp_path, ["int16x8"], asked).results
    graph = graph_of(result.artifact)
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT}
    assert [name for name in floats if name.endswith(".kernel")] == ["block_0.ffn.down.kernel"]
    assert result.published and result.artifact.options["recipe"]["keep_float"] == list(kept)


def test_files_for_hexagon_have_a_fixed_batch():
    with pytest.raises(ConfigError, match="files for qnn have a fixed batch, and --batch is dynamic"):
        plan(["onnx"], ["fp16"], target="qnn", batch="dynamic")
    [job], _ = plan(["onnx"], ["fp16"], target="qnn", batch=3)
    assert (job.options.batch, job.options.target) == (3, Target.QNN)


def test_an_older_opset_is_refused_before_any_work(make_checkpoint, tmp_path):
    jobs, _ = plan(["onnx"], ["int16x8"], opset=17)
    with pytest.raises(ConfigError, match=r"int16x8 has opset 21(?s:.*)opset 17(?s:.*)--opset 20"):
        export(make_checkpoint(), tmp_path, jobs, QUIETLY)


def test_images_of_any_size_are_refused(bundles, tmp_path):
    anything = dataclasses.replace(
        source := read_artifact(bundles["onnx"]), input=dataclasses.replace(source.input, shape=(None, None, None, 3))
    )
    with pytest.raises(ConfigError, match="int16x8 has every value in integers, whose ranges are those of one size"):
        quantize(anything, tmp_path, ["int16x8"], QUIETLY)


def test_rounding_errors_make_up_for_each_other_where_inputs_go_together():
    rng = np.random.default_rng(5)
    kernel = rng.standard_normal((150, 7)).astype(np.float32)
    inputs = (rng.standard_normal((900, 20)) @ rng.standard_normal((20, 150))).astype(np.float32)
    scale = scales(kernel, fitting_pairs=False)
    alone, together = rounded(kernel, scale, None), rounded(kernel, scale, inputs.T @ inputs)
    errors = [np.square(inputs @ (kernel - whole * scale)).mean() for whole in (alone, together)]
    assert errors[1] < errors[0] / 4
    assert np.abs(together).max() <= 127 and np.abs(together - kernel / scale).max() < 12
    # Of inputs that do not go together there is nothing to gain.
    assert np.array_equal(rounded(kernel, scale, np.eye(150, dtype=np.float32)), alone)


def test_a_norm_gives_its_scale_to_the_layers_behind_it():
    rng = np.random.default_rng(6)
    scale = np.array([1.5, -0.02, 3.0, 0.0], np.float32)
    arrays = {"norm.scale": scale, "norm.bias": rng.standard_normal(4).astype(np.float32)}
    arrays |= {f"{name}.kernel": rng.standard_normal((4, 3)).astype(np.float32) for name in ("one", "other")}
    nodes = [
        helper.make_node("LayerNormalization", ["x", "norm.scale", "norm.bias"], ["normed"], name="norm"),
        helper.make_node("MatMul", ["normed", "one.kernel"], ["a"], name="one"),
        helper.make_node("MatMul", ["normed", "other.kernel"], ["b"], name="other"),
    ]
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, side])
        for name, side in (("x", 4), ("a", 3), ("b", 3))
    ]
    graph = helper.make_graph(
        nodes,
        "normed",
        values[:1],
        values[1:],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    given = {"x": rng.standard_normal((2, 4)).astype(np.float32)}
    before = onnx.reference.ReferenceEvaluator(model).run(None, given)
    with_even_norms(model.graph)
    after = onnx.reference.ReferenceEvaluator(model).run(None, given)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
    [moved] = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == "norm.scale"]
    np.testing.assert_allclose(moved, [1, -0.02 / 0.03, 1, 0], rtol=1e-5)


def test_zero_is_exact_and_both_ends_are_inside():
    for ends in ((-1.0, 3.0), (0.5, 2.0), (-4.0, -1.0), (0.0, 0.0)):
        for dtype in (np.uint8, np.uint16):
            scale, zero = scale_of(ends, dtype)
            top = np.iinfo(dtype).max
            assert scale > 0
            assert (0 - float(zero)) * scale <= min(ends[0], 0) + 0.51 * scale
            assert (top - float(zero)) * scale >= max(ends[1], 0) - 0.51 * scale
    assert BIAS_LIMIT < 2**31


@on_hexagon
@pytest.mark.parametrize("chip", ["sm8350", "sm8650", "sm8850"])
@pytest.mark.parametrize("precision", ["fp16", *INTEGERS])
def test_the_whole_file_is_on_hexagon_and_answers_the_same(made, precision, chip):
    if (precision, chip) == ("fp16", "sm8350"):
        pytest.skip("it computes in integers alone")
    artifact = made[precision].artifact
    options = RuntimeOptions(provider=f"htp-{chip}")
    with RUNTIMES.load("qnn")().open(artifact, options) as session:
        assert list(session.placement) == ["htp-emulated"]
    result = verify(artifact, runtime="qnn", provider=f"htp-{chip}")
    assert result.ok, result.parity.failures
    assert precision != "int16x8" or result.parity.snr_db > 35


@on_hexagon
def test_a_fault_is_located_in_what_hexagon_computes(made, tmp_path):
    sound = made["int16x8"].artifact
    assert locate(sound, runtime="qnn", provider="htp").activation is None
    broken = change_weight(
        copied(sound.directory, tmp_path / "broken"),
        "block_1.attention.out.bias.integers",
        lambda values: values + 2_000_000,
    )
    assert locate(broken, runtime="qnn", provider="htp").activation == "block_1.attention"
