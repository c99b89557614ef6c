from __future__ import annotations

import os

import onnxruntime
import pytest
from onnx import helper

from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.ort import gpus
from vit_deploy.runtimes.ort.runtime import OnnxRuntime


class Opened(Exception):
    """Stands for a session, so that no GPU is needed."""


@pytest.fixture
def overrides():
    """The variable that NVIDIA's libraries read, as it was when each session was made."""
    return []


@pytest.fixture
def opened(make_artifact, monkeypatch, overrides):
    """What an ONNX Runtime that has GPUs would have been given as providers."""

    def open(options):
        def engine(path, settings, providers, **others):
            overrides.append(os.environ.get("NVIDIA_TF32_OVERRIDE"))
            raise Opened(providers)

        available = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: available)
        monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
        monkeypatch.setattr(gpus, "MEMORY", {"cuda": "cpu", "tensorrt": "cpu"})
        monkeypatch.setattr(onnxruntime, "InferenceSession", engine)
        artifact = make_artifact("onnx")
        empty = helper.make_model(helper.make_graph([], "empty", [], []))
        artifact.model_path.write_bytes(empty.SerializeToString())
        with pytest.raises(Opened) as caught, OnnxRuntime().open(artifact, options):
            pass
        return caught.value.args[0]

    return open


@pytest.mark.parametrize(("allow", "given"), [(False, {"use_tf32": "0"}), (True, {})])
def test_cuda_rounds_to_tf32_only_where_it_is_allowed(opened, allow, given):
    options = RuntimeOptions(provider="cuda", allow_tf32=allow)
    assert opened(options) == [("CUDAExecutionProvider", {"device_id": "0", **given})]


def test_tensorrt_is_told_by_the_environment_while_a_session_is_open(opened, overrides, monkeypatch):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    given = opened(RuntimeOptions(provider="tensorrt", allow_tf32=True))
    assert [name for name, _ in given] == ["TensorrtExecutionProvider", "CUDAExecutionProvider"]
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "1"
    _, cuda = opened(RuntimeOptions(provider="tensorrt", allow_tf32=False))
    assert cuda == ("CUDAExecutionProvider", {"device_id": "0", "use_tf32": "0"})
    assert overrides == ["1", "0"]
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "1"


def test_the_cpu_has_no_such_option(opened):
    assert opened(RuntimeOptions(allow_tf32=False)) == [("CPUExecutionProvider", {})]
