"""ONNX Runtime's providers for GPUs: what is loaded before them, their devices, and the sessions there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

import numpy as np
import onnxruntime as ort

from vit_deploy.core.artifact import Artifact
from vit_deploy.errors import EngineError
from vit_deploy.formats.onnx.file import refuse_outside_data
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.ort.device_sessions import OnnxDeviceSession
from vit_deploy.runtimes.ort.errors import opening, setting_of
from vit_deploy.runtimes.ort.graph import OnnxGraphSession
from vit_deploy.runtimes.ort.libraries import load_libraries, names_of_devices, register_plugins
from vit_deploy.runtimes.ort.notes import notes_on
from vit_deploy.runtimes.ort.recording import RECORDING
from vit_deploy.runtimes.ort.rounding import remember_rounding, rounding, rounding_notes
from vit_deploy.runtimes.ort.sessions import PROVIDERS, loaded
from vit_deploy.runtimes.ort.tensorrt import opened_with_engine

HELPERS = {"tensorrt": ("cuda",)}  # that take what the provider leaves, before the CPU does
MEMORY = {"cuda": "cuda", "tensorrt": "cuda"}  # where inputs and outputs lie
GRAPH_OPTION = {"cuda": "enable_cuda_graph", "tensorrt": "trt_cuda_graph_enable"}
INSTALL = {
    "cuda": 'pip install "vit-deploy[gpu]", or "vit-deploy[gpu-cuda12]" for drivers older than 580',
    "tensorrt": 'pip install "vit-deploy[tensorrt]"',
}


def prepare(provider: str, device: int) -> None:
    """Load what a provider needs and open its device.

    Args:
        provider: "cuda" or "tensorrt".
        device: which GPU of those that this process sees, from 0.

    Raises:
        EngineError: a provider or a device that is not there, with the reason.
    """
    setting = setting_of(provider, device)
    with opening(f"load the libraries of {PROVIDERS[provider]}", setting):
        missing = load_libraries(ort, provider)
        register_plugins(ort, PROVIDERS["cuda"])
        remember_rounding()
    if PROVIDERS[provider] not in {*ort.get_available_providers(), *names_of_devices(ort)}:
        raise EngineError(
            f"the installed ONNX Runtime {ort.__version__} has no {PROVIDERS[provider]}; "
            f"it has {', '.join(ort.get_available_providers())}",
            fix=f"{INSTALL[provider]}, in an environment without the CPU package onnxruntime",
        )
    if device < 0:
        raise EngineError(f"there is no GPU {device}", fix="count GPUs from 0")
    with opening(f"use GPU {device}", setting, heard=missing), RECORDING:
        ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), MEMORY[provider], device)


@contextlib.contextmanager
def opened(artifact: Artifact, options: RuntimeOptions, provider: str) -> Iterator[OnnxDeviceSession]:
    """Load an artifact on a GPU.

    Args:
        artifact: the artifact to load.
        options: the requested options.
        provider: "cuda" or "tensorrt".

    Raises:
        EngineError: as `runtime.OnnxRuntime.open`.
    """
    with rounding(provider, options.allow_tf32):
        prepare(provider, options.device)
        if provider == "tensorrt" and artifact.is_for_any_size:
            raise EngineError(
                f"{artifact.path} is for images of any size, and TensorRT's engines are built for sizes that are known",
                fix="run it with --provider cuda, or export it for one size",
            )
        refuse_outside_data(artifact.model_path)
        with _opened(artifact, options, provider) as session:
            session.notes = (*session.notes, *notes_on(provider, artifact.precision), *rounding_notes(provider))
            yield session


def _opened(artifact: Artifact, options: RuntimeOptions, provider: str) -> AbstractContextManager[OnnxDeviceSession]:
    def on_device(more: Mapping[str, str], most: int | None = None) -> AbstractContextManager[OnnxDeviceSession]:
        kind = OnnxGraphSession if options.cuda_graph else OnnxDeviceSession
        memory = MEMORY[provider]
        chosen = {name: _provider_options(options, name) for name in (provider, *HELPERS.get(provider, ()))}
        chosen[provider].update(more)
        return loaded(
            artifact,
            options,
            lambda engine: kind(engine, artifact, provider, options.device, memory, most),
            [*chosen.items()],
            alone=RECORDING,
        )

    if provider == "tensorrt":
        return opened_with_engine(artifact, options, ort.__version__, on_device)
    return on_device({})


def _provider_options(options: RuntimeOptions, provider: str) -> dict[str, str]:
    strict = {"use_tf32": "0"} if provider == "cuda" and not options.allow_tf32 else {}
    graph = {GRAPH_OPTION[provider]: "1"} if options.cuda_graph and provider == options.provider else {}
    return {"device_id": str(options.device), **strict, **graph}
