"""ONNX Runtime as the runtime of ONNX artifacts."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.core.processor import cpu_features
from vit_deploy.core.saturation import EXACT_KERNELS, lacks_vnni, may_saturate
from vit_deploy.errors import EngineError
from vit_deploy.formats.onnx.file import refuse_outside_data
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.ort.errors import NATIVE_ERRORS, failure, opening, setting_of
from vit_deploy.runtimes.ort.graph import OnnxGraphSession
from vit_deploy.runtimes.ort.libraries import load_libraries, names_of_devices, register_plugins
from vit_deploy.runtimes.ort.notes import notes_on
from vit_deploy.runtimes.ort.placement import no_placement, placement_of
from vit_deploy.runtimes.ort.recording import RECORDING
from vit_deploy.runtimes.ort.rounding import remember_rounding, rounding, rounding_notes
from vit_deploy.runtimes.ort.sessions import OnnxDeviceSession, OnnxSession
from vit_deploy.runtimes.ort.tensorrt import opened_with_engine
from vit_deploy.runtimes.values import blank_images, refuse_unplaced

__all__ = ["FATAL", "NATIVE_ERRORS", "PROVIDERS", "OnnxDeviceSession", "OnnxRuntime", "OnnxSession"]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
NAMES = {full: name for name, full in PROVIDERS.items()}
HELPERS = {"tensorrt": ("cuda",)}  # that take what the provider leaves, before the CPU does
MEMORY = {"cuda": "cuda", "tensorrt": "cuda"}  # where inputs and outputs lie, unless on the host
GRAPH_OPTION = {"cuda": "enable_cuda_graph", "tensorrt": "trt_cuda_graph_enable"}
RECORDS = hasattr(ort.InferenceSession, "get_provider_graph_assignment_info")
INSTALL = {
    "cuda": 'pip install "vit-deploy[gpu]", or "vit-deploy[gpu-cuda12]" for drivers older than 580',
    "tensorrt": 'pip install "vit-deploy[tensorrt]"',
}
DOCTOR = "check the driver and the CUDA libraries with vit-deploy doctor, or run with --provider cpu"
EXACT_NOTE = (
    f"this processor has no VNNI, and the file's weights would saturate its fast kernels: it runs with "
    f"{'='.join(EXACT_KERNELS)}, exact and slower, and elsewhere needs that setting too; quantize it again"
)
ON_GPUS_ALONE = "bf16"  # the precision for which the CPU has no kernels
FATAL = 4  # the log level above which ONNX Runtime writes nothing; what it raises says it as well

AnySession = TypeVar("AnySession", bound=OnnxSession)


class OnnxRuntime:
    """ONNX Runtime, on the CPU unless another provider is requested."""

    def prepare(self, options: RuntimeOptions = RuntimeOptions()) -> None:
        """Load what a provider needs and open its device; see `runtimes.DeviceRuntime`.

        Raises:
            EngineError: a provider or a device that is not there, with the reason.
        """
        provider = options.provider or "cpu"
        if provider not in PROVIDERS:
            raise EngineError(f"ONNX Runtime has no provider {provider!r}", fix=f"choose one of {', '.join(PROVIDERS)}")
        if options.cuda_graph and provider not in MEMORY:
            raise EngineError(
                f"a CUDA graph is recorded on a GPU, and the provider is {provider}",
                fix="add --provider cuda, or leave --cuda-graph out",
            )
        setting = setting_of(provider, options.device)
        missing = ""
        if provider in MEMORY:
            with opening(f"load the libraries of {PROVIDERS[provider]}", setting):
                missing = load_libraries(ort, provider)
                register_plugins(ort, PROVIDERS["cuda"])
                remember_rounding()
        available = {*ort.get_available_providers(), *names_of_devices(ort)}
        if PROVIDERS[provider] not in available:
            raise EngineError(
                f"the installed ONNX Runtime {ort.__version__} has no {PROVIDERS[provider]}; "
                f"it has {', '.join(ort.get_available_providers())}",
                fix=f"{INSTALL.get(provider, INSTALL['cuda'])}, in an environment without the CPU package onnxruntime",
            )
        if provider in MEMORY:
            if options.device < 0:
                raise EngineError(f"there is no GPU {options.device}", fix="count GPUs from 0")
            with opening(f"use GPU {options.device}", setting, heard=missing), RECORDING:
                ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), MEMORY[provider], options.device)

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[OnnxSession]:
        """Load an artifact.

        Raises:
            EngineError: a file that ONNX Runtime refuses or whose weights lie outside the artifact, or a provider or a
                device that is not there.
        """
        if options.provider is None and artifact.precision == ON_GPUS_ALONE:
            options = dataclasses.replace(options, provider="cuda")
        provider = options.provider or "cpu"
        with rounding(provider, options.allow_tf32):
            self.prepare(options)
            if provider == "tensorrt" and artifact.is_for_any_size:
                raise EngineError(
                    f"{artifact.path} is for images of any size, and TensorRT's engines are built for sizes that are "
                    "known",
                    fix="run it with --provider cuda, or export it for one size",
                )
            refuse_outside_data(artifact.model_path)
            with _opened(artifact, options, provider) as session:
                session.notes = (*session.notes, *notes_on(provider, artifact.precision), *rounding_notes(provider))
                yield session


def _opened(artifact: Artifact, options: RuntimeOptions, provider: str) -> AbstractContextManager[OnnxSession]:
    if provider not in MEMORY:
        return _loaded(artifact, options, lambda engine: OnnxSession(engine, artifact, provider), {})

    def on_device(more: Mapping[str, str], most: int | None = None) -> AbstractContextManager[OnnxDeviceSession]:
        kind = OnnxGraphSession if options.cuda_graph else OnnxDeviceSession
        memory = MEMORY[provider]
        return _loaded(
            artifact, options, lambda engine: kind(engine, artifact, provider, options.device, memory, most), more
        )

    if provider == "tensorrt":
        return opened_with_engine(artifact, options, ort.__version__, on_device)
    return on_device({})


@contextlib.contextmanager
def _loaded(
    artifact: Artifact, options: RuntimeOptions, session_of: Callable[[Any], AnySession], more: Mapping[str, str]
) -> Iterator[AnySession]:
    """A session of which it is known what runs where.

    Args:
        artifact: the artifact to load.
        options: the requested options.
        session_of: makes it of an engine.
        more: options of the provider.
    """
    provider = options.provider or "cpu"
    setting, doing = setting_of(provider, options.device), f"load {artifact.model_path}"
    settings = ort.SessionOptions()
    settings.log_severity_level = FATAL
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    exactly = may_saturate(artifact) and lacks_vnni(cpu_features())
    if exactly:
        settings.add_session_config_entry(*EXACT_KERNELS)
    chosen = [(PROVIDERS[name], _provider_options(options, name)) for name in (provider, *HELPERS.get(provider, ()))]
    chosen[0][1].update(more)
    # Profiling takes a call; on the CPU there is nothing that could have fallen back.
    with placement_of(settings, records=RECORDS) if RECORDS or provider != "cpu" else no_placement() as read_placement:
        with opening(doing, setting) as noise, RECORDING:
            engine = ort.InferenceSession(
                engine_path(artifact.model_path), settings, providers=chosen, enable_fallback=False
            )
        if PROVIDERS[provider] not in (used := engine.get_providers()):
            fell_back = f"it fell back from {PROVIDERS[provider]} to {', '.join(used)}"
            raise failure(doing, setting, fell_back, heard=noise.text, fix=DOCTOR)
        session = session_of(engine)
        start = time.perf_counter_ns()
        counts = read_placement(engine, lambda: session.infer(blank_images(artifact, options.largest_batch)))
        if isinstance(session, OnnxDeviceSession) and not RECORDS:  # it has made that call
            session.trial_ns = time.perf_counter_ns() - start
    session.notes = (*session.notes, *((EXACT_NOTE,) if exactly else ()))
    session.placement = {NAMES.get(name, name): count for name, count in counts.items()}
    refuse_unplaced(session, artifact)
    try:
        yield session
    finally:
        session.close()


def _provider_options(options: RuntimeOptions, provider: str) -> dict[str, str]:
    if provider == "cpu":
        return {}
    strict = {"use_tf32": "0"} if provider == "cuda" and not options.allow_tf32 else {}
    graph = {GRAPH_OPTION[provider]: "1"} if options.cuda_graph and provider == options.provider else {}
    return {"device_id": str(options.device), **strict, **graph}
