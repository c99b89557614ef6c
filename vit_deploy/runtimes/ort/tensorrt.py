"""What TensorRT's provider is given: flags, batches, and where it keeps engines. ONNX Runtime is not imported."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact, InputSpec
from vit_deploy.core.cache import cache_folder
from vit_deploy.core.manifest import sha256
from vit_deploy.formats.onnx.file import external_locations
from vit_deploy.runtimes.cuda.card import open_card

LEAST = 8  # images a call that an engine for any batch takes at the least
ENGINES = "*.engine"
# The networks that the provider builds are weakly typed: they have the types of the file only where a flag allows them.
FLAGS: dict[str, dict[str, str]] = {
    "fp16": {"trt_fp16_enable": "1", "trt_layer_norm_fp32_fallback": "1"},
    "bf16": {"trt_bf16_enable": "1", "trt_layer_norm_fp32_fallback": "1"},
    "int8-static": {"trt_int8_enable": "1"},
}
MAJORS = range(10, 7, -1)  # of TensorRT, that ONNX Runtime was ever built with


@dataclass(frozen=True)
class Range:
    """The batches that an engine is built for.

    Args:
        most: images of a call.
        usual: that it is tuned for.
    """

    most: int
    usual: int

    def shapes(self, spec: InputSpec) -> dict[str, str]:
        """The shapes as options of the provider."""
        sides = "x".join(str(side) for side in spec.shape[1:])
        return {
            f"trt_profile_{name}_shapes": f"{spec.name}:{batch}x{sides}"
            for name, batch in (("min", 1), ("opt", self.usual), ("max", self.most))
        }


def range_of(spec: InputSpec, largest_batch: int | None) -> Range | None:
    """What to build for; None where the file says it.

    Args:
        spec: the spec of the input.
        largest_batch: that is going to be asked for.
    """
    if spec.batch is not None or None in spec.shape[1:]:
        return None
    most = max(largest_batch or 0, LEAST)
    return Range(most, largest_batch or most)


@dataclass(frozen=True)
class EngineCache:
    """Where the engines of one model, GPU and set of options are kept.

    Args:
        folder: theirs alone.
        timing: the file of TensorRT's kernel timings, for all models of a GPU.
    """

    folder: Path
    timing: Path

    @property
    def filled(self) -> bool:
        """Whether engines are there."""
        return any(self.folder.glob(ENGINES))

    def options(self, folder: Path) -> dict[str, str]:
        """Options with which the provider keeps its engines in a folder."""
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(self.timing),
        }

    def new_folder(self) -> Path:
        """A folder to build engines in, beside the one where they are kept.

        Raises:
            OSError: nothing can be written there.
        """
        self.timing.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(dir=self.folder.parent, prefix=".building-"))

    def keep(self, built: Path) -> Path:
        """Move the folder that engines were built in to where they are kept; returns where they lie now."""
        if any(built.glob(ENGINES)):
            with contextlib.suppress(OSError):  # another process has been faster, with the same engines
                built.rename(self.folder)
        return self.folder if self.filled else built


def cache_of(artifact: Artifact, facts: Mapping[str, Any], root: Path | None = None) -> EngineCache:
    """Where the engines of an artifact are kept.

    Args:
        artifact: whose model they run.
        facts: all else that they depend on, as JSON values; "gpu" and "tensorrt" are those of timings too.
        root: the root of all caches; None for the user's.
    """
    home = (cache_folder() if root is None else root) / "ort-tensorrt"
    timings = {name: facts.get(name) for name in ("gpu", "tensorrt")}
    return EngineCache(home / _digest({**facts, "model": model_digests(artifact)}), home / f"timing-{_digest(timings)}")


def model_digests(artifact: Artifact) -> dict[str, str]:
    """SHA-256 of the model file and of those with its weights: as recorded, or computed where it is not."""
    names = [artifact.model_path.name, *sorted(external_locations(artifact.model_path))]
    return {
        name: artifact.files[name][0] if name in artifact.files else sha256(artifact.model_path.parent / name)
        for name in names
    }


def facts_of(device: int) -> dict[str, Any]:
    """What engines depend on besides the model: the GPU, its driver and TensorRT, as far as it is told."""
    card = open_card(device)
    gpu = None if card is None else card.facts
    return {
        "gpu": None if gpu is None else [gpu.name, gpu.compute_capability, gpu.memory_mb],
        "driver": None if gpu is None else [gpu.driver, gpu.cuda],
        "tensorrt": tensorrt_version(),
    }


def tensorrt_version(load: Callable[[str], Any] = ctypes.CDLL) -> int | None:
    """The version of the library that is or would be loaded, as `getInferLibVersion` counts; None if there is none."""
    for major in MAJORS:
        with contextlib.suppress(OSError, AttributeError):
            name = f"nvinfer_{major}.dll" if sys.platform == "win32" else f"libnvinfer.so.{major}"
            return int(load(name).getInferLibVersion())
    return None


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:32]
