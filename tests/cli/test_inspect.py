"""What inspect says is what other readers find in the same file; what is broken is one clear error."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as schema
from onnx import TensorProto, helper

from tests.cli.inspecting import LABELS, assert_says, labelled, record
from vit_deploy.cli import run
from vit_deploy.core.artifact import Artifact, describe
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.manifest import write_manifest
from vit_deploy.core.registry import Plugin
from vit_deploy.errors import ArtifactError, CheckpointError
from vit_deploy.exporters import EXPORTERS, ExportOptions
from vit_deploy.exporters.onnx.export import OnnxExporter
from vit_deploy.formats.inspect import inspect
from vit_deploy.formats.tflite.names import DTYPES, OPERATORS
from vit_deploy.runtimes import RUNTIMES

FORMATS = tuple(EXPORTERS)  # plans are compiled of files in one of these


@pytest.fixture(scope="module")
def model() -> Checkpoint:
    return labelled()


def bundle(format: str, model: Checkpoint, folder: Path) -> Artifact:
    folder.mkdir()
    options = ExportOptions(batch=1 if format == "tflite" else None)
    spec = options.input_spec(model.config)
    artifact = describe(model, folder, format=format, precision="fp32", input=spec, producer={"maker": "1.2"})
    EXPORTERS.load(format)().write(model, artifact, options)
    return write_manifest(artifact)


@pytest.fixture(scope="module")
def bundles(model, tmp_path_factory) -> dict[str, Artifact]:
    root = tmp_path_factory.mktemp("bundles")
    return {format: bundle(format, model, root / format) for format in FORMATS}


def test_what_a_file_is_made_for_is_told(bundles, tmp_path, capfd):
    usual = bundles["onnx"]
    assert record(usual.directory, capfd)["made_for"] is None
    shutil.copytree(usual.directory, tmp_path / "made")
    write_manifest(dataclasses.replace(usual, directory=tmp_path / "made", options={**usual.options, "for": "cuda"}))
    assert record(tmp_path / "made", capfd)["made_for"] == "cuda"
    assert run(["inspect", str(tmp_path / "made")]) == 0
    assert "made for cuda" in " ".join(capfd.readouterr().out.split())


@pytest.mark.parametrize("record", ["x", {"target": "tflm"}, ["a"]], ids=str)
def test_a_damaged_record_of_a_compiler_is_one_error(record, bundles, tmp_path, capfd):
    shutil.copytree(bundles["tflite"].directory, tmp_path / "made")
    manifest = json.loads((tmp_path / "made" / "artifact.json").read_text())
    manifest["options"]["compiled"] = record
    (tmp_path / "made" / "artifact.json").write_text(json.dumps(manifest))
    for words in ([], ["--json"]):
        assert run(["inspect", str(tmp_path / "made"), *words]) == 2
        assert "artifact.json is damaged: compiled is" in "".join(capfd.readouterr())


@pytest.mark.parametrize("format", FORMATS)
def test_a_bundle_and_its_bare_model_file_say_the_same(format, bundles, model, tmp_path, capfd):
    artifact = bundles[format]
    whole = record(artifact.directory, capfd)
    copy = shutil.copytree if artifact.model_path.is_dir() else shutil.copy
    bare = record(Path(copy(artifact.model_path, tmp_path / f"renamed{artifact.model_path.suffix}")), capfd)
    assert_says(whole, model)
    assert (whole.pop("kind"), bare.pop("kind")) == ("bundle", "model file")
    assert whole.pop("path") != bare.pop("path")
    assert whole == bare
    assert whole["bytes"] == artifact.model_bytes
    assert whole["producer"] == {"maker": "1.2"}
    assert whole["input"] == artifact.input.to_dict()
    batch = {"onnx": "batch", "tflite": 1, "savedmodel": None}[format]
    assert whole["inputs"] == [{"name": "images", "dtype": "float32", "shape": [batch, 24, 32, 3]}]
    assert whole["outputs"] == [{"name": "logits", "dtype": "float32", "shape": [batch, 5]}]
    assert json.loads(whole["metadata"]["vit_deploy.labels"]) == list(LABELS)


def test_onnx_operators_are_those_that_the_onnx_package_finds(bundles, capfd):
    found = record(bundles["onnx"].directory, capfd)
    read = onnx.load(bundles["onnx"].model_path)
    assert found["operators"] == Counter(node.op_type for node in read.graph.node)
    assert found["operators"]["Gelu"] == 2
    assert found["facts"]["opset"] == read.opset_import[0].version
    assert found["metadata"] == {entry.key: entry.value for entry in read.metadata_props}


def test_tflite_operators_are_those_of_the_public_schema(bundles, capfd):
    found = record(bundles["tflite"].model_path, capfd)
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    read = schema.ModelT.InitFromPackedBuf(bundles["tflite"].model_path.read_bytes(), 0)
    used = [read.operatorCodes[operator.opcodeIndex].builtinCode for operator in read.subgraphs[0].operators]
    assert found["operators"] == Counter(names[number] for number in used)
    assert found["facts"]["signature"] == "serving_default"


def test_names_of_operators_and_types_are_those_of_the_public_schema():
    for table, names in ((schema.BuiltinOperator, OPERATORS), (schema.TensorType, [dtype.upper() for dtype in DTYPES])):
        public = {value: name for name, value in vars(table).items() if not name.startswith("_")}
        assert {number: names[number] for number in public if number < len(names)} == {
            number: name for number, name in public.items() if number < len(names)
        }


def test_savedmodel_operators_are_those_behind_the_signature(bundles, capfd):
    import tensorflow as tf

    found = record(bundles["savedmodel"].directory, capfd)
    function = tf.saved_model.load(str(bundles["savedmodel"].model_path)).signatures["serving_default"]
    bodies = function.graph.as_graph_def().library.function
    inner = [node.op for body in bodies for node in body.node_def]
    for name in ("Softmax", "Erfc", "Conv2D", "BatchMatMulV2", "ConcatV2"):
        assert found["operators"][name] == inner.count(name) > 0
    assert not set(found["operators"]) & {"SaveV2", "RestoreV2", "AssignVariableOp"}
    assert found["facts"]["made by"] == f"tensorflow {tf.__version__}"


def test_the_table_shows_everything_and_no_control_characters(bundles, capfd):
    assert run(["inspect", str(bundles["onnx"].directory)]) == 0
    printed = capfd.readouterr().out
    for word in (
        "onnx bundle",
        "LayerNormalization",
        "mean (0.485, 0.456, 0.406)",
        "cat, dog, größe",
        "random seed=7",
    ):
        assert word in printed
    assert "\x1b[31m" not in printed


def test_weights_beside_an_onnx_file_count_and_are_missed(model, tmp_path, capfd):
    options = ExportOptions()
    artifact = describe(model, tmp_path, format="onnx", precision="fp32", input=options.input_spec(model.config))
    OnnxExporter(external_limit=0).write(model, artifact, options)
    data = tmp_path / "model.onnx.data"
    found = record(artifact.model_path, capfd)
    assert found["bytes"] == artifact.model_path.stat().st_size + data.stat().st_size > model.num_bytes
    data.unlink()
    assert record(artifact.model_path, capfd)["notes"] == [
        "its weights are in model.onnx.data, which is missing: copy it too"
    ]


def foreign_onnx(path: Path) -> None:
    branch = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])], "branch", [], [helper.make_tensor_value_info("y", 1, None)]
    )
    nodes = [
        helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch),
        helper.make_node("Special", ["z", "w"], ["out"], domain="my.own"),
    ]
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", None, 3]),
        helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        helper.make_tensor_value_info("w", TensorProto.INT64, [2]),
    ]
    weight = helper.make_tensor("w", TensorProto.INT64, [2], [1, 2])
    outputs = [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.own", 3)]
    onnx.save(helper.make_model(graph, producer_name="somebody", opset_imports=opsets), path)


def test_a_foreign_onnx_file_shows_its_graph(tmp_path, capfd):
    path = tmp_path / "foreign.onnx"
    foreign_onnx(path)
    found = record(path, capfd)
    assert found["operators"] == {"Neg": 2, "If": 1, "my.own.Special": 1}
    assert found["inputs"] == [
        {"name": "x", "dtype": "float16", "shape": ["n", None, 3]},
        {"name": "c", "dtype": "bool", "shape": []},
    ]
    assert (found["facts"]["opset"], found["facts"]["opset of my.own"]) == (17, 3)
    assert found["config"] is None
    assert found["parameters"] is None
    assert "not made by vit-deploy" in found["notes"][0]
    assert run(["inspect", str(path)]) == 0
    assert "Special" in capfd.readouterr().out
    assert run(["inspect", str(path), "--snippet"]) == 2
    assert "does not say how an image becomes its input" in capfd.readouterr().err


def test_a_foreign_savedmodel_and_tflite_file_show_their_graphs(tmp_path, capfd):
    import tensorflow as tf

    module = tf.Module()
    module.weight = tf.Variable(tf.ones((3, 2)))
    spec = tf.TensorSpec((None, 3), tf.float32, name="given")
    function = tf.function(lambda given: {"product": tf.tanh(given @ module.weight)}, input_signature=[spec])
    tf.saved_model.save(module, str(tmp_path / "foreign"), signatures=function.get_concrete_function())
    found = record(tmp_path / "foreign", capfd)
    assert found["operators"] == {"MatMul": 1, "Tanh": 1}
    assert found["inputs"] == [{"name": "given", "dtype": "float32", "shape": [None, 3]}]
    assert found["config"] is None

    converter = tf.lite.TFLiteConverter.from_concrete_functions([function.get_concrete_function()], module)
    (tmp_path / "foreign.tflite").write_bytes(converter.convert())
    found = record(tmp_path / "foreign.tflite", capfd)
    assert found["operators"]["TANH"] == 1
    assert found["inputs"][0]["dtype"] == "float32"
    assert found["outputs"][0]["shape"] == [None, 2]
    assert found["weights_digest"] is None


def test_the_snippet_is_printed_alone_or_in_the_document(bundles, capfd):
    path = bundles["onnx"].directory
    assert run(["inspect", str(path), "--snippet"]) == 0
    printed = capfd.readouterr().out
    assert printed.startswith("import json\n")
    compile(printed, "snippet", "exec")
    assert record(path, capfd, "--snippet")["snippet"] == printed


@pytest.mark.parametrize("format", FORMATS)
def test_a_truncated_model_file_is_one_clear_error(format, bundles, tmp_path):
    artifact = bundles[format]
    name = "saved_model.pb" if format == "savedmodel" else ""
    whole = (artifact.model_path / name).read_bytes()
    folder = tmp_path / "cut"
    folder.mkdir()
    path = folder / (name or artifact.model_path.name)
    for part in (0.0, 0.05, 0.3, 0.8, 0.99):
        path.write_bytes(whole[: int(part * len(whole))])
        with pytest.raises(ArtifactError, match=re.escape(str(path))) as caught:
            inspect(folder if name else path)
        assert caught.value.fix


@pytest.mark.parametrize("format", FORMATS)
def test_changed_bytes_never_crash(format, bundles, tmp_path):
    artifact = bundles[format]
    name = "saved_model.pb" if format == "savedmodel" else ""
    whole = np.frombuffer((artifact.model_path / name).read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    path = tmp_path / (name or artifact.model_path.name)
    refused = 0
    for _ in range(150):
        changed = whole.copy()
        where = rng.integers(0, len(whole), 30)
        changed[where] = rng.integers(0, 256, len(where))
        path.write_bytes(changed.tobytes())
        try:
            inspect(tmp_path if name else path)
        except (ArtifactError, CheckpointError) as error:
            refused += bool(error.fix)
    assert refused


def test_damaged_essentials_are_named(bundles, tmp_path, capfd):
    read = onnx.load(bundles["onnx"].model_path)
    path = tmp_path / "model.onnx"
    for value, said in (("{", "damaged"), ('{"image_size": [7, 5]}', "divisible by patch"), ("[" * 100_000, "damaged")):
        next(entry for entry in read.metadata_props if entry.key == "vit_deploy.config").value = value
        onnx.save(read, path)
        assert run(["inspect", str(path)]) == 2
        said_on_stderr = capfd.readouterr().err
        assert said in said_on_stderr
        assert "Traceback" not in said_on_stderr


def test_a_config_of_a_billion_layers_costs_nothing(bundles, tmp_path, capfd):
    read = onnx.load(bundles["onnx"].model_path)
    entry = next(prop for prop in read.metadata_props if prop.key == "vit_deploy.config")
    entry.value = json.dumps(json.loads(entry.value) | {"num_layers": 10**9})
    onnx.save(read, tmp_path / "model.onnx")
    assert record(tmp_path / "model.onnx", capfd)["parameters"] > 10**12


def test_a_changed_bundle_is_refused_by_name(bundles, tmp_path, capfd):
    folder = shutil.copytree(bundles["onnx"].directory, tmp_path / "bundle")
    with (folder / "model.onnx").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    assert run(["inspect", str(folder), "--json"]) == 2
    error = json.loads(capfd.readouterr().out)["error"]
    assert error["type"] == "ArtifactError"
    assert re.search(r"model\.onnx has other content", error["message"])


@pytest.mark.parametrize("name", ["absent", "empty", "text.txt", "empty.onnx", "text.onnx", "text.tflite"])
def test_what_is_nothing_known_is_bad_input(name, tmp_path, capfd):
    if name == "empty":
        (tmp_path / name).mkdir()
    elif name != "absent":
        (tmp_path / name).write_text("" if "empty" in name else "some words that are no model\n")
    assert run(["inspect", str(tmp_path / name)]) == 2
    said = capfd.readouterr().err
    assert name in said
    assert "fix:" in said


def test_onnx_tflite_and_savedmodel_are_read_without_any_engine(bundles):
    program = """
import sys
from vit_deploy.cli import run
codes = [run(["inspect", path, "--quiet"]) for path in sys.argv[1:]]
print(codes, *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""
    paths = [str(artifact.directory) for artifact in bundles.values()]
    done = subprocess.run([sys.executable, "-c", program, *paths], capture_output=True, text=True)
    said = done.stderr.splitlines()[-1]
    assert said.startswith("[0, 0, 0]"), done.stderr
    assert not set(said.split()) & {"tensorflow", "onnx", "onnxruntime", "ai_edge_litert", "keras", "PIL"}


def test_people_are_told_which_engines_run_a_bundle(bundles, monkeypatch, capfd):
    absent = Plugin("x:Y", extra="openvino", needs=("no_such_engine",))
    monkeypatch.setitem(RUNTIMES._plugins, "openvino", absent)
    assert run(["inspect", str(bundles["onnx"].directory)]) == 0
    assert "onnxruntime, openvino (not installed here)" in capfd.readouterr().out
