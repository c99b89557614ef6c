"""Times of LiteRT's operators with XNNPACK, by its own profiler.

LiteRT's Python package offers no profiler: neither `Interpreter` nor `CompiledModel` has one, and its command
`litert-benchmark` times whole calls. But the library that it brings exports LiteRT's C interface, which has one
(`LiteRtCompiledModelGetProfiler`); that is called here. Its functions and its layout of an event are those of version
2.3 (`litert/c` in LiteRT's sources).
"""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Callable, Iterator
from ctypes import byref, c_char_p, c_int, c_size_t, c_void_p
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ai_edge_litert
import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.errors import EngineError
from vit_deploy.runtimes.batching import groups
from vit_deploy.runtimes.values import as_stored, checked_images

FIRST_VERSION = (2, 3)  # with these functions
CPU = 1
WRITE = 1
RANKED_TYPE_BYTES = 256  # more than the 72 that one takes
OWN_KERNEL, DELEGATE_KERNEL, DELEGATE_OPERATOR = 2, 4, 8  # events that are an operator's work
GUARD = 0xA5


class _Event(ctypes.Structure):
    _fields_ = (
        ("name", c_char_p),
        ("kind", c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),  # before and after
        ("metadata", ctypes.c_uint64 * 2),
        ("source", c_int),
    )


class LiteRTProfiler:
    """LiteRT's profiler, which counts whole microseconds: what takes less than one is taken for nothing."""

    def times(
        self, artifact: Artifact, images: NDArray[Any], *, threads: int | None, warmup: int, calls: int
    ) -> list[list[tuple[str, float]]]:
        """Type and milliseconds of each operator that ran, for each call; see `profilers.Profiler`."""
        parts = [
            as_stored(part, artifact.input) for part in groups(checked_images(images, artifact), artifact.input.batch)
        ]
        with _loaded(artifact.model_path, threads) as run:
            events = [[event for part in parts for event in run(part)] for _ in range(warmup + calls)]
        return events[warmup:]


class _Library:
    """LiteRT's C interface, in which everything but what destroys returns a status."""

    def __init__(self) -> None:
        found = version("ai-edge-litert")
        files = [path for path in Path(ai_edge_litert.__file__).parent.glob("libLiteRt.*") if path.suffix != ".lib"]
        if tuple(map(int, re.findall(r"\d+", found)[:2])) < FIRST_VERSION or not files:
            raise EngineError(
                f"ai-edge-litert {found} gives no access to LiteRT's profiler",
                fix=f'pip install "ai-edge-litert>={".".join(map(str, FIRST_VERSION))}"',
            )
        self._library, self._doing = ctypes.CDLL(str(files[0])), f"LiteRT {found} cannot profile"

    def __call__(self, name: str, *arguments: Any) -> None:
        function = self._function(name)
        function.restype = c_int
        if status := function(*arguments):
            raise EngineError(
                f"{self._doing}: {name} answers with status {status}",
                fix="export the model again, or leave --profile out",
            )

    def made(self, name: str, *arguments: Any) -> c_void_p:
        """What a function gives as its last argument."""
        result = c_void_p()
        self(name, *arguments, byref(result))
        return result

    def destroy(self, name: str, handle: c_void_p) -> None:
        function = self._function(name)
        function.restype = None
        function(handle)

    def _function(self, name: str) -> Any:
        try:
            return getattr(self._library, name)
        except AttributeError as error:
            raise EngineError(f"{self._doing}: it has no {name}", fix="leave --profile out") from error


Run = Callable[[NDArray[Any]], list[tuple[str, float]]]


@contextlib.contextmanager
def _loaded(path: Path, threads: int | None) -> Iterator[Run]:
    """A model that runs one group of stored images and tells what its operators took."""
    litert = _Library()
    with contextlib.ExitStack() as stack:

        def kept(kind: str, handle: c_void_p) -> c_void_p:
            stack.callback(litert.destroy, f"LiteRtDestroy{kind}", handle)
            return handle

        environment = kept("Environment", litert.made("LiteRtCreateEnvironment", 0, None))
        model = kept("Model", litert.made("LiteRtCreateModelFromFile", environment, c_char_p(bytes(path))))
        options = kept("Options", litert.made("LiteRtCreateOptions"))
        litert("LiteRtSetOptionsHardwareAccelerators", options, CPU)
        _add(litert, options, "runtime_options_string", "enable_profiling = true\n")
        if threads is not None:
            _add(litert, options, "xnnpack", f"num_threads = {threads}\n")
        compiled = kept("CompiledModel", litert.made("LiteRtCreateCompiledModel", environment, model, options))
        signature = litert.made("LiteRtGetModelSignature", model, c_size_t(0))

        def buffer(side: str) -> c_void_p:
            tensor = litert.made(f"LiteRtGetSignature{side}TensorByIndex", signature, c_size_t(0))
            kind = ctypes.create_string_buffer(RANKED_TYPE_BYTES)
            litert("LiteRtGetRankedTensorType", tensor, kind)
            requirements = litert.made(
                f"LiteRtGetCompiledModel{side}BufferRequirements", compiled, c_size_t(0), c_size_t(0)
            )
            made = litert.made("LiteRtCreateManagedTensorBufferFromRequirements", environment, kind, requirements)
            return kept("TensorBuffer", made)

        given, answer = buffer("Input"), buffer("Output")
        profiler = litert.made("LiteRtCompiledModelGetProfiler", compiled)

        def run(images: NDArray[Any]) -> list[tuple[str, float]]:
            _fill(litert, given, images)
            litert("LiteRtResetProfiler", profiler)  # which stops it too
            litert("LiteRtStartProfiler", profiler)
            one = c_size_t(1)
            litert("LiteRtRunCompiledModel", compiled, c_size_t(0), one, byref(given), one, byref(answer))
            litert("LiteRtStopProfiler", profiler)
            return _operators(litert, profiler)

        yield run


def _add(litert: _Library, options: c_void_p, name: str, settings: str) -> None:
    process = ctypes.CDLL(None)  # what it takes over it frees as C does
    process.strdup.restype = c_void_p
    text = c_void_p(process.strdup(c_char_p(settings.encode())))
    free = ctypes.cast(process.free, c_void_p)
    made = litert.made("LiteRtCreateOpaqueOptions", c_char_p(name.encode()), text, free)
    litert("LiteRtAddOpaqueOptions", options, made)


def _fill(litert: _Library, buffer: c_void_p, images: NDArray[Any]) -> None:
    size = c_size_t()
    litert("LiteRtGetTensorBufferPackedSize", buffer, byref(size))
    if size.value != images.nbytes:
        raise EngineError(
            f"LiteRT takes {size.value} bytes of images, not {images.nbytes}", fix="leave --profile out"
        )  # a layout that this version does not have
    address = c_void_p()
    litert("LiteRtLockTensorBuffer", buffer, byref(address), WRITE)
    ctypes.memmove(address, np.ascontiguousarray(images).ctypes.data, images.nbytes)
    litert("LiteRtUnlockTensorBuffer", buffer)


def _operators(litert: _Library, profiler: c_void_p) -> list[tuple[str, float]]:
    count = c_int()
    litert("LiteRtGetNumProfilerEvents", profiler, byref(count))
    if not count.value:
        raise EngineError("LiteRT's profiler has seen nothing", fix="leave --profile out")
    # A version whose events are longer or shorter than these is found out before any of their names is followed.
    size = ctypes.sizeof(_Event)
    memory = (ctypes.c_ubyte * ((count.value + 1) * size))(*[GUARD] * ((count.value + 1) * size))
    litert("LiteRtGetProfilerEvents", profiler, count, memory)
    if any(byte != GUARD for byte in memory[count.value * size :]) or memory[count.value * size - size] == GUARD:
        raise EngineError(
            f"ai-edge-litert {version('ai-edge-litert')} tells its events in another layout",
            fix="leave --profile out, or install a version that vit-deploy knows",
        )
    events = (_Event * count.value).from_buffer(memory)
    return [
        (operator_type(event.name.decode(errors="replace")), event.elapsed_us / 1e3)
        for event in events
        if event.kind in (OWN_KERNEL, DELEGATE_KERNEL, DELEGATE_OPERATOR)
    ]


def operator_type(name: str) -> str:
    """What an operator does, without the numbers it does it in.

    XNNPACK says "Fully Connected (NC, F32) GEMM"; LiteRT's own kernels have the names of the file, "FULLY_CONNECTED".
    """
    return name.partition(" (")[0]
