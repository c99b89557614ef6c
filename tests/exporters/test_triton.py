"""Models of a Triton repository say what the artifact says, and warm up with its golden images."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.input_output import InputSpec, OutputSpec
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import ConfigError, OutputError
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export
from vit_deploy.exporters.tensorrt import triton
from vit_deploy.verification.golden import read_golden

LABELS = ("cat", 'a "big"\ndog', "größe", "a, b", "it's")
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}:\[\],]|[^\s{}:\[\],"]+')


def parsed(text: str) -> dict[str, list[Any]]:
    """Protobuf's text form as values by field; every field is a list, for all of them could repeat."""
    tokens = iter(TOKEN.findall(text))

    def message() -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for key in tokens:
            if key == "}":
                break
            mark = next(tokens)
            found.setdefault(key, []).append(message() if mark == "{" else value())
        return found

    def value() -> Any:
        token = next(tokens)
        if token == "[":
            inside = []
            while (each := next(tokens)) != "]":
                inside += [] if each == "," else [int(each)]
            return inside
        return json.loads(token) if token.startswith('"') or token.lstrip("-").isdigit() else token

    return message()


def only(message: dict[str, list[Any]], *path: str) -> Any:
    for key in path:
        (message,) = message[key]
    return message


@pytest.fixture
def onnx(bundles: dict[str, Path]) -> Artifact:
    return read_artifact(bundles["onnx"])


@pytest.fixture(scope="session")
def labelled(make_checkpoint: Any, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """An artifact with labels that is made for batches of three, channels first."""
    checkpoint = dataclasses.replace(make_checkpoint(), labels=LABELS)
    jobs, _ = plan(["onnx"], ["fp32"], batch=3, layout="nchw")
    return export(checkpoint, tmp_path_factory.mktemp("labelled"), jobs)[0].artifact


@pytest.fixture(scope="module")
def model_config_pb2() -> ModuleType:
    """Triton's own description of the format, without gRPC, which the package around it asks for."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or importlib.util.find_spec("google.protobuf") is None:
        pytest.skip("needs tritonclient and protobuf")
    path = Path(next(iter(found.submodule_search_locations or ()))) / "grpc/model_config_pb2.py"
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_open_batch_is_gathered_by_triton(onnx):
    found = parsed(triton.config(onnx, "small"))
    assert only(found, "name") == "small"
    assert only(found, "backend") == "onnxruntime" and only(found, "platform") == "onnxruntime_onnx"
    assert only(found, "max_batch_size") == 32
    assert only(found, "dynamic_batching") == {}
    assert only(found, "input") == {"name": ["images"], "data_type": ["TYPE_FP32"], "dims": [[24, 32, 3]]}
    assert only(found, "output") == {"name": ["logits"], "data_type": ["TYPE_FP32"], "dims": [[5]]}
    assert only(found, "instance_group") == {"count": [1], "kind": ["KIND_GPU"]}
    assert "optimization" not in found, "TensorRT is for those who ask for it"


def test_a_fixed_batch_is_a_side_like_any_other_and_is_not_gathered(labelled):
    found = parsed(triton.config(labelled, "small"))
    assert only(found, "max_batch_size") == 0
    assert "dynamic_batching" not in found
    assert only(found, "input", "dims") == [3, 3, 24, 32]
    assert only(found, "output", "dims") == [3, 5]
    assert only(found, "model_warmup", "batch_size") == 1
    assert only(found, "model_warmup", "inputs", "value", "dims") == [3, 3, 24, 32]


def test_a_written_model_holds_the_file_its_labels_and_golden_images(labelled, tmp_path):
    triton.write_model(labelled, tmp_path / "repository/small")
    model = tmp_path / "repository/small"
    assert (model / "1/model.onnx").read_bytes() == labelled.model_path.read_bytes()
    found = parsed((model / "config.pbtxt").read_text(encoding="utf-8"))
    lines = (model / only(found, "output", "label_filename")).read_text(encoding="utf-8").splitlines()
    assert lines == ["cat", 'a "big" dog', "größe", "a, b", "it's"]

    value = only(found, "model_warmup", "inputs", "value")
    raw = (model / "warmup" / only(value, "input_data_file")).read_bytes()
    images = np.frombuffer(raw, "<f4").reshape(only(value, "dims"))
    np.testing.assert_array_equal(images, read_golden(labelled).images[:3].transpose(0, 3, 1, 2))
    assert only(found, "model_warmup", "inputs", "key") == labelled.input.name


def test_a_gpu_is_warmed_up_with_the_largest_batch_as_well(onnx, tmp_path):
    batches = [only(warmup, "batch_size") for warmup in parsed(triton.config(onnx, "small"))["model_warmup"]]
    assert batches == [1, 32]
    batches = [only(warmup, "batch_size") for warmup in parsed(triton.config(onnx, "small", "cpu"))["model_warmup"]]
    assert batches == [1]
    triton.write_model(onnx, tmp_path / "small")
    assert (tmp_path / "small/warmup/images").stat().st_size == 24 * 32 * 3 * 4, "one image, which Triton repeats"
    assert not (tmp_path / "small/labels.txt").exists()


def test_weights_beside_the_file_and_folders_are_copied(bundles, onnx, tmp_path):
    beside = onnx.directory / "model.onnx.data"
    copied = dataclasses.replace(onnx, directory=tmp_path / "bundle")
    copied.directory.mkdir()
    for path in onnx.directory.iterdir():
        (copied.directory / path.name).write_bytes(path.read_bytes())
    (copied.directory / beside.name).write_bytes(b"weights")
    triton.write_model(copied, tmp_path / "repository/large")
    assert (tmp_path / "repository/large/1/model.onnx.data").read_bytes() == b"weights"

    saved = read_artifact(bundles["savedmodel"])
    triton.write_model(saved, tmp_path / "repository/saved")
    assert (tmp_path / "repository/saved/1/model.savedmodel/saved_model.pb").is_file()
    found = parsed((tmp_path / "repository/saved/config.pbtxt").read_text())
    assert only(found, "platform") == "tensorflow_savedmodel" and only(found, "backend") == "tensorflow"


@pytest.mark.parametrize(
    ("precision", "provider", "kind", "mode"),
    [
        ("fp32", None, "KIND_GPU", None),
        ("fp16", None, "KIND_GPU", None),
        ("int4", None, "KIND_GPU", None),
        ("int8", None, "KIND_CPU", None),
        ("int8-static", None, "KIND_CPU", None),
        ("int8", "cuda", "KIND_GPU", None),
        ("fp32", "cpu", "KIND_CPU", None),
        ("fp32", "tensorrt", "KIND_GPU", "FP32"),
        ("fp16", "tensorrt", "KIND_GPU", "FP16"),
        ("int8-static", "tensorrt", "KIND_GPU", "INT8"),
    ],
)
def test_what_executes_a_model_follows_its_precision_unless_it_is_said(onnx, precision, provider, kind, mode):
    triton.check([("onnx", precision)], provider)
    found = parsed(triton.config(dataclasses.replace(onnx, precision=precision), "small", provider))
    assert only(found, "instance_group", "kind") == kind
    if mode is None:
        assert "optimization" not in found
    else:
        accelerator = only(found, "optimization", "execution_accelerators", "gpu_execution_accelerator")
        assert accelerator == {"name": ["tensorrt"], "parameters": [{"key": ["precision_mode"], "value": [mode]}]}


@pytest.mark.parametrize(
    ("made_for", "precision", "kind", "mode"),
    [
        ("tensorrt", "int8-static", "KIND_GPU", "INT8"),
        ("tensorrt", "fp16", "KIND_GPU", "FP16"),
        ("cuda", "fp16", "KIND_GPU", None),
        ("cuda", "bf16", "KIND_GPU", None),
    ],
)
def test_a_file_is_executed_by_what_it_is_made_for(onnx, made_for, precision, kind, mode):
    file = dataclasses.replace(onnx, precision=precision, options={**onnx.options, "for": made_for})
    found = parsed(triton.config(file, "small"))
    assert only(found, "instance_group", "kind") == kind
    assert ("optimization" in found) == (mode is not None)
    if mode is not None:
        accelerator = only(found, "optimization", "execution_accelerators", "gpu_execution_accelerator")
        assert only(accelerator, "parameters", "value") == mode
    assert "optimization" not in parsed(triton.config(file, "small", "cuda")), "what is said goes before"


def test_a_plan_is_executed_by_cuda_whatever_its_graph_was_made_for(onnx):
    plan = dataclasses.replace(onnx, format="tensorrt", options={"for": "tensorrt"})
    assert triton.usual_provider(plan) == "cuda"


def test_types_are_those_of_the_file(onnx):
    halves = dataclasses.replace(
        onnx, input=InputSpec((None, 24, 32, 3), dtype="float16"), output=OutputSpec(dtype="float16")
    )
    found = parsed(triton.config(halves, "small"))
    assert only(found, "input", "data_type") == only(found, "output", "data_type") == "TYPE_FP16"
    pixels = dataclasses.replace(
        onnx, input=InputSpec((None, 24, 32, 3), dtype="uint8", preprocessing_inside=True, name="pixels")
    )
    found = parsed(triton.config(pixels, "small"))
    assert only(found, "input") == {"name": ["pixels"], "data_type": ["TYPE_UINT8"], "dims": [[24, 32, 3]]}
    assert {only(warmup, "inputs", "key") for warmup in found["model_warmup"]} == {"pixels"}


def test_what_triton_cannot_serve_is_refused_with_what_it_can(onnx):
    with pytest.raises(ConfigError, match="no backend for tflite files") as caught:
        triton.check([("onnx", "fp32"), ("tflite", "fp32")], None)
    assert caught.value.fix.startswith("export --format onnx")
    with pytest.raises(ConfigError, match="does not execute savedmodel files with tensorrt\n  fix: choose cpu or cuda"):
        triton.check([("savedmodel", "fp32")], "tensorrt")
    with pytest.raises(ConfigError, match="TensorRT does not read onnx files in int4"):
        triton.check([("onnx", "int4")], "tensorrt")
    with pytest.raises(ConfigError, match="does not know the operators of ONNX files that are made for CUDA"):
        triton.check([("onnx", "fp16")], "tensorrt", "cuda")
    with pytest.raises(ConfigError, match="no provider 'rocm'"):
        triton.check([("onnx", "fp32")], "rocm")


def test_one_model_has_the_checkpoints_name_and_several_say_what_they_are():
    assert triton.model_names("my model", [("onnx", "fp32")]) == ["my_model"]
    kinds = [("onnx", "fp32"), ("onnx", "int8")]
    assert triton.model_names("tiny", kinds) == ["tiny-onnx-fp32", "tiny-onnx-int8"]


def test_what_is_there_is_replaced_only_by_force_and_then_wholly(onnx, tmp_path):
    target = tmp_path / "small"
    (target / "7").mkdir(parents=True)
    with pytest.raises(OutputError, match="already there"):
        triton.write_model(onnx, target)
    assert [path.name for path in target.iterdir()] == ["7"]
    triton.write_model(onnx, target, force=True)
    assert sorted(path.name for path in target.iterdir()) == ["1", "config.pbtxt", "warmup"]
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.parametrize("provider", ["cpu", "cuda", "tensorrt"])
def test_tritons_own_protobuf_reads_the_same(labelled, onnx, provider, model_config_pb2):
    text_format = pytest.importorskip("google.protobuf.text_format")
    for artifact in (labelled, onnx):
        text = triton.config(artifact, "small", provider)
        read = text_format.Parse(text, model_config_pb2.ModelConfig())
        said = parsed(text)
        assert read.name == "small" and read.max_batch_size == only(said, "max_batch_size")
        assert list(read.input[0].dims) == only(said, "input", "dims")
        assert read.input[0].data_type == model_config_pb2.TYPE_FP32
        assert list(read.output[0].dims) == only(said, "output", "dims")
        assert read.output[0].label_filename == ("labels.txt" if artifact.labels else "")
        assert read.HasField("dynamic_batching") == (artifact is onnx)
        kind = model_config_pb2.ModelInstanceGroup.Kind.Name(read.instance_group[0].kind)
        assert kind == ("KIND_CPU" if provider == "cpu" else "KIND_GPU")
        assert [request.inputs["images"].input_data_file for request in read.model_warmup] == ["images"] * len(
            said["model_warmup"]
        )
        accelerators = read.optimization.execution_accelerators.gpu_execution_accelerator
        expected = [("tensorrt", {"precision_mode": "FP32"})] if provider == "tensorrt" else []
        assert [(accelerator.name, dict(accelerator.parameters)) for accelerator in accelerators] == expected
