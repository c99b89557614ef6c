"""Memory, streams and graphs of a GPU: with a stand-in for the driver, and on a real GPU where there is one."""

from __future__ import annotations

import ctypes
import shutil

import numpy as np
import pytest

from tests.runtimes.fake_cuda import FakeCuda
from vit_deploy.errors import EngineError
from vit_deploy.runtimes.cuda import card, memory
from vit_deploy.runtimes.cuda.driver import FUNCTIONS
from vit_deploy.runtimes.cuda.memory import find_gpu, open_device

needs_gpu = pytest.mark.skipif(shutil.which("nvidia-smi") is None, reason="needs an NVIDIA GPU")


@pytest.fixture(params=["stand-in", pytest.param("real", marks=[pytest.mark.gpu, needs_gpu])])
def driver(request, monkeypatch):
    """What stands in for the driver; None for the real one."""
    if request.param == "real":
        return None
    fake = FakeCuda()
    monkeypatch.setattr(memory, "open_library", lambda: fake)
    return fake


def numbers(count=1000):
    return np.random.default_rng(3).standard_normal(count).astype(np.float32)


def test_what_is_uploaded_comes_back(driver):
    values, back = numbers(), np.zeros(1000, np.float32)
    with open_device() as device:
        stream, buffer = device.stream(), device.allocate(values.nbytes)
        stream.upload(values, buffer)
        stream.download(buffer, back)
        stream.wait()
    assert np.array_equal(values, back)


def test_a_recorded_graph_is_done_when_it_is_launched_and_not_before(driver):
    first, second, back = numbers(), -numbers(), np.zeros(1000, np.float32)
    with open_device() as device:
        stream = device.stream()
        source, target = device.allocate(first.nbytes), device.allocate(first.nbytes)
        stream.upload(first, source)
        stream.upload(second, target)
        stream.wait()
        with stream.capturing() as capture:
            stream.copy(source, target)
        stream.download(target, back)
        stream.wait()
        assert np.array_equal(back, second) and capture.graph is not None
        capture.graph.launch(stream)
        stream.download(target, back)
        stream.wait()
        assert np.array_equal(back, first)
        stream.upload(second, source)
        capture.graph.launch(stream)
        stream.download(target, back)
        stream.wait()
        assert np.array_equal(back, second)
        capture.graph.close()


def test_what_fails_while_it_is_recorded_ends_the_recording_and_is_told(driver):
    with open_device() as device:
        stream = device.stream()
        with pytest.raises(ValueError, match="as planned"), stream.capturing():
            raise ValueError("as planned")
        stream.wait()  # which a stream that still records refuses


def test_events_tell_the_time_between_them(driver):
    values = numbers(100_000)
    with open_device() as device:
        stream, buffer = device.stream(), device.allocate(values.nbytes)
        before = stream.event()
        stream.upload(values, buffer)
        after = stream.event()
        stream.wait()
        assert after.ms_since(before) > 0
        before.close()
        after.close()


def test_a_gpu_says_what_it_is(driver):
    gpu = find_gpu()
    major, _, minor = gpu.compute_capability.partition(".")
    assert gpu.name.startswith("NVIDIA") and major.isdigit() and minor.isdigit() and float(gpu.cuda) >= 11
    if driver is not None:
        assert str(gpu) == "NVIDIA Test 9000 (compute capability 9.0)" and gpu.cuda == "13.0"


def test_a_gpu_that_there_is_not_is_refused(driver):
    with pytest.raises(EngineError, match="there is no GPU 99: this process sees"):
        find_gpu(99)


def test_too_much_memory_is_told_as_that_and_what_was_had_is_given_back(driver):
    with pytest.raises(EngineError) as caught, open_device() as device:
        device.allocate(1 << 10)
        device.allocate(1 << 50)
    assert caught.value.message.startswith("out of GPU memory: cuMemAlloc_v2 failed with CUDA_ERROR_OUT_OF_MEMORY")
    assert caught.value.fix.startswith("take a smaller batch")
    if driver is not None:
        assert not driver.allocated and driver.retained == driver.current == 0


def test_other_errors_are_told_by_their_names(monkeypatch):
    fake = FakeCuda()
    monkeypatch.setattr(memory, "open_library", lambda: fake)
    fake.failing["cuStreamCreate"] = 304
    with (
        pytest.raises(EngineError, match="cuStreamCreate failed with CUDA_ERROR_OTHER: as asked"),
        open_device() as one,
    ):
        one.stream()
    assert fake.retained == 0


def test_no_gpu_and_no_driver_are_told_apart(monkeypatch):
    monkeypatch.setattr(memory, "open_library", lambda: FakeCuda(gpus=()))
    with pytest.raises(EngineError, match="there is no NVIDIA GPU: cuInit failed with CUDA_ERROR_NO_DEVICE"):
        find_gpu()
    monkeypatch.undo()
    monkeypatch.setattr(card, "LIBRARY", "libcuda-of-nobody.so.1")
    with pytest.raises(EngineError, match=r"there is no NVIDIA driver that can be used here: libcuda-of-nobody"):
        find_gpu()


def test_a_library_that_lacks_a_function_is_told_as_too_old(monkeypatch):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: ctypes.pythonapi)
    with pytest.raises(EngineError, match="cuInit"):
        find_gpu()


def test_the_stand_in_has_every_function_that_is_called():
    fake = FakeCuda()
    assert all(callable(getattr(fake, name)) for name in FUNCTIONS)
