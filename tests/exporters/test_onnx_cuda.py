"""ONNX files that are made for CUDA: the same function in fewer operators, which ONNX Runtime's CPU can run as well."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto

from tests.exporters.variants import VARIANTS, assert_same_function, exported, pixels, trained
from vit_deploy.core.format import Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.errors import ConfigError, EngineError
from vit_deploy.exporters import ExportOptions, proving, publish
from vit_deploy.exporters.onnx.bfloat16 import with_bfloat16
from vit_deploy.exporters.onnx.export import OnnxExporter
from vit_deploy.exporters.onnx.quantize import OnnxQuantizer
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions, pipeline
from vit_deploy.exporters.quantization.recipes import recipe_for, recipes_of
from vit_deploy.verification.locate.divergence import locate

CUDA = ExportOptions(target=Target.CUDA)


def operators(path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def run(artifact, images):
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    engine = onnxruntime.InferenceSession(str(artifact.model_path), settings, providers=["CPUExecutionProvider"])
    return engine.run(None, {"images": images})[0]


# A third is quick; each is among the quick ones in the form for CPUs.
@pytest.mark.parametrize(
    "name",
    [name if index % 3 == 0 else pytest.param(name, marks=pytest.mark.slow) for index, name in enumerate(VARIANTS)],
)
def test_every_variant_computes_the_reference_without_a_softmax_of_its_own_in_the_blocks(name, tmp_path):
    checkpoint = trained(**VARIANTS[name])
    artifact = exported(OnnxExporter(), checkpoint, tmp_path, CUDA)
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 5))
    assert_same_function(run(artifact, images), checkpoint, images)
    found = operators(artifact.model_path)
    # What is added to the scores goes into no fused attention.
    plain = checkpoint.config.relative_positions == "none"
    layers = checkpoint.config.num_layers
    assert found["Attention"] + found["MultiHeadAttention"] == (layers if plain else 0)
    assert found["Softmax"] == (checkpoint.config.pooling == "map") + (0 if plain else layers)
    assert found["Conv"] == 0


def test_a_plain_block_is_nine_operators_and_two_reshapes(tmp_path):
    counts = [
        operators(exported(OnnxExporter(), trained(num_layers=layers), _made(tmp_path / str(layers)), CUDA).model_path)
        for layers in (3, 4)
    ]
    assert counts[1] - counts[0] == {
        "Attention": 1,
        "MatMul": 3,  # out, up and down; query, key and value are in the attention
        "SkipLayerNormalization": 2,
        "BiasGelu": 1,
        "Reshape": 2,
    }


def _made(folder):
    folder.mkdir()
    return folder


def test_query_key_and_value_are_one_kernel_and_biases_that_are_not_there_are_zero(tmp_path):
    checkpoint = trained(qkv_bias=False, num_layers=2)
    model = onnx.load(str(exported(OnnxExporter(), checkpoint, tmp_path, CUDA).model_path))
    stored = {initializer.name: onnx.numpy_helper.to_array(initializer) for initializer in model.graph.initializer}
    [kernel] = [name for name in stored if name.startswith("block_0.attention.query+") and name.endswith("kernel")]
    parts = [checkpoint.weights[f"block_0.attention.{role}.kernel"] for role in ("query", "key", "value")]
    np.testing.assert_array_equal(stored[kernel], np.concatenate(parts, axis=1))
    assert not stored[kernel.replace("kernel", "bias")].any()
    assert "block_0.attention.query.kernel" not in stored
    assert stored["patch_embed.kernel"].shape == (8 * 4 * 3, 12)


@pytest.mark.parametrize("opset", [17, 21])
@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize("batch", [None, 2])
def test_layouts_opsets_and_batches_are_those_that_are_asked_for(tmp_path, opset, layout, batch):
    checkpoint = trained()
    options = dataclasses.replace(CUDA, opset=opset, layout=layout, batch=batch)
    artifact = exported(OnnxExporter(), checkpoint, tmp_path, options)
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))
    given = images.transpose(0, 3, 1, 2) if layout == "nchw" else images
    assert_same_function(run(artifact, np.ascontiguousarray(given)), checkpoint, images)


def test_pixels_go_in_when_preprocessing_is_inside(tmp_path):
    checkpoint = trained()
    taken = pixels(checkpoint, 3)
    artifact = exported(OnnxExporter(), checkpoint, tmp_path, dataclasses.replace(CUDA, include_preprocessing=True))
    assert_same_function(run(artifact, taken), checkpoint, checkpoint.preprocess.normalize(taken))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model, and its fp32 artifact for CUDA."""
    checkpoint = trained(num_layers=3)
    directory = tmp_path_factory.mktemp("cuda")
    [job] = plan(["onnx"], ["fp32"], target="cuda")[0]
    [result] = publish.export(checkpoint, directory, [job])
    assert result.published, result.parity.failures
    return checkpoint, result.artifact


def test_the_manifest_says_what_the_file_is_made_for(made):
    _, artifact = made
    assert json.loads((artifact.directory / "artifact.json").read_text())["options"]["for"] == "cuda"
    [plain] = plan(["onnx"], ["fp32"])[0]
    assert plain.options.target is Target.CPU


def test_fp16_of_it_has_16_bits_everywhere_but_at_its_ends(made, tmp_path):
    _, artifact = made
    [result] = pipeline.quantize(artifact, tmp_path, ["fp16"], QuantizeOptions(measure_speed=False)).results
    assert result.published and result.artifact.options["for"] == "cuda"
    model = onnx.load(str(result.artifact.model_path))
    assert Counter(node.op_type for node in model.graph.node)["Cast"] == 2
    assert {initializer.data_type for initializer in model.graph.initializer} == {
        TensorProto.FLOAT16,
        TensorProto.INT64,
    }


def test_a_layer_that_stays_in_float_keeps_the_attention_that_it_is_in(made, tmp_path):
    _, artifact = made
    options = QuantizeOptions(measure_speed=False, keep_float=("block_1.attention.key", "block_2.ffn.down"))
    [result] = pipeline.quantize(artifact, tmp_path, ["fp16"], options).results
    model = onnx.load(str(result.artifact.model_path))
    kept = {initializer.name for initializer in model.graph.initializer if initializer.data_type == TensorProto.FLOAT}
    assert {name.split("+")[0] for name in kept if name.endswith("kernel")} == {
        next(name for name in kept if name.startswith("block_1.attention.")).split("+")[0],
        "block_2.ffn.down.kernel",
    }
    assert result.published


def test_no_other_precision_is_made_of_it(made, tmp_path):
    _, artifact = made
    with pytest.raises(ConfigError, match="onnx for cuda cannot be quantized to 'int8'"):
        pipeline.quantize(artifact, tmp_path, ["int8"], QuantizeOptions(measure_speed=False))
    with pytest.raises(ConfigError, match=r"onnx for cuda has none of the precisions int8-static, int4"):
        plan(["onnx"], ["int8-static", "int4"], target="cuda")
    with pytest.raises(ConfigError, match="bf16 has the range of float32"):
        pipeline.quantize(artifact, tmp_path, ["bf16"], QuantizeOptions(keep_float=("head",)))


def test_a_precision_that_only_gpus_have_needs_one_before_any_work(monkeypatch):
    monkeypatch.setattr(
        "vit_deploy.exporters.plan.cuda_failure", lambda: EngineError("no CUDA-capable device is detected", fix="-")
    )
    with pytest.raises(EngineError, match=r"bf16 can be proven on an NVIDIA GPU alone.*no CUDA-capable device"):
        plan(["onnx"], ["bf16"], target="cuda")
    with pytest.raises(ConfigError, match="bf16 is for ONNX files for cuda"):
        plan(["onnx"], ["bf16"])
    with pytest.raises(ConfigError, match="not made for 'gpu' here"):
        plan(["onnx"], ["fp32"], target="gpu")
    with pytest.raises(ConfigError, match="--for shape ONNX files"):
        plan(["tflite"], ["fp32"], target="cuda")


def test_it_is_proven_on_a_gpu_where_there_is_one_and_on_the_cpu_where_there_is_none(made, monkeypatch):
    _, artifact = made
    monkeypatch.setattr(proving, "cuda_failure", lambda: None)
    assert proving.proving_provider(artifact) == "cuda"
    monkeypatch.setattr(proving, "cuda_failure", lambda: EngineError("none", fix="-"))
    assert proving.proving_provider(artifact) == "cpu"
    assert proving.proving_provider(dataclasses.replace(artifact, precision="bf16")) == "cuda"
    assert proving.proving_provider(dataclasses.replace(artifact, options={})) is None


def test_bf16_has_no_float32_but_at_its_ends(made, tmp_path):
    _, artifact = made
    target = dataclasses.replace(artifact, directory=tmp_path, precision="bf16")
    OnnxQuantizer().write(artifact, target, recipe_for("onnx", "bf16", "cuda"), None)
    model = onnx.load(str(target.model_path))
    assert {initializer.data_type for initializer in model.graph.initializer} == {
        TensorProto.BFLOAT16,
        TensorProto.INT64,
    }
    ends = [node for node in model.graph.node if node.op_type == "Cast"]
    assert [(node.input[0], node.output[0]) for node in ends] == [
        ("images", "images.bfloat16"),
        ("logits.bfloat16", "logits"),
    ]
    assert [each.type.tensor_type.elem_type for each in (*model.graph.input, *model.graph.output)] == [1, 1]


def test_bf16_rounds_weights_and_changes_nothing_else(made, tmp_path):
    _, artifact = made
    model = onnx.load(str(artifact.model_path))
    exact = {initializer.name: onnx.numpy_helper.to_array(initializer) for initializer in model.graph.initializer}
    for initializer in with_bfloat16(model).graph.initializer:
        stored = onnx.numpy_helper.to_array(initializer).astype(np.float32)
        np.testing.assert_allclose(stored, exact[initializer.name], rtol=2**-8, atol=0)


def test_its_inside_cannot_be_looked_into_and_the_fix_says_where_it_can(made):
    _, artifact = made
    with pytest.raises(EngineError, match=r"attention of .* is one operator") as caught:
        locate(artifact)
    assert "without --for cuda" in caught.value.fix


def test_the_table_of_precisions_and_that_of_recipes_say_the_same():
    for target, precisions in FORMATS["onnx"].precisions.items():
        recipes = recipes_of("onnx", target)
        assert {"fp32", *recipes} == set(precisions)
        assert all(len(recipe.reason) > 40 for recipe in recipes.values())


def test_fp16_for_tensorrt_has_a_softmax_of_the_type_of_the_products_around_it(tmp_path):
    checkpoint = trained()
    source = exported(OnnxExporter(), checkpoint, tmp_path, ExportOptions(target=Target.TENSORRT))
    target = dataclasses.replace(source, directory=_made(tmp_path / "half"), precision="fp16")
    OnnxQuantizer().write(source, target, recipe_for("onnx", "fp16", "tensorrt"), None)
    nodes = onnx.load(str(target.model_path)).graph.node
    makers = {output: node for node in nodes for output in node.output}
    readers = {name: node for node in nodes for name in node.input}
    for softmax in (node for node in nodes if node.op_type == "Softmax"):
        assert makers[softmax.input[0]].op_type == "MatMul"
        assert readers[softmax.output[0]].op_type == "MatMul"
