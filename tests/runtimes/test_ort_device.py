"""Sessions on a GPU, by an ONNX Runtime that pretends to have one."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import fake_ort
import numpy as np
import onnxruntime
import pytest
from linear_onnx import expected, write_for_pixels, write_model
from onnx import TensorProto
from onnxruntime.capi import onnxruntime_pybind11_state as native

from vit_deploy.errors import EngineError
from vit_deploy.runtimes import DeviceRuntime, DeviceSession, RuntimeOptions
from vit_deploy.runtimes.ort import device_sessions
from vit_deploy.runtimes.ort.errors import NATIVE_ERRORS
from vit_deploy.runtimes.ort.runtime import OnnxRuntime

ON_CUDA = RuntimeOptions(provider="cuda")
DO_NOT_WAIT = {"disable_synchronize_execution_providers": "1"}


@pytest.fixture
def gpu(monkeypatch):
    return fake_ort.install(monkeypatch)


@contextlib.contextmanager
def session_of(gpu, artifact, options=ON_CUDA):
    with OnnxRuntime().open(artifact, options) as session:
        gpu.events.clear()
        yield session


def events(gpu, *kinds):
    return [event for event in gpu.events if event[0] in kinds]


def test_a_call_waits_for_its_own_work_alone(make_artifact, weight, seven_images, gpu):
    with session_of(gpu, write_model(make_artifact("onnx"), weight)) as session:
        session.upload(seven_images)
        session.compute()
        session.download()
    assert events(gpu, "run", "wait", "wait for inputs") == [("run", {})]


def test_several_groups_are_asked_for_at_once_and_waited_for_once(make_artifact, weight, seven_images, gpu):
    with session_of(gpu, write_model(make_artifact("onnx", 3), weight)) as session:
        session.upload(seven_images)
        session.compute()
        assert events(gpu, "run", "wait") == [*[("run", DO_NOT_WAIT)] * 3, ("wait",)]
        np.testing.assert_allclose(session.download(), expected(seven_images, weight), atol=1e-5)


def test_launched_calls_are_waited_for_together(make_artifact, weight, seven_images, gpu):
    with session_of(gpu, write_model(make_artifact("onnx"), weight)) as session:
        session.upload(seven_images)
        session.wait()
        for _ in range(3):
            session.launch()
        session.wait()
        session.wait()
        assert events(gpu, "run", "wait") == [*[("run", DO_NOT_WAIT)] * 3, ("wait",)]


@pytest.mark.parametrize("step", ["upload", "download"])
def test_nothing_is_copied_while_the_device_may_be_at_work(make_artifact, weight, seven_images, gpu, step):
    with session_of(gpu, write_model(make_artifact("onnx"), weight)) as session:
        session.upload(seven_images)
        session.launch()
        getattr(session, step)(*([seven_images] if step == "upload" else []))
        assert events(gpu, "run", "wait") == [("run", DO_NOT_WAIT), ("wait",)]


def test_images_of_the_same_shape_go_where_those_before_were(make_artifact, weight, seven_images, gpu):
    with session_of(gpu, write_model(make_artifact("onnx"), weight)) as session:
        for count in (2, 2, 3, 3, 2):
            np.testing.assert_allclose(
                session.infer(seven_images[7 - count :]), expected(seven_images[7 - count :], weight), atol=1e-5
            )
    assert len(events(gpu, "value")) == 3


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_everything_is_on_the_gpu_that_is_asked_for(make_artifact, weight, seven_images, gpu, provider):
    gpu.operators = {fake_ort.CUDA: 1, fake_ort.TENSORRT: 1}
    artifact = write_model(make_artifact("onnx"), weight)
    with OnnxRuntime().open(artifact, RuntimeOptions(provider=provider, device=3)) as session:
        session.infer(seven_images)
    assert {options["device_id"] for options in gpu.options.values()} == {"3"}
    assert {event[1] for event in events(gpu, "value", "output")} == {3}


def test_a_gpu_of_a_negative_number_is_an_error(gpu):
    with pytest.raises(EngineError, match="there is no GPU -1"):
        OnnxRuntime().prepare(RuntimeOptions(provider="cuda", device=-1))


def test_no_session_is_made_on_another_provider_instead(make_artifact, weight, gpu):
    with session_of(gpu, write_model(make_artifact("onnx"), weight)):
        assert gpu.others == {"enable_fallback": False}


def test_threads_that_share_a_session_get_their_own_answers(make_artifact, weight, gpu):
    images = [np.full((1 + number % 3, 6, 5, 3), number, np.float32) for number in range(8)]
    truth = [expected(image, weight) for image in images]

    def ask(number):
        return [np.abs(session.infer(images[number]) - truth[number]).max() for _ in range(100)]

    with session_of(gpu, write_model(make_artifact("onnx"), weight)) as session, ThreadPoolExecutor(8) as pool:
        wrong = [each for found in pool.map(ask, range(8)) for each in found if each > 1e-3]
    assert not wrong


def test_preparing_opens_the_device_and_nothing_else(gpu):
    assert isinstance(OnnxRuntime(), DeviceRuntime)
    OnnxRuntime().prepare(RuntimeOptions(provider="cuda", device=2))
    assert gpu.events == [("value", 2)]
    OnnxRuntime().prepare(RuntimeOptions())
    assert gpu.events == [("value", 2)]


def test_libraries_are_loaded_before_onnx_runtime_is_asked_what_it_has(gpu, monkeypatch):
    loaded = []
    monkeypatch.setattr(onnxruntime, "preload_dlls", lambda **where: loaded.append(where))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [fake_ort.CUDA] if loaded else [fake_ort.CPU])
    OnnxRuntime().prepare(ON_CUDA)
    assert loaded


def test_cuda_that_a_package_of_its_own_brings_is_taken(gpu, monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [fake_ort.CPU])
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [SimpleNamespace(ep_name=fake_ort.CUDA)], raising=False)
    OnnxRuntime().prepare(ON_CUDA)


def failing(error):
    def fail(*given, **others):
        raise error

    return fail


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (RuntimeError("CUDA failure 35: driver insufficient ; GPU=-1"), "the driver is too old for CUDA 13"),
        (RuntimeError("/s/x.cc:1 void f(int) Something new\n"), "model.onnx: Something new\n"),
        (ValueError("unknown option"), "unknown option"),
        (native.EPFail("[ONNXRuntimeError] : 11 : EP_FAIL : no engine"), "model.onnx: no engine"),
    ],
)
def test_why_a_session_cannot_be_opened_is_told_in_words_and_nothing_is_printed(
    make_artifact, weight, gpu, monkeypatch, capfd, raised, said
):
    monkeypatch.setattr(onnxruntime, "cuda_version", "13.0", raising=False)
    artifact = write_model(make_artifact("onnx"), weight)
    monkeypatch.setattr(onnxruntime, "InferenceSession", failing(raised))
    with pytest.raises(EngineError) as caught:
        OnnxRuntime().open(artifact, ON_CUDA).__enter__()
    assert said in str(caught.value) and "\n  fix: " in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_the_library_that_a_provider_misses_is_named_where_it_falls_back_without_an_error(
    make_artifact, weight, gpu, monkeypatch, capfd
):
    artifact = write_model(make_artifact("onnx"), weight)

    class FallingBack(gpu):
        def __init__(self, *given, **others):
            import os

            os.write(2, b"\x1b[1;31mFailed to load library with error: libcudnn.so.9: cannot open shared object file\n")
            super().__init__(*given, **others)

        def get_providers(self):
            return [fake_ort.CPU]

    monkeypatch.setattr(onnxruntime, "InferenceSession", FallingBack)
    with pytest.raises(EngineError, match=r"libcudnn.so.9 of CUDA is missing\n  fix: pip install") as caught:
        OnnxRuntime().open(artifact, ON_CUDA).__enter__()
    assert "\x1b" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("error", [RuntimeError, ValueError, native.Fail])
@pytest.mark.parametrize(
    ("step", "broken"),
    [
        ("upload", "_on_device"),
        ("compute", "_call"),
        ("launch", "_call"),
    ],
)
def test_a_step_that_fails_on_the_device_says_that_its_memory_is_full(
    make_artifact, weight, seven_images, gpu, monkeypatch, step, broken, error
):
    with session_of(gpu, write_model(make_artifact("onnx"), weight)) as session:
        session.infer(seven_images[:1])
        monkeypatch.setattr(session, broken, failing(error("CUDA failure 2: out of memory ; GPU=0 ; hostname=x")))
        with pytest.raises(EngineError, match=r"out of GPU memory\n  fix: take a smaller batch, or fewer cases"):
            getattr(session, step)(*([seven_images] if step == "upload" else []))


def test_a_gpu_that_cannot_be_opened_says_why(gpu, monkeypatch):
    error = RuntimeError("x.cc:1 f() The provided device id doesn't match any available GPUs on the machine.")
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", failing(error))
    with pytest.raises(EngineError, match=r"cannot use GPU 7: this process sees no GPU 7\n  fix: count from 0"):
        OnnxRuntime().prepare(RuntimeOptions(provider="cuda", device=7))


def test_errors_of_later_versions_are_taken_too():
    assert {getattr(native, name) for name in ("NotFound", "DeviceReset") if hasattr(native, name)} <= {*NATIVE_ERRORS}


def test_on_the_cpu_an_error_that_is_not_the_engines_keeps_its_traceback(make_artifact, weight, seven_images):
    with OnnxRuntime().open(write_model(make_artifact("onnx"), weight)) as session:
        session._engine = SimpleNamespace(run=failing(RuntimeError("a bug of ours")))
        with pytest.raises(RuntimeError, match="a bug of ours"):
            session.infer(seven_images)


def test_pixels_and_halves_go_to_the_device_as_the_file_takes_them(make_artifact, weight, gpu, monkeypatch):
    sent = []
    session_class = device_sessions.OnnxDeviceSession
    original = session_class._on_device
    monkeypatch.setattr(
        session_class, "_on_device", lambda session, stored: sent.append(stored) or original(session, stored)
    )
    pixels = np.random.default_rng(0).integers(0, 256, (2, 6, 5, 3), dtype=np.uint8)
    with session_of(gpu, write_for_pixels(make_artifact, weight)) as session:
        assert isinstance(session, DeviceSession)
        np.testing.assert_allclose(session.infer(pixels), expected(pixels, weight), rtol=1e-5, atol=1e-3)
    images = np.random.default_rng(1).standard_normal((2, 6, 5, 3)).astype(np.float32)
    half = make_artifact("onnx", dtype="float16")
    write_model(half, weight.astype(np.float16), dtype=TensorProto.FLOAT16, output_dtype=TensorProto.FLOAT16)
    with session_of(gpu, half) as session:
        outputs = session.infer(images)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, expected(images, weight), rtol=1e-2, atol=0.1)
    assert [each.dtype for each in sent] == [np.uint8, np.float16]
