"""Sessions of TensorRT's provider, whose engine is built once for a GPU, apart from loading it, and kept.

ONNX Runtime is not imported: `ort.gpus` opens the sessions.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.cache import cache_folder
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.manifest import sha256
from vit_deploy.errors import EngineError
from vit_deploy.formats.onnx.file import external_locations
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.cuda.card import open_card
from vit_deploy.runtimes.ort.rounding import rounds
from vit_deploy.runtimes.values import blank_images

if TYPE_CHECKING:
    from vit_deploy.runtimes.ort.device_sessions import OnnxDeviceSession

LEAST = 8  # images a call that an engine for any batch takes at the least
ENGINES = "*.engine"
# The networks that the provider builds are weakly typed: they have the types of the file only where a flag allows them.
FLAGS: dict[str, dict[str, str]] = {
    "fp16": {"trt_fp16_enable": "1", "trt_layer_norm_fp32_fallback": "1"},
    "bf16": {"trt_bf16_enable": "1", "trt_layer_norm_fp32_fallback": "1"},
    "int8-static": {"trt_int8_enable": "1"},
}
MAJORS = range(10, 7, -1)  # of TensorRT, that ONNX Runtime was ever built with

Opener = Callable[[Mapping[str, str], "int | None"], "AbstractContextManager[OnnxDeviceSession]"]
"""Opens a session, given more options of the provider and the most images that its engine takes in a call."""

IN_PARTS = (
    "TensorRT takes the model in parts, so it builds engines again where a batch is larger or smaller than before"
)


@contextlib.contextmanager
def opened_with_engine(
    artifact: Artifact, options: RuntimeOptions, version: str, opener: Opener
) -> Iterator[OnnxDeviceSession]:
    """A session whose engine is built before, in a session of its own, where none is kept.

    Args:
        artifact: the artifact to load.
        options: the requested options.
        version: the version of ONNX Runtime.
        opener: opens a session.
    """
    flags = FLAGS.get(artifact.precision, {})
    facts = {**facts_of(options.device), "onnxruntime": version, "flags": flags, "tf32": rounds()}
    facts["graph"] = options.cuda_graph
    requested = range_of(artifact.input, options.largest_batch)
    spans = [requested] if requested is None else [requested, None]
    caches = {span: cache_of(artifact, {**facts, "range": span and [span.most, span.usual]}) for span in spans}
    with contextlib.ExitStack() as stack:
        notes: tuple[str, ...] = ()
        build_ns = 0
        if filled := [span for span in spans if caches[span].filled]:
            span, folder = filled[0], caches[filled[0]].folder
        else:
            start = time.perf_counter_ns()
            span, folder, notes = _built(artifact, options, caches, flags, opener, stack)
            build_ns = time.perf_counter_ns() - start
        session = stack.enter_context(_opened(artifact, caches[span], folder, span, flags, opener))
        session.build_ns = build_ns
        if span is None and artifact.input.batch is None:
            notes = (*notes, IN_PARTS)
        session.notes = (*session.notes, *notes)
        yield session


def _built(
    artifact: Artifact,
    options: RuntimeOptions,
    caches: Mapping[Range | None, EngineCache],
    flags: Mapping[str, str],
    opener: Opener,
    stack: contextlib.ExitStack,
) -> tuple[Range | None, Path, tuple[str, ...]]:
    """For which batches engines were built, where they lie, and what there is to say of it."""
    for span, cache in caches.items():
        folder, notes = _new_folder(cache)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        try:
            with _opened(artifact, cache, folder, span, flags, opener) as session:
                session.infer(blank_images(artifact, options.largest_batch))
        except EngineError as error:
            # Shapes are given for the input of the model alone, which is too few where it is taken in parts.
            if span is None or "profile" not in f"{error} {error.__cause__}".lower():
                raise
        else:
            return span, folder if notes else cache.keep(folder), notes
    raise AssertionError("the last of the ranges returns or raises")


def _new_folder(cache: EngineCache) -> tuple[Path, tuple[str, ...]]:
    try:
        return cache.new_folder(), ()
    except OSError as error:
        folder = Path(tempfile.mkdtemp(prefix="vit-deploy-engines-"))
        return folder, (f"the engine is built at each start, for {cache.folder.parent} cannot be written: {error}",)


@contextlib.contextmanager
def _opened(
    artifact: Artifact, cache: EngineCache, folder: Path, span: Range | None, flags: Mapping[str, str], opener: Opener
) -> Iterator[OnnxDeviceSession]:
    shapes = {} if span is None else span.shapes(artifact.input)
    with opener({**flags, **cache.options(folder), **shapes}, None if span is None else span.most) as session:
        yield session


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
        largest_batch: the largest that is going to be requested.
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
