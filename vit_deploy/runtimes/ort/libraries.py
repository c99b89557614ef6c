"""CUDA's and TensorRT's libraries, found where pip puts them and loaded before ONNX Runtime asks for them.

ONNX Runtime is passed in: this file imports no engine.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import importlib.util
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDERS = ("lib", "bin", "bin/x86_64")  # of a package of NVIDIA's, on Linux and on Windows
TENSORRT = ("nvinfer", "nvinfer_plugin", "nvonnxparser")  # in the order in which they need each other
TENSORRT_PACKAGE = "tensorrt_libs"
# Packages that bring CUDA to an ONNX Runtime that was built without; each tells where its library is.
PLUGINS = ("onnxruntime_ep_cuda13", "onnxruntime_ep_cuda12")


def load_libraries(ort: Any, provider: str) -> str:
    """Load what a provider needs of what pip installed; libraries at the system's own places are found without.

    Args:
        ort: ONNX Runtime.
        provider: "cuda" or "tensorrt".

    Returns:
        What was said of libraries that are still missing; a provider may well do without some.
    """
    said = _preloaded(ort)
    if said:  # it looks only beside its own package, and environments can lie over each other
        for folder in nvidia_folders():
            of_cudnn = folder.parent.name == "cudnn"
            _preloaded(ort, cuda=not of_cudnn, cudnn=of_cudnn, directory=str(folder))
        said = _preloaded(ort)
    if provider == "tensorrt":
        load_tensorrt()
    return said


def nvidia_folders() -> list[Path]:
    """Folders of NVIDIA's packages with libraries in them, on all import paths."""
    roots = dict.fromkeys(Path(entry or ".") / "nvidia" for entry in sys.path)
    packages = [package for root in roots if root.is_dir() for package in sorted(root.iterdir())]
    return [package / name for package in packages for name in FOLDERS if (package / name).is_dir()]


def tensorrt_folder() -> Path | None:
    """Where pip put TensorRT's libraries; None without them."""
    found = importlib.util.find_spec(TENSORRT_PACKAGE)
    places = found.submodule_search_locations if found is not None else None
    return Path(places[0]) if places else None


def load_tensorrt() -> None:
    """Load TensorRT's libraries, if pip has installed them; ONNX Runtime finds them by name from then on."""
    folder = tensorrt_folder()
    if folder is None:
        return
    for name in TENSORRT:
        for path in [*sorted(folder.glob(f"lib{name}.so.*")), *sorted(folder.glob(f"{name}_*.dll"))]:
            with contextlib.suppress(OSError):  # ONNX Runtime's own attempt says which library lacks what
                ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def register_plugins(ort: Any, provider: str) -> None:
    """Make CUDA known to an ONNX Runtime that gets it from a package of its own.

    Args:
        ort: ONNX Runtime.
        provider: its full name.
    """
    if not hasattr(ort, "register_execution_provider_library") or provider in names_of_devices(ort):
        return
    for name in PLUGINS:
        if importlib.util.find_spec(name) is not None:
            package = importlib.import_module(name)
            ort.register_execution_provider_library(provider, package.get_library_path())
            return


def names_of_devices(ort: Any) -> set[str]:
    """The providers that were registered as packages of their own."""
    listed = getattr(ort, "get_ep_devices", list)
    return {device.ep_name for device in listed()}


def _preloaded(ort: Any, **where: Any) -> str:
    """What ONNX Runtime prints of libraries that it does not find."""
    if not hasattr(ort, "preload_dlls"):
        return ""
    with _printed() as printed:
        ort.preload_dlls(**where)
    return printed.getvalue().strip()


@contextlib.contextmanager
def _printed() -> Iterator[io.StringIO]:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        yield printed
