"""Products of attention in calibrated files: integers whose right sides have zero point 0, and XNNPACK takes all."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tests.exporters.quantization.likeness import alike
from tests.exporters.tflite_files import left_out, opened
from vit_deploy.core.weights import layer_names
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.calibration import read_calibration
from vit_deploy.exporters.quantization.pipeline import export, quantize
from vit_deploy.exporters.quantization.recipes import Clipping, in_integers
from vit_deploy.exporters.quantization.requested import requested_recipes
from vit_deploy.exporters.tflite.bits import product_bits
from vit_deploy.exporters.tflite.layers import find_tensors
from vit_deploy.exporters.tflite.matmuls import find_products
from vit_deploy.exporters.tflite.recipes import INT8_FULL, INT8_STATIC, INT16X8
from vit_deploy.formats.tflite.file import opened as opened_file

QUIET = QuantizeOptions(measure_speed=False)
VARIANTS = {
    "plain": {},
    "norms of heads, post-norm": {"qk_norm": True, "normalization_position": "post"},
    "map pooling, swiglu": {"pooling": "map", "class_token": False, "ffn_type": "swiglu"},
}
MIN_COSINE = 0.9985  # with the reference in float64, of all answers together: single images of so small models vary


@pytest.fixture(
    scope="module",
    params=[name if name == "plain" else pytest.param(name, marks=pytest.mark.slow) for name in VARIANTS],
)
def made(request, make_checkpoint, tmp_path_factory):
    """A checkpoint, its fp32 file and its calibrated one."""
    checkpoint = make_checkpoint(embed_dim=24, mlp_dim=64, num_layers=1, **VARIANTS[request.param])
    jobs = plan(["tflite"], ["fp32", "int8-static"])[0]
    results = export(checkpoint, tmp_path_factory.mktemp("made"), jobs, QUIET).results
    return checkpoint, *(result.artifact for result in results)


def steps(artifact):
    """Kind of each operator and what its inputs and outputs are: type, scale, zero point, size."""
    engine = Interpreter(
        model_path=str(artifact.model_path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    found = {
        detail["index"]: (np.dtype(detail["dtype"]).name, *detail["quantization"], detail["shape"].tolist())
        for detail in engine.get_tensor_details()
    }
    return [
        (step["op_name"], *([found[index] for index in step[end] if index >= 0] for end in ("inputs", "outputs")))
        for step in engine._get_ops_details()
    ]


def products(artifact):
    return [(*inputs, *outputs) for kind, inputs, outputs in steps(artifact) if kind == "BATCH_MATMUL"]


def test_both_products_are_integers_and_their_right_sides_symmetric(made):
    _, source, artifact = made
    found = products(artifact)
    assert len(found) == len(products(source)) >= 2
    for left, right, result in found:
        assert (left[0], right[0], result[0]) == ("int8", "int8", "int8")
        assert right[2] == 0
    assert any(left[2] for left, _, _ in found)  # only right sides are symmetric


def test_softmax_norms_and_residual_sums_stay_in_float(made):
    for kind, inputs, outputs in steps(made[2]):
        if kind not in ("QUANTIZE", "DEQUANTIZE", "BATCH_MATMUL", "FULLY_CONNECTED", "CONV_2D", "RESHAPE", "TRANSPOSE"):
            assert {each[0] for each in (*inputs, *outputs)} <= {"float32", "int32"}, kind


def test_keys_and_values_are_rounded_once_between_their_layer_and_the_product(made):
    checkpoint, _, artifact = made
    moved = [(inputs[0], outputs[0]) for kind, inputs, outputs in steps(artifact) if kind == "TRANSPOSE"]
    assert moved and all(before[:3] == after[:3] and before[0] == "int8" for before, after in moved)
    rights = [right for _, right, _ in products(artifact)]
    written = [outputs[0] for kind, _, outputs in steps(artifact) if kind == "FULLY_CONNECTED"]
    normed = checkpoint.config.num_layers if checkpoint.config.qk_norm else 0  # keys that a norm computes
    assert sum(any(each[1:3] == right[1:3] for each in written) for right in rights) == len(rights) - normed


def test_xnnpack_takes_a_calibrated_file_as_a_whole(made):
    assert left_out(opened(made[2].model_path)) == []


def test_xnnpack_leaves_out_what_is_not_symmetric(made, tmp_path, monkeypatch):
    """Why the right sides are."""
    monkeypatch.setattr("vit_deploy.exporters.tflite.chosen_ranges.symmetric", lambda low, high: (low, 3 * high))
    (result,) = quantize(made[1], tmp_path, ["int8-static"], QUIET).results
    assert any(right[2] for _, right, _ in products(result.artifact))
    delegates = [
        detail for detail in opened(result.artifact.model_path)._get_ops_details() if detail["op_name"] == "DELEGATE"
    ]
    assert len(delegates) > 1


def test_the_calibrated_file_answers_what_the_reference_does(made):
    checkpoint, _, artifact = made
    assert alike(artifact, checkpoint) > MIN_COSINE


def test_products_of_layers_in_float_are_of_integers_until_they_are_named_themselves(made, tmp_path):
    checkpoint, source, _ = made
    attention = "block_0.attention"
    layers = [f"{attention}.{role}" for role in ("key", "query", "value", "out")]
    total = len(products(source))
    named = [f"{attention}.products"]
    for kept, integers in ((layers[:1], total), (layers, total), (named, total - 2), (layers + named, total - 2)):
        options = dataclasses.replace(QUIET, keep_float=tuple(kept))
        (result,) = quantize(source, tmp_path / "_".join(kept), ["int8-static"], options).results
        assert result.published
        found = products(result.artifact)
        assert sum(right[0] == "int8" and right[2] == 0 for _, right, _ in found) == integers
        assert alike(result.artifact, checkpoint) > MIN_COSINE


@pytest.mark.slow
def test_products_cost_something_of_their_own_and_every_attention_has_them(made, tmp_path):
    checkpoint, source, _ = made
    table = quantize(source, tmp_path, ["int8-static"], dataclasses.replace(QUIET, sensitivity=True)).sensitivities
    costs = {row.layer: 1 - row.cosine for row in table["tflite-int8-static"]}
    probed = "map" in str(checkpoint.config.pooling)
    found = [name for name in costs if name.endswith(".products")]
    assert len(found) == checkpoint.config.num_layers + probed
    assert all(costs[name] > 0 for name in found)
    assert set(costs) - set(found) == set(layer_names(checkpoint.config))


@pytest.mark.slow  # it quantizes a dozen files; budgets of layers are kept in quick tests of the command
def test_a_budget_that_only_float_products_meet_keeps_them_and_few_layers(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint(embed_dim=24, mlp_dim=64, num_layers=2)
    sharp = {  # of sharper ones the recipe computes the products in float by itself
        f"block_{index}.attention.{role}.kernel": 4 * checkpoint.weights[f"block_{index}.attention.{role}.kernel"]
        for index in range(2)
        for role in ("query", "key")
    }
    checkpoint = dataclasses.replace(checkpoint, weights=checkpoint.weights | sharp)
    (source,) = (
        result.artifact for result in export(checkpoint, tmp_path, plan(["tflite"], ["fp32"])[0], QUIET).results
    )
    options = dataclasses.replace(QUIET, keep_float=("block_0.attention.products", "block_1.attention.products"))
    made = quantize(source, tmp_path / "named", ["int8-static"], options, keep_failed=True)
    wanted = made.facts["tflite-int8-static"].cosine
    held = quantize(source, tmp_path / "held", ["int8-static"], dataclasses.replace(QUIET, min_cosine=wanted))
    kept = held.results[0].artifact.options["recipe"]["keep_float"]
    assert any(name.endswith(".products") for name in kept)
    assert held.facts["tflite-int8-static"].cosine >= wanted


@pytest.mark.parametrize(("asked", "softmax"), [({"attention_bits": 8}, "int16"), ({"softmax_bits": 8}, "int8")])
def test_softmax_keeps_16_bits_unless_8_are_asked_for_it_alone(made, tmp_path, asked, softmax):
    _, source, _ = made
    (result,) = quantize(source, tmp_path, ["int8-full"], dataclasses.replace(QUIET, **asked)).results
    assert {outputs[0][0] for kind, _, outputs in steps(result.artifact) if kind == "SOFTMAX"} == {softmax}
    assert all((left[0], right[0]) == ("int8", "int8") for left, right, _ in products(result.artifact))


def test_bits_asked_for_are_those_of_files_of_integers_alone_and_of_no_other_beside_them(made):
    _, source, _ = made
    options = dataclasses.replace(QUIET, attention_bits=16, residual_bits=16)
    full, static = requested_recipes(source, ["int8-full", "int8-static"], options)
    assert (full.attention_bits, full.residual_bits, full.softmax_bits) == (16, 16, 16)
    assert static == INT8_STATIC


def test_products_have_the_bits_that_are_asked_for_of_them_or_16_where_8_are_too_coarse(made):
    _, source, _ = made
    with opened_file(source.model_path) as model:
        product = find_products(model, find_tensors(model, source.config))[0]
    recipes = [in_integers(INT16X8), INT8_FULL]
    recipes += [dataclasses.replace(recipes[0], attention_bits=8), dataclasses.replace(INT8_FULL, attention_bits=16)]
    recipes += [dataclasses.replace(INT8_FULL, wide_layers=(product.name,))]
    assert [product_bits(recipe, product) for recipe in recipes] == [16, 8, 8, 16, 16]


@pytest.mark.parametrize("bits", [None, 8])
def test_integer_files_have_symmetric_right_sides_where_products_have_eight_bits(made, tmp_path, bits):
    _, source, _ = made
    options = dataclasses.replace(QUIET, attention_bits=bits)
    (result,) = quantize(source, tmp_path, ["int8-full"], options).results
    assert all((right[0], right[2]) == ("int8", 0) for _, right, _ in products(result.artifact))


def largest_shares(source, images):
    """Of each softmax, in LiteRT's own words."""
    engine = Interpreter(
        model_path=str(source.model_path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    engine.allocate_tensors()
    outputs = [step["outputs"][0] for step in engine._get_ops_details() if step["op_name"] == "SOFTMAX"]
    found = []
    for image in images:
        engine.set_tensor(engine.get_input_details()[0]["index"], image[None])
        engine.invoke()
        found.append([engine.get_tensor(index).max() for index in outputs])
    return np.max(found, axis=0)


def test_shares_that_a_softmax_of_sixteen_bits_gives_are_multiplied_in_calibrated_steps(made, tmp_path):
    _, source, _ = made
    options = dataclasses.replace(QUIET, clipping=Clipping.MIN_MAX)
    (result,) = quantize(source, tmp_path, ["int8-full"], options).results
    assert {outputs[0][0] for kind, _, outputs in steps(result.artifact) if kind == "SOFTMAX"} == {"int16"}
    shares = [left for left, _, _ in products(result.artifact)[1::2]]
    expected = largest_shares(source, read_calibration(None, source).images) / 255
    assert [share[:1] + share[2:3] for share in shares] == [("int8", -128)] * len(expected)
    np.testing.assert_allclose([share[1] for share in shares], expected, rtol=1e-3)


def test_products_can_have_sixteen_bits_where_shares_lose_none(made, tmp_path):
    checkpoint, source, _ = made
    options = dataclasses.replace(QUIET, attention_bits=16)
    (result,) = quantize(source, tmp_path, ["int8-full"], options).results
    wide = products(result.artifact)[: 2 * checkpoint.config.num_layers]  # a probe's have the bits of its constant
    assert {side[0] for product in wide for side in product} == {"int16"}


def test_every_product_is_found_with_what_is_moved_into_it_and_out_of_it(made):
    checkpoint, source, _ = made
    with opened_file(source.model_path) as model:
        found = find_products(model, find_tensors(model, checkpoint.config))
    assert [each.left is None for each in found] == [
        False,
        False,
        *[True, False] * ("map" in str(checkpoint.config.pooling)),
    ]
    for each in found:
        for side in each.sides:
            assert set(side.moves) <= set(side.tensors) and set(side.moves.values()) <= {"RESHAPE", "TRANSPOSE"}
        assert each.result.tensors[0] == each.output and len(each.right.tensors) >= 2


def test_a_learned_range_that_is_not_symmetric_is_widened_and_holds_along_the_way(make_checkpoint, tmp_path):
    checkpoint = make_checkpoint(num_layers=1)
    ranges = {
        "block_0.attention.key.output": (-3.0, 5.0),
        "block_0.attention.value.output": (-7.0, 0.5),
        "block_0.attention.out.input": (-4.0, 6.0),
        "block_0.attention.batch_matmul.1": (-40.0, 60.0),  # of the same values, measured and not learned
    }
    checkpoint = dataclasses.replace(checkpoint, ranges=ranges)
    jobs = plan(["tflite"], ["int8-static"])[0]
    made = export(checkpoint, tmp_path, jobs, QUIET, keep_failed=True).results
    (_, keys, _), (_, values, mixed) = products(made[-1].artifact)
    assert keys[1:3] == (pytest.approx(5 / 127), 0)
    assert values[1:3] == (pytest.approx(7 / 127), 0)
    assert mixed[1] == pytest.approx(10 / 255) and mixed[2] == round(-128 + 4 / (10 / 255))
