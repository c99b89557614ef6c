"""Where operators really run: what ONNX Runtime tells of it, and steps on a device, without any device."""

from __future__ import annotations

import contextlib
import time
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import onnxruntime
import pytest
from linear_onnx import expected, write_model

from vit_deploy.errors import EngineError
from vit_deploy.performance import worker
from vit_deploy.runtimes import DeviceSession, RuntimeOptions
from vit_deploy.runtimes.ort import gpus, sessions
from vit_deploy.runtimes.ort.runtime import OnnxRuntime

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.fixture
def with_cuda(monkeypatch):
    """An ONNX Runtime that says it has CUDA and puts operators where it is told; they run on the CPU."""

    class Pretending(onnxruntime.InferenceSession):
        operators: ClassVar = {}

        def __init__(self, path, settings, providers, **others):
            self.asked = providers
            super().__init__(path, settings, providers=[CPU])

        def get_providers(self):
            return [name for name, _ in self.asked] + [CPU]

        def get_provider_graph_assignment_info(self):
            return [
                SimpleNamespace(ep_name=name, get_nodes=lambda count=count: [None] * count)
                for name, count in self.operators.items()
            ]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Pretending)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider", CUDA, CPU])
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda: None)
    monkeypatch.setattr(gpus, "MEMORY", {"cuda": "cpu", "tensorrt": "cpu"})
    return Pretending


def test_operators_on_the_cpu_are_counted(make_artifact, weight):
    with OnnxRuntime().open(write_model(make_artifact("onnx"), weight)) as session:
        assert session.placement == {"cpu": 2}
        assert not isinstance(session, DeviceSession)


def test_versions_that_do_not_record_it_are_profiled_on_a_device(
    make_artifact, weight, with_cuda, monkeypatch, tmp_path
):
    monkeypatch.setattr(sessions, "RECORDS", False)
    monkeypatch.delattr(with_cuda, "get_provider_graph_assignment_info")
    monkeypatch.chdir(tmp_path)
    artifact = write_model(make_artifact("onnx", 3), weight)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(EngineError, match=r"cuda takes none of the 2 operators of .*: 2 on cpu"):
        OnnxRuntime().open(artifact, RuntimeOptions(provider="cuda")).__enter__()
    with OnnxRuntime().open(artifact) as session:
        assert session.placement == {}
    assert sorted(tmp_path.iterdir()) == before


def test_the_call_that_shows_what_runs_where_is_no_part_of_loading(make_artifact, weight, with_cuda, monkeypatch):
    with_cuda.operators = {CUDA: 2}
    artifact = write_model(make_artifact("onnx"), weight)
    with OnnxRuntime().open(artifact, RuntimeOptions(provider="cuda")) as session:
        assert worker.trial(session) == (0, 0)  # it is recorded without a call

    @contextlib.contextmanager
    def told(settings, records):
        yield lambda engine, call: time.sleep(0.2) or call() is None or {CUDA: 2}

    monkeypatch.setattr(sessions, "RECORDS", False)
    monkeypatch.setattr(sessions, "placement_of", told)
    with OnnxRuntime().open(artifact, RuntimeOptions(provider="cuda")) as session:
        assert 0.2e9 <= worker.trial(session)[0] < 30e9
    with OnnxRuntime().open(artifact) as session:
        assert worker.trial(session) == (0, 0)


def test_a_provider_that_takes_nothing_is_an_error_that_says_what_ran_where(make_artifact, weight, with_cuda):
    artifact = write_model(make_artifact("onnx"), weight)
    with_cuda.operators = {CPU: 7}
    with pytest.raises(EngineError, match=r"cuda takes none of the 7 operators of .*: 7 on cpu\n.*--provider cpu"):
        OnnxRuntime().open(artifact, RuntimeOptions(provider="cuda")).__enter__()
    with_cuda.operators = {CUDA: 5, CPU: 2}
    with pytest.raises(EngineError, match=r"tensorrt takes none of the 7 .* 5 on cuda, 2 on cpu"):
        OnnxRuntime().open(artifact, RuntimeOptions(provider="tensorrt")).__enter__()


def test_a_provider_that_takes_a_part_is_told_by_counts(make_artifact, weight, with_cuda):
    with_cuda.operators = {CUDA: 5, CPU: 2}
    with OnnxRuntime().open(write_model(make_artifact("onnx"), weight), RuntimeOptions(provider="cuda")) as session:
        assert session.provider == "cuda"
        assert session.placement == {"cuda": 5, "cpu": 2}


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_on_a_device_a_call_is_made_of_its_steps(make_artifact, weight, seven_images, with_cuda, batch):
    with_cuda.operators = {CUDA: 2}
    artifact = write_model(make_artifact("onnx", batch), weight)
    with OnnxRuntime().open(artifact, RuntimeOptions(provider="cuda")) as session:
        assert isinstance(session, DeviceSession)
        np.testing.assert_allclose(session.infer(seven_images), expected(seven_images, weight), atol=1e-5)
        for images in (seven_images[:2], seven_images[2:7]):
            session.upload(images)
            for _ in range(2):  # what was uploaded stays
                session.compute()
            outputs = session.download()
            assert outputs.dtype == np.float32
            np.testing.assert_allclose(outputs, expected(images, weight), atol=1e-5)


def test_the_benchmark_times_copies_apart_from_what_the_device_computes(make_artifact, weight, seven_images, with_cuda):
    with_cuda.operators = {CUDA: 2}
    artifact = write_model(make_artifact("onnx"), weight)
    with OnnxRuntime().open(artifact, RuntimeOptions(provider="cuda")) as session:
        copied = worker.transfer_samples(session, seven_images)
        assert len(copied) == worker.TRANSFERS and min(copied) > 0
        call = worker._call(session, seven_images)
        session.infer = session.upload = session.download = None  # what is timed from here on computes alone
        call()
    with_cuda.operators = {CPU: 2}
    with OnnxRuntime().open(artifact) as session:
        assert worker.transfer_samples(session, seven_images) == []
