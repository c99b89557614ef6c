"""Integer files in TensorFlow Lite Micro: GELU as a table, and what its interpreter runs and refuses."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest

import vit_deploy
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import ConfigError, DataError, EngineError, ExportError
from vit_deploy.exporters.npu.micro import Micro
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.pipeline import quantize
from vit_deploy.formats.tflite.file import opened
from vit_deploy.formats.tflite.operators import read_steps
from vit_deploy.runtimes import open_session

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

from ai_edge_litert.interpreter import Interpreter  # noqa: E402

from vit_deploy.exporters.tflite.gelu_tables import gelu_table, write_with_tables  # noqa: E402

GIVEN = {"small": (0.004, 3), "usual": (0.031, -17), "wide": (0.4, 100)}
GIVES = {"small": (0.0021, -87), "usual": (0.0163, -118), "wide": (0.07, -125)}


@pytest.fixture(scope="module")
def made(bundles, tmp_path_factory):
    source = read_artifact(bundles["tflite"])
    [result] = quantize(
        source, tmp_path_factory.mktemp("made"), ["int8-full"], QuantizeOptions(measure_speed=False)
    ).results
    return {"fp32": source, "int8-full": result.artifact}


def one_gelu(given, gives, *, approximate):
    """A file of nothing but a GELU over 256 values."""
    model = schema.ModelT()
    model.version, model.buffers = 3, [schema.BufferT()]
    code = schema.OperatorCodeT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = schema.BuiltinOperator.GELU, 127, 2
    graph = schema.SubGraphT()
    graph.tensors = []
    for name, (scale, zero_point) in ((b"given", given), (b"gives", gives)):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, [256], schema.TensorType.INT8, 0
        tensor.quantization = schema.QuantizationParametersT()
        tensor.quantization.scale, tensor.quantization.zeroPoint = [scale], [zero_point]
        graph.tensors.append(tensor)
    step = schema.OperatorT()
    step.opcodeIndex, step.inputs, step.outputs = 0, [0], [1]
    step.builtinOptionsType, step.builtinOptions = schema.BuiltinOptions.GeluOptions, schema.GeluOptionsT()
    step.builtinOptions.approximate = approximate
    graph.operators, graph.inputs, graph.outputs = [step], [0], [1]
    model.operatorCodes, model.subgraphs = [code], [graph]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.mark.parametrize("approximate", [False, True])
@pytest.mark.parametrize("size", GIVEN)
def test_the_table_is_what_litert_computes_for_every_value(size, approximate):
    engine = Interpreter(model_content=one_gelu(GIVEN[size], GIVES[size], approximate=approximate))
    engine.allocate_tensors()
    engine.set_tensor(0, np.arange(-128, 128).astype(np.int8))
    engine.invoke()
    assert np.array_equal(gelu_table(GIVEN[size], GIVES[size], approximate=approximate), engine.get_tensor(1))


def test_a_table_takes_the_place_of_each_gelu_and_of_nothing_else(made, tmp_path):
    source = made["int8-full"].model_path

    def kinds(path):
        with opened(path) as model:
            return [step.kind for step in read_steps(model)]

    count = write_with_tables(source, tmp_path / "made.tflite")
    before, after = kinds(source), kinds(tmp_path / "made.tflite")
    assert before.count("GELU") == 2 and count == len(after) == len(before) + 2
    assert [kind for kind in after if kind != "GATHER"] == [
        {"GELU": "QUANTIZE"}.get(kind, kind) for kind in before
    ]  # one more QUANTIZE for each


def test_a_gelu_of_floats_has_no_table(made, tmp_path):
    with pytest.raises(ExportError, match="other numbers than int8"):
        write_with_tables(made["fp32"].model_path, tmp_path / "made.tflite")


def test_only_integers_are_for_microcontrollers(made):
    with pytest.raises(ConfigError, match="is fp32; for microcontrollers a file is int8-full"):
        Micro().check(made["fp32"], "tflm")


@pytest.fixture
def has_micro():
    pytest.importorskip("tflite_micro", reason="needs tflite-micro")


def test_the_default_vit_is_proven_in_the_interpreter_of_microcontrollers(has_micro, made, images, tmp_path):
    [one] = vit_deploy.compile(made["int8-full"], tmp_path, targets="tflm")
    figures = one.compiled.estimates
    assert 10_000 < figures["arena_bytes"] < 1_000_000
    assert figures["flash_bytes"] == one.bytes == one.path.stat().st_size
    assert one.compiled.proof.endswith("over 8 images") and one.compiled.on_npu == 0
    assert read_artifact(one.artifact.directory).options["compiled"] == one.compiled.to_dict()

    proof = vit_deploy.verify(one.artifact, runtime="tflm")
    assert proof.ok and proof.result.runtime == "tflm"
    with open_session(one.artifact, "tflm") as micro, open_session(one.artifact, "litert") as litert:
        found, expected = micro.infer(images), litert.infer(images)
        assert micro.placement == {"tflm": one.compiled.operators}
        with pytest.raises(DataError, match="expected normalised float32 images"):
            micro.infer(images[:, :8])
    noise = np.sqrt(np.mean((found - expected) ** 2)) / np.sqrt(np.mean(expected**2))
    assert found.shape == expected.shape and noise < 0.1  # a few steps of 8 bits: their kernels round otherwise


def test_what_it_does_not_have_is_an_error_with_the_fix(has_micro, made):
    with pytest.raises(EngineError, match="has no operator GELU") as caught:
        vit_deploy.verify(made["int8-full"], runtime="tflm")
    assert "compile ARTIFACT --for tflm" in caught.value.fix
    with pytest.raises(ConfigError, match="tflm runs int8-full alone") as refused:
        vit_deploy.verify(made["fp32"], runtime="tflm")
    assert "int8-full" in refused.value.fix


def test_a_file_that_is_none_is_an_error_that_names_it(has_micro, made, tmp_path):
    import dataclasses

    (tmp_path / "model.tflite").write_bytes(b"TFL3TFL3 nothing of the kind")
    foreign = dataclasses.replace(made["int8-full"], directory=tmp_path)
    with pytest.raises(vit_deploy.VitDeployError, match=r"model\.tflite"), open_session(foreign, "tflm"):
        pass
