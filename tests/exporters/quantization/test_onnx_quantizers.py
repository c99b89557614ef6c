"""ONNX files in fewer bits, compared with the fp32 file in ONNX Runtime and with what their tensors have to be."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.exporters.quantization.onnx_files import OPTIONS, Case, arrays, fp32_case, made, noise_db, operators, run
from tests.exporters.variants import exported, pixels, trained
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import from_essentials
from vit_deploy.core.reference import forward
from vit_deploy.core.weights import layer_names
from vit_deploy.errors import EngineError, ExportError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx import layers
from vit_deploy.exporters.onnx.export import OnnxExporter
from vit_deploy.exporters.onnx.recipes import ONNX_RECIPES
from vit_deploy.verification.tolerances import DEFAULTS

LEAST_DB = {precision: DEFAULTS[precision].snr_db for precision in ONNX_RECIPES}


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    return {name: fp32_case(name, tmp_path_factory.mktemp("fp32")) for name in OPTIONS}


@pytest.mark.parametrize("precision", ONNX_RECIPES)
@pytest.mark.parametrize("options", OPTIONS)
def test_every_precision_is_near_the_definition(options, precision, cases, tmp_path):
    case = cases[options]
    target, _ = made(case, ONNX_RECIPES[precision], tmp_path)
    (outputs,) = run(target.model_path, case.source, case.images)
    assert outputs.dtype == np.float32
    assert noise_db(outputs, case.expected) > LEAST_DB[precision]


@pytest.mark.parametrize("precision", ONNX_RECIPES)
def test_the_essentials_are_in_the_file_and_input_and_output_stay_as_they_were(precision, cases, tmp_path):
    case = cases["plain"]
    target, model = made(case, ONNX_RECIPES[precision], tmp_path)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    assert kept == target.essentials()
    assert json.loads(kept["vit_deploy.precision"]) == precision
    assert from_essentials(target.model_path, kept).weights_digest == case.source.weights_digest
    before = onnx.load(str(case.source.model_path)).graph
    assert list(model.graph.input) == list(before.input)
    assert list(model.graph.output) == list(before.output)


@pytest.mark.parametrize("precision", ONNX_RECIPES)
@pytest.mark.parametrize("layer", ["patch_embed", "block_1.attention.key", "head"])
def test_a_layer_can_stay_in_float32(layer, precision, cases, tmp_path):
    case = cases["plain"]
    recipe = dataclasses.replace(ONNX_RECIPES[precision], keep_float=(layer,), equalized=False, smoothing=None)
    target, model = made(case, recipe, tmp_path)
    kept = arrays(onnx.load(str(case.source.model_path)))[f"{layer}.kernel"]
    found = arrays(model)[f"{layer}.kernel"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, kept)
    (outputs,) = run(target.model_path, case.source, case.images)
    assert noise_db(outputs, case.expected) > LEAST_DB[precision]


def test_all_layers_can_stay_in_float32(cases, tmp_path):
    case = cases["plain"]
    for precision in ("int8", "int8-static", "int4"):
        recipe = dataclasses.replace(ONNX_RECIPES[precision], keep_float=layer_names(case.source.config))
        target, _ = made(case, recipe, tmp_path / precision)
        (outputs,) = run(target.model_path, case.source, case.images)
        assert noise_db(outputs, case.expected) > 100


def test_fp16_computes_norms_softmax_gelu_and_residual_sums_in_float32(cases, tmp_path):
    _, model = made(cases["plain"], ONNX_RECIPES["fp16"], tmp_path)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    types = {each.name: each.type.tensor_type.elem_type for each in (*inferred.value_info, *inferred.output)}
    careful = [node for node in model.graph.node if node.op_type in ("LayerNormalization", "Softmax", "Gelu")]
    careful += [node for node in model.graph.node if node.op_type == "Add" and node.name.startswith("block_")]
    assert len(careful) == 5 + 2 + 2 + 4
    assert {types[node.output[0]] for node in careful} == {onnx.TensorProto.FLOAT}
    products = [node for node in model.graph.node if node.op_type in ("Gemm", "MatMul", "Conv")]
    outputs = {types[node.output[0]] for node in products}
    assert outputs == {onnx.TensorProto.FLOAT16}


def test_fp16_does_not_overflow_where_activations_have_outliers(tmp_path):
    checkpoint = trained()
    weights = {name: values.copy() for name, values in checkpoint.weights.items()}
    weights["pos_embed.table"][:, 2] += 2e5  # more than 16 bits can hold, in the residual stream
    checkpoint = dataclasses.replace(checkpoint, weights=weights)
    (tmp_path / "fp32").mkdir()
    source = exported(OnnxExporter(), checkpoint, tmp_path / "fp32", ExportOptions())
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 4))
    case = Case(source, images, forward(checkpoint, images))
    target, _ = made(case, ONNX_RECIPES["fp16"], tmp_path / "fp16")
    (outputs,) = run(target.model_path, source, images)
    assert noise_db(outputs, case.expected) > LEAST_DB["fp16"]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_large_weights_lie_beside_the_model(precision, cases, tmp_path):
    case = cases["plain"]
    inside, _ = made(case, ONNX_RECIPES[precision], tmp_path / "inside")
    beside, _ = made(case, ONNX_RECIPES[precision], tmp_path / "beside", external_limit=1)
    assert not (inside.directory / "model.onnx.data").exists()
    assert (beside.directory / "model.onnx.data").stat().st_size > 1000
    found = [run(each.model_path, case.source, case.images)[0] for each in (inside, beside)]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("options", OPTIONS)
def test_the_forms_that_are_quantized_compute_what_the_file_computes(options, cases, tmp_path):
    case = cases[options]
    (expected,) = run(case.source.model_path, case.source, case.images)
    names = layer_names(case.source.config)
    for operator in ("MatMul", "Gemm"):
        model = onnx.load(str(case.source.model_path))
        layers.patches_as_product(model.graph, case.source.config)
        assert {layer.name for layer in layers.layers_of(model.graph)} == set(names)
        if operator == "Gemm":
            layers.join_layers(model.graph, names)
        layers.bias_apart(model.graph, [layer.name for layer in layers.layers_of(model.graph)], operator)
        onnx.checker.check_model(model, full_check=True)
        path = tmp_path / f"{operator}.onnx"
        onnx.save(model, str(path))
        (outputs,) = run(path, case.source, case.images)
        assert noise_db(outputs, expected.astype(np.float64)) > 100


def test_a_graph_without_a_patch_embedding_is_refused(cases):
    model = onnx.load(str(cases["plain"].source.model_path))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    conv.op_type = "ConvTranspose"
    with pytest.raises(ExportError, match="no patch embedding that can be quantized"):
        layers.patches_as_product(model.graph, cases["plain"].source.config)


def plant(source: Artifact, folder: Path, factor: float) -> Artifact:
    """A copy of a file in which ten channels before each product of a block are `factor` times as large."""
    folder.mkdir()
    model = onnx.load(str(source.model_path))
    weights = {name: values.copy() for name, values in arrays(model).items()}
    rng = np.random.default_rng(4)
    for index in range(source.config.num_layers):
        block = f"block_{index}"
        readers = {"norm1": ("attention.query", "attention.key", "attention.value"), "norm2": ("ffn.up",)}
        for norm, names in readers.items():
            channels = rng.choice(source.config.embed_dim, 2, replace=False)
            weights[f"{block}.{norm}.scale"][channels] *= factor
            weights[f"{block}.{norm}.bias"][channels] *= factor
            for layer in names:
                weights[f"{block}.{layer}.kernel"][channels] /= factor
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    onnx.save(model, str(folder / "model.onnx"))
    return dataclasses.replace(source, directory=folder)


@pytest.mark.parametrize("precision", ONNX_RECIPES)
def test_planted_outliers_cost_nothing(precision, cases, tmp_path):
    plain = cases["plain"]
    planted = Case(plant(plain.source, tmp_path / "planted", 30), plain.images, plain.expected)
    (same,) = run(planted.source.model_path, plain.source, plain.images)
    assert noise_db(same, plain.expected) > 100
    recipe = ONNX_RECIPES[precision]
    noises = []
    for case, name in ((plain, "a"), (planted, "b")):
        target, _ = made(case, recipe, tmp_path / name)
        noises.append(noise_db(run(target.model_path, case.source, case.images)[0], case.expected))
    assert noises[1] > noises[0] - 3
    if (
        recipe.equalized or recipe.smoothing
    ) and not recipe.whole:  # whole graphs have scales of norms in their kernels
        target, _ = made(planted, dataclasses.replace(recipe, equalized=False, smoothing=None), tmp_path / "c")
        (outputs,) = run(target.model_path, plain.source, plain.images)
        assert noise_db(outputs, plain.expected) < noises[1] - 3


def test_balancing_by_the_weights_alone_copes_with_outliers_too(cases, tmp_path):
    plain = cases["plain"]
    planted = Case(plant(plain.source, tmp_path / "planted", 30), plain.images, plain.expected)
    recipe = dataclasses.replace(ONNX_RECIPES["int8-static"], equalized=True, smoothing=None)
    target, _ = made(planted, recipe, tmp_path / "balanced")
    (outputs,) = run(target.model_path, plain.source, plain.images)
    assert noise_db(outputs, plain.expected) > LEAST_DB["int8-static"]


def test_the_same_file_is_written_again(cases, tmp_path):
    for precision in ("int8", "int8-static", "int4"):
        one, other = (
            made(cases["plain"], ONNX_RECIPES[precision], tmp_path / f"{precision}-{index}")[0] for index in range(2)
        )
        assert one.model_path.read_bytes() == other.model_path.read_bytes()


def test_every_recipe_says_why():
    assert all(len(recipe.reason) > 40 for recipe in ONNX_RECIPES.values())


def test_the_tools_do_not_turn_on_everybodys_logging(cases, tmp_path):
    before = (logging.getLogger().level, list(logging.getLogger().handlers))
    made(cases["plain"], ONNX_RECIPES["int4"], tmp_path)
    assert (logging.getLogger().level, list(logging.getLogger().handlers)) == before


def test_openvino_computes_all_products_of_int8_static_in_integers_and_answers_the_same(tmp_path):
    openvino = pytest.importorskip("openvino")
    from vit_deploy.runtimes.openvino import OpenVINO

    checkpoint = trained()
    (tmp_path / "fp32").mkdir()
    source = exported(OnnxExporter(), checkpoint, tmp_path / "fp32", ExportOptions(batch=4))
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 8))
    case = Case(source, images, forward(checkpoint, images))
    target, model = made(case, ONNX_RECIPES["int8-static"], tmp_path / "static")
    (expected,) = run(target.model_path, source, images)
    with OpenVINO().open(target) as session:
        np.testing.assert_allclose(session.infer(images), expected, atol=0.01 * np.abs(expected).max())
    engine = openvino.Core().compile_model(str(target.model_path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    facts = [operator.get_rt_info() for operator in engine.get_runtime_model().get_ordered_ops()]
    found = Counter(
        fact["runtimePrecision"].astype(str) for fact in facts if fact["layerType"].astype(str) == "FullyConnected"
    )
    assert found.keys() <= {"i8", "u8"} and found.total() == operators(model)["Gemm"] > 0


def test_what_openvino_refuses_of_an_open_batch_is_to_be_made_with_a_fixed_one(cases, tmp_path):
    pytest.importorskip("openvino")
    from vit_deploy.runtimes.openvino import OpenVINO

    target, _ = made(cases["plain"], ONNX_RECIPES["int8-static"], tmp_path)  # 25 tokens of 12 channels
    with pytest.raises(EngineError, match="cannot load") as error:
        OpenVINO().open(target).__enter__()
    assert "with --batch 1" in error.value.fix
