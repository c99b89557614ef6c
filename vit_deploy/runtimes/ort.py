"""How does ONNX Runtime run a bundle?"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as native

from vit_deploy.artifact import Artifact
from vit_deploy.errors import EngineError
from vit_deploy.onnx_file import refuse_outside_data
from vit_deploy.quiet import quiet_stderr
from vit_deploy.runtimes import RuntimeOptions, infer_on_device
from vit_deploy.runtimes.batching import groups, in_batches, joined
from vit_deploy.runtimes.ort_placement import nothing_told, told
from vit_deploy.runtimes.values import (
    as_stored,
    blank_images,
    checked_images,
    missing_output,
    refuse_other_input,
    refuse_unplaced,
)

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
NAMES = {full: name for name, full in PROVIDERS.items()}
HELPERS = {"tensorrt": ("cuda",)}  # that take what the provider leaves, before the CPU does
MEMORY = {"cuda": "cuda", "tensorrt": "cuda"}  # where inputs and outputs lie, unless on the host
DEVICE_ID = 0
RECORDS = hasattr(ort.InferenceSession, "get_provider_graph_assignment_info")
FATAL = 4  # the log level above which ONNX Runtime writes nothing; what it raises says it as well

# They have no base class of their own.
NATIVE_ERRORS = (
    native.EngineError,
    native.EPFail,
    native.Fail,
    native.InvalidArgument,
    native.InvalidGraph,
    native.InvalidProtobuf,
    native.ModelLoaded,
    native.NoModel,
    native.NoSuchFile,
    native.NotImplemented,
    native.RuntimeException,
    UnicodeDecodeError,  # its message quotes a name of a damaged file
)


class OnnxRuntime:
    """ONNX Runtime, on the CPU unless another provider is asked for."""

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[OnnxSession]:
        """Load an artifact.

        Raises:
            EngineError: a file that ONNX Runtime refuses or whose weights lie outside the bundle, or a provider
                that is not there.
        """
        provider = options.provider or "cpu"
        if not options.allow_tf32:
            _forbid_tf32(provider)
        wanted = _provider(provider)
        refuse_outside_data(artifact.model_path)
        chosen = [
            (PROVIDERS[name], _provider_options(options, name)) for name in (provider, *HELPERS.get(provider, ()))
        ]
        settings = ort.SessionOptions()
        settings.log_severity_level = FATAL
        if options.threads is not None:
            settings.intra_op_num_threads = options.threads
        # Profiling takes a call; on the CPU there is nothing that could have fallen back.
        with told(settings, records=RECORDS) if RECORDS or provider != "cpu" else nothing_told() as placement_of:
            with _explained(f"load {artifact.model_path}"), quiet_stderr() as noise:
                engine = ort.InferenceSession(str(artifact.model_path), settings, providers=chosen)
            if wanted not in (used := engine.get_providers()):
                said = f"\n{noise.tail()}" if noise.text else ""
                raise EngineError(
                    f"ONNX Runtime fell back from {wanted} to {', '.join(used)} for {artifact.model_path}{said}",
                    fix="check the driver and the CUDA libraries with vit-deploy doctor, or run with --provider cpu",
                )
            session = (OnnxDeviceSession if provider in MEMORY else OnnxSession)(engine, artifact, provider)
            start = time.perf_counter_ns()
            counts = placement_of(engine, lambda: session.infer(blank_images(artifact)))
            if isinstance(session, OnnxDeviceSession) and not RECORDS:  # it has made that call
                session.trial_ns = time.perf_counter_ns() - start
        session.placement = {NAMES.get(name, name): count for name, count in counts.items()}
        refuse_unplaced(session, artifact)
        try:
            yield session
        finally:
            session.close()


class OnnxSession:
    """One loaded ONNX file."""

    def __init__(self, engine: Any, artifact: Artifact, provider: str) -> None:
        given = engine.get_inputs()[0]
        refuse_other_input(artifact, given.name, given.shape)
        names = [output.name for output in engine.get_outputs()]
        if artifact.config.output_name not in names:
            raise missing_output(artifact, names)
        self.provider = provider
        self.placement: Mapping[str, int] = {}
        self.notes: Sequence[str] = ()
        self._engine = engine
        self._artifact = artifact

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        return in_batches(self._run, checked_images(images, self._artifact), self._artifact.input.batch)

    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        spec = self._artifact.input
        with _explained(f"run {self._artifact.model_path}"):
            (output,) = self._engine.run([self._artifact.config.output_name], {spec.name: as_stored(images, spec)})
        return np.asarray(output, np.float32)

    def close(self) -> None:
        """Free the engine and its weights."""
        self._engine = None


class OnnxDeviceSession(OnnxSession):
    """One loaded ONNX file whose inputs and outputs stay on a device until they are asked for."""

    trial_ns = 0
    build_ns = 0
    _bindings: Sequence[Any] = ()
    _count = 0

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        return infer_on_device(self, images)

    def upload(self, images: NDArray[Any]) -> None:
        """Copy images to the device; see `runtimes.DeviceSession`."""
        spec, memory = self._artifact.input, MEMORY[self.provider]
        parts = groups(checked_images(images, self._artifact), spec.batch)
        with _explained(f"copy images for {self._artifact.model_path}"):
            self._bindings, self._count = [self._engine.io_binding() for _ in parts], len(images)
            for binding, part in zip(self._bindings, parts, strict=True):
                binding.bind_ortvalue_input(
                    spec.name, ort.OrtValue.ortvalue_from_numpy(as_stored(part, spec), memory, DEVICE_ID)
                )
                binding.bind_output(self._artifact.config.output_name, memory, DEVICE_ID)
                binding.synchronize_inputs()

    def compute(self) -> None:
        """Run the model on what was uploaded last, to the end."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Run the model on what was uploaded last; see `runtimes.DeviceSession`."""
        with _explained(f"run {self._artifact.model_path}"):
            for binding in self._bindings:
                self._engine.run_with_iobinding(binding)

    def wait(self) -> None:
        """Return when the device has finished."""
        with _explained(f"run {self._artifact.model_path}"):
            for binding in self._bindings:
                binding.synchronize_outputs()

    def download(self) -> NDArray[np.float32]:
        """Copy the outputs of the last `compute` to the host."""
        with _explained(f"copy the outputs of {self._artifact.model_path}"):
            outputs = [binding.copy_outputs_to_cpu()[0] for binding in self._bindings]
        return np.asarray(joined(outputs, self._count), np.float32)

    def close(self) -> None:
        """Free the engine, its weights, and what lies on the device."""
        self._bindings = ()
        super().close()


def _provider(name: str) -> str:
    if name not in PROVIDERS:
        raise EngineError(f"ONNX Runtime has no provider {name!r}", fix=f"choose one of {', '.join(PROVIDERS)}")
    available = ort.get_available_providers()
    if PROVIDERS[name] not in available:
        raise EngineError(
            f"the installed ONNX Runtime {ort.__version__} has no {PROVIDERS[name]}; it has {', '.join(available)}",
            fix='pip install "vit-deploy[gpu]" in an environment without the CPU package onnxruntime',
        )
    if name != "cpu":
        with contextlib.redirect_stdout(sys.stderr):  # it prints what it misses
            ort.preload_dlls()  # the CUDA libraries that pip installed beside it
    return PROVIDERS[name]


def _provider_options(options: RuntimeOptions, provider: str) -> dict[str, str]:
    return {"use_tf32": "0"} if provider == "cuda" and not options.allow_tf32 else {}


def _forbid_tf32(provider: str) -> None:
    # TensorRT has no option for it; NVIDIA's libraries read this when they are loaded.
    if provider == "tensorrt":
        os.environ["NVIDIA_TF32_OVERRIDE"] = "0"


@contextlib.contextmanager
def _explained(doing: str) -> Iterator[None]:
    try:
        yield
    except NATIVE_ERRORS as error:
        raise EngineError(
            f"ONNX Runtime {ort.__version__} cannot {doing}: {str(error).splitlines()[0]}",
            fix="export the model again, or check the installation with vit-deploy doctor",
        ) from error
