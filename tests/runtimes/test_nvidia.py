"""What of NVIDIA is here is told from the driver, the files and the packages, without importing an engine."""

from __future__ import annotations

import pytest

from tests import fake_gpu
from vit_deploy.core.gpu import Gpu
from vit_deploy.exporters.tensorrt.export import compute_capabilities
from vit_deploy.runtimes import nvidia
from vit_deploy.runtimes.packages import Package

ORT = {"onnxruntime-gpu": Package("onnxruntime-gpu", "1.31.1")}


def no_driver():
    raise OSError("libcuda.so.1")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.setattr(nvidia.importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize(
    ("capability", "there"),
    [
        ("7.0", False),
        ("7.5", True),
        ("8.0", True),
        ("8.7", True),
        ("8.9", True),
        ("9.0", True),
        ("10.0", False),
        ("12.0", True),
        ("12.1", False),
    ],
)
def test_a_wheel_has_machine_code_for_some_generations_and_nothing_for_others(capability, there):
    code = nvidia.machine_code(ORT, "x86_64")
    assert code is not None
    assert nvidia.covered(capability, code) is there


def test_what_another_wheel_has_is_not_known():
    assert nvidia.machine_code({}, "x86_64") is None
    assert nvidia.machine_code(ORT, "aarch64") is None
    assert nvidia.machine_code({"onnxruntime-gpu": Package("onnxruntime-gpu", "1.26.0")}, "x86_64") is None


def test_gpus_are_told_with_what_runs_on_them(tmp_path, monkeypatch):
    v100 = {"name": "Tesla V100", "bus_id": "0000:3a:00.0", "capability": (7, 0), "memory": 16_000_000_000}
    fake_gpu.install(monkeypatch, fake_gpu.FakeNvml())
    monkeypatch.setattr(nvidia.platform, "machine", lambda: "x86_64")
    found = nvidia.look(ORT, root=tmp_path, load=lambda: fake_gpu.FakeDriver(fake_gpu.H100, v100))
    assert found.has_driver
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA H100 80GB HBM3", "Tesla V100"]
    assert [found.runs_on(gpu) for gpu in found.gpus] == [True, False]
    assert found.runs_on(Gpu("?")) is None
    said = found.to_dict()
    assert said["gpus"][0]["driver"] == "580.65.06" and said["gpus"][0]["cuda"] == "13.0"
    assert said["gpus"][0]["machine_code"] is True and said["gpus"][1]["machine_code"] is False
    assert said["gpus"][0]["tensorrt_rtx"] is None, "there is none"
    assert said["machine_code"] == ["7.5", "8.0", "8.6", "8.9", "9.0", "12.0"]


def test_without_a_driver_there_are_no_gpus(tmp_path):
    found = nvidia.look({}, root=tmp_path, load=no_driver)
    assert not found.has_driver and found.gpus == () and found.machine_code is None
    assert not found.tensorrt.fits_onnx_runtime and found.nvidia_ml_py is None


def test_tensorrt_is_found_as_a_library_and_as_packages(tmp_path):
    folder = tmp_path / "usr/lib/x86_64-linux-gnu"
    folder.mkdir(parents=True)
    (folder / "libnvinfer.so.10.16.1").write_bytes(b"")
    (folder / "libnvinfer.so.10").symlink_to("libnvinfer.so.10.16.1")
    (folder / "libnvinfer.so.11").write_bytes(b"")
    (folder / "libnvinfer_plugin.so.10").write_bytes(b"")
    packages = {name: Package(name, "10.16.1") for name in ("tensorrt-cu13", "tensorrt-rtx")}
    found = nvidia.look({**ORT, **packages}, root=tmp_path, load=no_driver).tensorrt
    assert set(found.libraries) == {"10.16.1", "11"}
    assert found.packages == {"tensorrt-cu13": "10.16.1", "tensorrt-rtx": "10.16.1"}
    assert found.required == 10 and found.fits_onnx_runtime


def test_tensorrt_for_rtx_is_none_that_onnx_runtime_could_use(tmp_path):
    rtx = {"tensorrt-rtx": Package("tensorrt-rtx", "1.7.1")}
    assert not nvidia.look(rtx, root=tmp_path, load=no_driver).tensorrt.fits_onnx_runtime


@pytest.mark.parametrize(
    ("version", "runtime", "fits"),
    [("11.4.0", "1.31.1", False), ("10.13.3", "1.31.1", True), ("11.4.0", "1.99.0", True)],
)
def test_a_tensorrt_of_another_major_version_is_none_that_onnx_runtime_could_use(version, runtime, fits, tmp_path):
    here = {name: Package(name, each) for name, each in (("tensorrt", version), ("onnxruntime-gpu", runtime))}
    assert nvidia.look(here, root=tmp_path, load=no_driver).tensorrt.fits_onnx_runtime is fits


@pytest.mark.parametrize(
    ("capability", "version", "known"),
    [
        ("9.0", "1.7.1", False),
        ("8.6", "1.7.1", True),
        ("9.0", "1.99.0", None),
        ("9.0", None, None),
        (None, "1.7", None),
    ],
)
def test_tensorrt_for_rtx_knows_some_gpus(capability, version, known, tmp_path):
    here = {} if version is None else {"tensorrt-rtx": Package("tensorrt-rtx", version)}
    found = nvidia.look(here, root=tmp_path, load=no_driver).tensorrt
    assert found.rtx_runs_on(Gpu("?", compute_capability=capability)) is known


def test_the_gpus_of_the_installed_tensorrt_for_rtx_are_those_of_the_table():
    rtx = pytest.importorskip("tensorrt_rtx")
    assert nvidia.RTX_GPUS[".".join(rtx.__version__.split(".")[:2])] == compute_capabilities(rtx)
