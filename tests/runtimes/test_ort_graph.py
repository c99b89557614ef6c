"""CUDA graphs by an ONNX Runtime that pretends to have a GPU: it replays what was recorded, whatever it is given."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import fake_ort
import numpy as np
import pytest
from linear_onnx import expected, write_model

from vit_deploy.errors import EngineError
from vit_deploy.runtimes import DeviceSession, RuntimeOptions
from vit_deploy.runtimes.ort.recording import Gate
from vit_deploy.runtimes.ort.runtime import OnnxRuntime

GRAPH = RuntimeOptions(provider="cuda", cuda_graph=True)


@pytest.fixture
def gpu(monkeypatch):
    return fake_ort.install(monkeypatch)


def graphs(gpu):
    return [given["gpu_graph_id"] for kind, *rest in gpu.events if kind == "run" for given in rest]


@pytest.mark.parametrize("batch", [None, 1, 3])
def test_what_is_replayed_answers_for_the_images_that_were_uploaded_last(
    make_artifact, weight, seven_images, gpu, batch
):
    artifact = write_model(make_artifact("onnx", batch), weight)
    with OnnxRuntime().open(artifact, GRAPH) as session:
        assert isinstance(session, DeviceSession)
        for images in (seven_images[:1], seven_images, seven_images[1:2], seven_images[::-1], seven_images[2:4]):
            np.testing.assert_allclose(session.infer(images), expected(images, weight), atol=1e-5)
        session.upload(seven_images[2:])
        for _ in range(3):
            session.compute()
        session.launch()
        session.wait()
        np.testing.assert_allclose(session.download(), expected(seven_images[2:], weight), atol=1e-5)


def test_each_size_of_batch_has_a_graph_of_its_own(make_artifact, weight, seven_images, gpu):
    with OnnxRuntime().open(write_model(make_artifact("onnx"), weight), GRAPH) as session:
        gpu.events.clear()
        for count in (1, 7, 1, 7, 2):
            session.infer(seven_images[:count])
    assert graphs(gpu) == ["1", "2", "1", "2", "3"]


def test_each_group_of_a_call_has_a_graph_of_its_own(make_artifact, weight, seven_images, gpu):
    with OnnxRuntime().open(write_model(make_artifact("onnx", 3), weight), GRAPH) as session:
        gpu.events.clear()
        session.infer(seven_images)
        session.infer(seven_images)
    assert graphs(gpu) == ["1", "2", "3"] * 2


def test_a_graphs_places_are_made_once(make_artifact, weight, seven_images, gpu):
    with OnnxRuntime().open(write_model(make_artifact("onnx"), weight), GRAPH) as session:
        gpu.events.clear()
        for count in (1, 7, 1, 7):
            session.infer(seven_images[:count])
    assert sum(kind == "value" for kind, *_ in gpu.events) == 4  # images and outputs of two sizes


def test_the_provider_is_told_to_record(make_artifact, weight, gpu):
    artifact = write_model(make_artifact("onnx"), weight)
    with OnnxRuntime().open(artifact, GRAPH):
        assert gpu.options[fake_ort.CUDA]["enable_cuda_graph"] == "1"
    gpu.operators = {fake_ort.TENSORRT: 2}
    with OnnxRuntime().open(artifact, RuntimeOptions(provider="tensorrt", cuda_graph=True)):
        assert gpu.options[fake_ort.TENSORRT]["trt_cuda_graph_enable"] == "1"
        assert "enable_cuda_graph" not in gpu.options[fake_ort.CUDA]
    gpu.operators = {fake_ort.CUDA: 2}
    with OnnxRuntime().open(artifact, RuntimeOptions(provider="cuda")):
        assert "enable_cuda_graph" not in gpu.options[fake_ort.CUDA]


@pytest.mark.parametrize("batch", [None, 2])
def test_tensorrt_refuses_another_size_than_that_of_its_one_graph(make_artifact, weight, seven_images, gpu, batch):
    gpu.operators = {fake_ort.TENSORRT: 2}
    options = RuntimeOptions(provider="tensorrt", cuda_graph=True)
    with OnnxRuntime().open(write_model(make_artifact("onnx", batch), weight), options) as session:
        for images in (seven_images[:2], seven_images[3:5]):
            np.testing.assert_allclose(session.infer(images), expected(images, weight), atol=1e-5)
        with pytest.raises(EngineError, match=r"one CUDA graph a session, here of 2 images; these are [48]\n"):
            session.infer(seven_images[:4] if batch is None else seven_images)
        np.testing.assert_allclose(session.infer(seven_images[:2]), expected(seven_images[:2], weight), atol=1e-5)


def test_a_graph_on_the_cpu_is_an_error(make_artifact, weight):
    artifact = write_model(make_artifact("onnx"), weight)
    with pytest.raises(EngineError, match=r"recorded on a GPU, and the provider is cpu\n  fix: add --provider cuda"):
        OnnxRuntime().open(artifact, RuntimeOptions(cuda_graph=True)).__enter__()


def test_outputs_whose_size_is_not_known_are_an_error(make_artifact, weight, seven_images, gpu, monkeypatch):
    with OnnxRuntime().open(write_model(make_artifact("onnx"), weight), GRAPH) as session:
        [found] = session._engine.get_outputs()
        monkeypatch.setattr(
            session._engine,
            "get_outputs",
            lambda: [type("Output", (), {"name": found.name, "type": found.type, "shape": ["batch", "tokens"]})],
        )
        with pytest.raises(EngineError, match=r"known size and type; logits is tensor\(float\) \['batch', 'tokens'\]"):
            session.infer(seven_images)


def test_threads_share_sessions_with_graphs_and_nothing_happens_while_one_records(make_artifact, weight, gpu):
    images = [np.full((1 + number % 3, 6, 5, 3), number, np.float32) for number in range(6)]
    truth = [expected(image, weight) for image in images]
    artifact = write_model(make_artifact("onnx"), weight)
    with OnnxRuntime().open(artifact, GRAPH) as first, OnnxRuntime().open(artifact, GRAPH) as second:

        def ask(number):
            session = (first, second)[number % 2]
            return [np.abs(session.infer(images[number]) - truth[number]).max() for _ in range(50)]

        with ThreadPoolExecutor(6) as pool:
            wrong = [each for found in pool.map(ask, range(6)) for each in found if each > 1e-3]
    assert not wrong
    assert gpu.disturbed == 0


def test_a_gate_lets_one_pass_alone_or_many_together():
    gate, inside, seen = Gate(), [], []

    def pass_through(number):
        for _ in range(50):
            with gate.alone() if number == 0 else gate:
                inside.append(number)
                seen.append(0 in inside and len(inside) > 1)
                inside.remove(number)

    threads = [threading.Thread(target=pass_through, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(seen) == 200 and not any(seen)
