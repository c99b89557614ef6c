"""Where the libraries of CUDA and TensorRT are looked for, by an ONNX Runtime that only pretends to load them."""

from __future__ import annotations

import ctypes
import sys
from types import ModuleType, SimpleNamespace

import pytest

from vit_deploy.runtimes.ort import libraries
from vit_deploy.runtimes.ort.libraries import load_libraries, names_of_devices, nvidia_folders, register_plugins

CUDA = "CUDAExecutionProvider"


@pytest.fixture
def paths(tmp_path, monkeypatch):
    """Import paths that are the test's alone."""
    monkeypatch.setattr(sys, "path", [str(tmp_path / "env"), str(tmp_path / "system")])
    return tmp_path


def folder(path):
    path.mkdir(parents=True)
    return path


def test_folders_of_nvidias_packages_are_found_on_every_import_path(paths):
    cublas = folder(paths / "system/nvidia/cu13/lib")
    cudnn = folder(paths / "env/nvidia/cudnn/lib")
    folder(paths / "system/nvidia/cu13/include")
    assert nvidia_folders() == [cudnn, cublas]


def test_libraries_that_are_not_beside_onnx_runtime_are_loaded_from_where_they_are(paths, capsys):
    cuda, cudnn = folder(paths / "system/nvidia/cu13/lib"), folder(paths / "system/nvidia/cudnn/lib")
    asked = []

    def preload_dlls(**where):
        asked.append(where)
        if len(asked) == 1:
            print("Failed to load libcublasLt.so.13")

    assert load_libraries(SimpleNamespace(preload_dlls=preload_dlls), "cuda") == ""
    assert asked == [
        {},
        {"cuda": True, "cudnn": False, "directory": str(cuda)},
        {"cuda": False, "cudnn": True, "directory": str(cudnn)},
        {},
    ]
    assert capsys.readouterr() == ("", "")


def test_what_is_missing_is_told_and_not_printed(paths, capsys):
    engine = SimpleNamespace(preload_dlls=lambda **where: print("Failed to load libcublasLt.so.13"))
    assert load_libraries(engine, "cuda") == "Failed to load libcublasLt.so.13"
    assert capsys.readouterr() == ("", "")


def test_libraries_that_are_beside_it_are_asked_for_once(paths):
    folder(paths / "env/nvidia/cu13/lib")
    asked = []
    load_libraries(SimpleNamespace(preload_dlls=lambda **where: asked.append(where)), "cuda")
    assert asked == [{}]


def test_tensorrts_libraries_are_loaded_in_the_order_in_which_they_need_each_other(paths, monkeypatch):
    package = folder(paths / "env/tensorrt_libs")
    (package / "__init__.py").touch()
    for name in ("libnvonnxparser.so.10", "libnvinfer.so.10", "libnvinfer_plugin.so.10", "libnvinfer_builder.so"):
        (package / name).touch()
    loaded = []
    monkeypatch.setattr(ctypes, "CDLL", lambda path, mode: loaded.append(path))
    engine = SimpleNamespace(preload_dlls=lambda **where: None)
    load_libraries(engine, "cuda")
    assert loaded == []
    load_libraries(engine, "tensorrt")
    assert loaded == [str(package / f"lib{name}.so.10") for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser")]


def test_without_tensorrts_package_the_systems_own_is_left_to_be_found(paths):
    load_libraries(SimpleNamespace(preload_dlls=lambda **where: None), "tensorrt")


def test_a_package_that_brings_cuda_is_registered_once(paths, monkeypatch):
    package = ModuleType("onnxruntime_ep_cuda13")
    package.__spec__ = SimpleNamespace()
    package.get_library_path = lambda: "/there/provider.so"
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_cuda13", package)
    devices = []
    engine = SimpleNamespace(
        get_ep_devices=lambda: devices,
        register_execution_provider_library=lambda name, path: devices.append(SimpleNamespace(ep_name=name, path=path)),
    )
    for _ in range(2):
        register_plugins(engine, CUDA)
    assert [(device.ep_name, device.path) for device in devices] == [(CUDA, "/there/provider.so")]
    assert names_of_devices(engine) == {CUDA}


def test_an_onnx_runtime_that_knows_no_packages_of_providers_is_left_alone(monkeypatch):
    monkeypatch.setattr(libraries, "PLUGINS", ("json",))
    register_plugins(SimpleNamespace(), CUDA)
    assert names_of_devices(SimpleNamespace()) == set()
