from __future__ import annotations

import gc
import sys
import threading
import weakref

import numpy as np
import onnx
import onnxruntime
import pytest
from linear_onnx import expected, write_channels_first, write_for_pixels, write_model
from onnx import TensorProto, helper, numpy_helper

from vit_deploy.errors import EngineError
from vit_deploy.formats.onnx.file import external_locations
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.ort import gpus
from vit_deploy.runtimes.ort.errors import opening, setting_of
from vit_deploy.runtimes.ort.runtime import OnnxRuntime


@pytest.mark.parametrize("batch", [None, 1, 3])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_images_goes_through_any_batch(make_artifact, weight, seven_images, batch, count):
    artifact = write_model(make_artifact("onnx", batch), weight)
    with OnnxRuntime().open(artifact) as session:
        outputs = session.infer(seven_images[:count])
        assert session.provider == "cpu"
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, expected(seven_images[:count], weight), atol=1e-5)


def test_a_file_with_channels_first_takes_images_with_channels_last(make_artifact, weight, seven_images):
    artifact = write_channels_first(make_artifact, weight)
    with OnnxRuntime().open(artifact) as session:
        np.testing.assert_allclose(session.infer(seven_images), expected(seven_images, weight), atol=1e-5)


def test_a_file_with_preprocessing_inside_takes_pixels(make_artifact, weight):
    artifact = write_for_pixels(make_artifact, weight)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    with OnnxRuntime().open(artifact) as session:
        np.testing.assert_allclose(session.infer(pixels), expected(pixels, weight), rtol=1e-5, atol=1e-3)


def test_threads_are_the_engines_own(make_artifact, weight, monkeypatch):
    artifact = write_model(make_artifact("onnx"), weight)
    seen = []
    original = onnxruntime.InferenceSession

    def record(path, settings, **others):
        seen.append(settings.intra_op_num_threads)
        return original(path, settings, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    for threads in (None, 1, 2):
        with OnnxRuntime().open(artifact, RuntimeOptions(threads=threads)):
            pass
    assert seen == [0, 1, 2]


def test_weights_beside_the_file_are_loaded(make_artifact, weight, seven_images):
    artifact = write_model(make_artifact("onnx"), weight, location="model.onnx.data")
    assert external_locations(artifact.model_path) == {"model.onnx.data"}
    with OnnxRuntime().open(artifact) as session:
        np.testing.assert_allclose(session.infer(seven_images), expected(seven_images, weight), atol=1e-5)


def test_weights_outside_of_the_bundle_are_refused(make_artifact, weight):
    artifact = write_model(make_artifact("onnx"), weight, location="../stolen.data")
    with pytest.raises(EngineError, match=r"keeps weights outside its artifact: \.\./stolen\.data"):
        OnnxRuntime().open(artifact).__enter__()


def test_a_link_that_leads_out_of_the_bundle_is_refused(make_artifact, weight, tmp_path_factory):
    artifact = write_model(make_artifact("onnx"), weight, location="model.onnx.data")
    elsewhere = (artifact.directory / "model.onnx.data").rename(tmp_path_factory.mktemp("other") / "data")
    (artifact.directory / "model.onnx.data").symlink_to(elsewhere)
    with pytest.raises(EngineError, match=r"outside its artifact: model\.onnx\.data"):
        OnnxRuntime().open(artifact).__enter__()


def test_weights_outside_are_found_in_the_branches_of_a_graph_too(tmp_path):
    tensor = numpy_helper.from_array(np.zeros(3, np.float32), "k")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../deep")
    inner = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor)], "inner", [], [])
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(helper.make_graph([node], "outer", [], [])).SerializeToString())
    assert external_locations(path) == {"../deep"}


def test_a_provider_that_is_not_installed_is_an_error(make_artifact, weight, monkeypatch):
    artifact = write_model(make_artifact("onnx"), weight)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match=r"has no CUDAExecutionProvider; it has CPU.*(?s:.*)vit-deploy\[gpu\]"):
        OnnxRuntime().open(artifact, RuntimeOptions(provider="cuda")).__enter__()
    with pytest.raises(EngineError, match=r"has no TensorrtExecutionProvider(?s:.*)vit-deploy\[tensorrt\]"):
        OnnxRuntime().open(artifact, RuntimeOptions(provider="tensorrt")).__enter__()
    with pytest.raises(EngineError, match=r"no provider 'npu'(?s:.*)choose one of cpu, cuda, tensorrt"):
        OnnxRuntime().open(artifact, RuntimeOptions(provider="npu")).__enter__()


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="has CUDA")
def test_falling_back_to_the_cpu_is_an_error(make_artifact, weight, monkeypatch):
    # The list says that CUDA is there, and then the session does not get it: what a missing library looks like.
    artifact = write_model(make_artifact("onnx"), weight)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(gpus, "MEMORY", {"cuda": "cpu"})
    with pytest.raises(EngineError, match="fell back from CUDAExecutionProvider to CPUExecutionProvider"):
        OnnxRuntime().open(artifact, RuntimeOptions(provider="cuda")).__enter__()


@pytest.mark.parametrize("content", [None, b"", b"not a model", b"\x3a\xff\xff\x03"])
def test_a_missing_or_corrupt_file_is_an_error_with_its_path(make_artifact, content):
    artifact = make_artifact("onnx")
    if content is not None:
        artifact.model_path.write_bytes(content)
    with pytest.raises(EngineError, match=str(artifact.model_path)):
        OnnxRuntime().open(artifact).__enter__()


def test_a_truncated_file_is_an_error_with_its_path(make_artifact, weight):
    artifact = write_model(make_artifact("onnx"), weight)
    artifact.model_path.write_bytes(artifact.model_path.read_bytes()[:-40])
    with pytest.raises(EngineError, match=str(artifact.model_path)):
        OnnxRuntime().open(artifact).__enter__()


def test_an_operator_that_the_engine_lacks_is_an_error_that_names_it(make_artifact, weight):
    artifact = write_model(make_artifact("onnx"), weight)
    model = onnx.load(artifact.model_path)
    model.graph.node[0].op_type = "Erfc"
    artifact.model_path.write_bytes(model.SerializeToString())
    with pytest.raises(EngineError, match="Erfc"):
        OnnxRuntime().open(artifact).__enter__()


def test_another_output_than_recorded_is_an_error(make_artifact, weight):
    artifact = write_model(make_artifact("onnx"), weight, output="features")
    with pytest.raises(EngineError, match="has no output logits; it has features"):
        OnnxRuntime().open(artifact).__enter__()


def test_the_engine_is_freed_when_the_context_ends(make_artifact, weight, monkeypatch):
    artifact = write_model(make_artifact("onnx"), weight)
    engines = []
    original = onnxruntime.InferenceSession

    def record(*args, **others):
        engine = original(*args, **others)
        engines.append(weakref.ref(engine))
        return engine

    monkeypatch.setattr(onnxruntime, "InferenceSession", record)
    with OnnxRuntime().open(artifact) as session:
        assert engines[0]() is not None
    gc.collect()
    assert engines[0]() is None
    assert session.provider == "cpu"


def test_threads_that_open_sessions_at_the_same_time_leave_stdout_and_stderr_as_they_were():
    before, first, second, over = (sys.stdout, sys.stderr), threading.Event(), threading.Event(), threading.Event()

    def begin_and_end_first():
        with opening("load a file", setting_of("cpu")):
            first.set()
            second.wait(0.2)
        over.set()

    def begin_and_end_last():
        first.wait()
        with opening("load another file", setting_of("cpu")):
            second.set()
            over.wait()

    threads = [threading.Thread(target=order) for order in (begin_and_end_first, begin_and_end_last)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (sys.stdout, sys.stderr) == before
