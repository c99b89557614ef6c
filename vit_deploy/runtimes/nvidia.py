"""What of NVIDIA is here: GPUs, the CUDA that the driver serves, TensorRT, and what ONNX Runtime was built for."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core.gpu import Gpu
from vit_deploy.runtimes.cuda.card import PACKAGE, count_devices, load_driver, open_card
from vit_deploy.runtimes.packages import Installed

ONNX_RUNTIME = "onnxruntime-gpu"
# Where systems and containers keep libraries that no wheel brought.
SYSTEM = (
    "usr/lib/x86_64-linux-gnu",
    "usr/lib/aarch64-linux-gnu",
    "usr/lib64",
    "usr/local/lib",
    "usr/local/tensorrt/lib",
    "opt/tensorrt/lib",
)
TENSORRT_WHEEL = "tensorrt_libs"
RTX = "tensorrt-rtx"  # which ONNX Runtime's provider has nothing to do with
TENSORRT_PACKAGES = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13", RTX)
TENSORRT_MAJOR: Mapping[str, int] = {"1.31": 10}
"""The TensorRT that the provider of a version of onnxruntime-gpu was linked with, by major and minor version."""

# Code for only one generation (its name ends with "a") runs on no other; else it runs on later minor versions too.
EXACT = frozenset(((9, 0), (12, 0)))
MACHINE_CODE: Mapping[tuple[str, str], tuple[tuple[int, int], ...]] = {
    ("1.31", "x86_64"): ((7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)),
}
"""Compute capabilities that a wheel of onnxruntime-gpu has machine code for, by version and processor.

Read out of the wheels on PyPI. There is no PTX in them, which a driver could translate for others.
"""

RTX_GPUS: Mapping[str, tuple[str, ...]] = {"1.7": ("7.5", "8.0", "8.6", "8.9", "12.0", "12.1")}
"""Compute capabilities that a TensorRT for RTX builds and runs plans for, by major and minor version."""


@dataclass(frozen=True)
class TensorRT:
    """TensorRT as it was found.

    Args:
        libraries: version of each `libnvinfer` to its place.
        packages: versions of Python packages.
        required: the major version that the installed ONNX Runtime asks for; None where that is not known.
    """

    libraries: Mapping[str, str]
    packages: Mapping[str, str]
    required: int | None

    @property
    def fits_onnx_runtime(self) -> bool:
        """Whether there is one that the installed ONNX Runtime asks for, so that its provider is expected to work.

        Others are no mistake: plans are made and run by TensorRT itself, of any version.
        """
        versions = [*self.libraries, *(self.packages[name] for name in self.packages if name != RTX)]
        return any(self.required in (None, int(version.split(".")[0])) for version in versions)

    def rtx_runs_on(self, gpu: Gpu) -> bool | None:
        """Whether the installed TensorRT for RTX knows a GPU; None where there is none, or it cannot be told."""
        known = RTX_GPUS.get(_series_of(self.packages.get(RTX, "")))
        return None if known is None or gpu.compute_capability is None else gpu.compute_capability in known

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"libnvinfer": dict(self.libraries), "packages": dict(self.packages), "wanted_major": self.required}


@dataclass(frozen=True)
class Nvidia:
    """What was found.

    Args:
        has_driver: whether CUDA's driver library is there.
        gpus: that this process sees, in CUDA's order.
        machine_code: of the installed onnxruntime-gpu, as compute capabilities; None where it is not known.
        tensorrt: what was found of TensorRT.
        nvidia_ml_py: the version of nvidia-ml-py; None where it is missing.
    """

    has_driver: bool
    gpus: tuple[Gpu, ...]
    machine_code: tuple[tuple[int, int], ...] | None
    tensorrt: TensorRT
    nvidia_ml_py: str | None

    def runs_on(self, gpu: Gpu) -> bool | None:
        """Whether the installed onnxruntime-gpu has machine code for a GPU; None where it cannot be told."""
        if self.machine_code is None or gpu.compute_capability is None:
            return None
        return covered(gpu.compute_capability, self.machine_code)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        facts = ("name", "uuid", "driver", "cuda", "compute_capability", "memory_mb", "mig", "compute_mode")
        return {
            "driver": self.has_driver,
            "gpus": [
                {
                    **{name: getattr(gpu, name) for name in facts},
                    "machine_code": self.runs_on(gpu),
                    "tensorrt_rtx": self.tensorrt.rtx_runs_on(gpu),
                }
                for gpu in self.gpus
            ],
            "machine_code": None if self.machine_code is None else [f"{a}.{b}" for a, b in self.machine_code],
            "tensorrt": self.tensorrt.to_dict(),
            "nvidia_ml_py": self.nvidia_ml_py,
        }


def look(here: Installed, *, root: Path = Path("/"), load: Callable[[], Any] = load_driver) -> Nvidia:
    """Ask the driver, and look at what is installed; no engine is imported.

    Args:
        here: the installed distributions.
        root: the root of the file system.
        load: gives CUDA's driver library, or raises OSError.
    """
    try:
        load()
    except OSError:
        has_driver = False
    else:
        has_driver = True
    cards = [open_card(index, load) for index in range(count_devices(load))]
    ml_py = here.get(PACKAGE)
    return Nvidia(
        has_driver=has_driver,
        gpus=tuple(card.facts for card in cards if card is not None),
        machine_code=machine_code(here, platform.machine()),
        tensorrt=TensorRT(
            libraries_of_tensorrt(root),
            {name: here[name].version for name in TENSORRT_PACKAGES if name in here},
            TENSORRT_MAJOR.get(_series(here)),
        ),
        nvidia_ml_py=ml_py.version if ml_py is not None else None,
    )


def machine_code(here: Installed, machine: str) -> tuple[tuple[int, int], ...] | None:
    """What the installed onnxruntime-gpu has machine code for; None where it is missing or its list is not known."""
    return MACHINE_CODE.get((_series(here), machine))


def covered(compute_capability: str, code: Iterable[tuple[int, int]]) -> bool:
    """Whether machine code runs on a GPU.

    Args:
        compute_capability: the compute capability of the GPU, as "8.6".
        code: capabilities that it was made for.
    """
    major, minor = (int(part) for part in compute_capability.split("."))
    return any(
        (major, minor) == target or (target not in EXACT and target[0] == major and target[1] <= minor)
        for target in code
    )


def libraries_of_tensorrt(root: Path = Path("/")) -> dict[str, str]:
    """Version of each libnvinfer that pip or the system has installed, to its place; nothing is loaded."""
    wheel = importlib.util.find_spec(TENSORRT_WHEEL)
    folders = [Path(location) for location in (wheel.submodule_search_locations or ())] if wheel is not None else []
    folders += [Path(folder) for folder in os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep) if folder]
    folders += [root / folder for folder in SYSTEM]
    found: dict[str, str] = {}
    for folder in folders:
        # The longest name of those that link to one another is the file itself.
        for path in sorted(folder.glob("libnvinfer.so.*"), key=lambda path: -len(path.name)):
            version = path.name.removeprefix("libnvinfer.so.")
            if re.fullmatch(r"[\d.]+", version) and not any(name.startswith(f"{version}.") for name in found):
                found.setdefault(version, str(path))
    return found


def _series(here: Installed) -> str:
    """Major and minor version of onnxruntime-gpu, empty where it is missing."""
    package = here.get(ONNX_RUNTIME)
    return _series_of(package.version) if package is not None else ""


def _series_of(version: str) -> str:
    return ".".join(version.split(".")[:2])
