"""The runtimes, and the one method through which each runs an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.options.running import RuntimeOptions as RuntimeOptions
from vit_deploy.core.options.tensorrt import FULL, RTX
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.formats.tensorrt_plan import PROVIDERS

RUNTIMES = Registry(
    "runtime",
    {
        "keras": Plugin("vit_deploy.runtimes.keras.runtime:KerasRuntime", extra="cpu", needs=("keras", "h5py")),
        "savedmodel": Plugin(
            "vit_deploy.runtimes.tensorflow.runtime:SavedModelRuntime", extra="cpu", needs=("tensorflow",)
        ),
        "onnxruntime": Plugin("vit_deploy.runtimes.ort.runtime:OnnxRuntime", extra="onnx", needs=("onnxruntime",)),
        "openvino": Plugin("vit_deploy.runtimes.openvino:OpenVINO", extra="openvino", needs=("openvino",)),
        "litert": Plugin("vit_deploy.runtimes.litert:LiteRT", extra="litert", needs=("ai_edge_litert",)),
        "tensorrt": Plugin("vit_deploy.runtimes.tensorrt.runtime:TensorRT", extra="tensorrt-rtx", either=(FULL, RTX)),
    },
)

# Which of them take which format; the first is the one that proves an export.
RUNTIMES_OF_FORMAT: dict[str, tuple[str, ...]] = {
    "keras": ("keras",),
    "savedmodel": ("savedmodel",),
    "onnx": ("onnxruntime", "openvino"),
    "tflite": ("litert",),
    "tensorrt": ("tensorrt",),
}

# What they can be asked to execute it with; LiteRT takes the path of a delegate's library as well.
PROVIDERS_OF_RUNTIME: dict[str, tuple[str, ...]] = {
    "keras": ("cpu", "cpu-eager", "cuda", "cuda-eager"),
    "savedmodel": ("cpu", "cuda"),
    "onnxruntime": ("cpu", "cuda", "tensorrt"),
    "openvino": ("cpu", "cpu-bf16"),
    "litert": ("cpu", "xnnpack"),
    "tensorrt": (*PROVIDERS.values(), "cuda"),
}
GPU_PROVIDERS = ("cuda", "cuda-eager", *PROVIDERS.values())


def known_providers() -> tuple[str, ...]:
    """Every name in `PROVIDERS_OF_RUNTIME`, once."""
    return tuple(dict.fromkeys(name for names in PROVIDERS_OF_RUNTIME.values() for name in names))


def is_library(provider: str) -> bool:
    """Whether a provider is the path of a shared library."""
    return "/" in provider or "\\" in provider or provider.endswith((".so", ".dll", ".dylib"))


def installed_takers(format: str, provider: str | None = None) -> tuple[str, ...]:
    """The installed runtimes that take a format and can be asked for a provider; the format's first if there is none.

    Args:
        format: the format of the artifact.
        provider: None for any.
    """
    takers = RUNTIMES_OF_FORMAT[format]
    return tuple(name for name in takers if not RUNTIMES[name].missing() and _offers(name, provider)) or takers[:1]


def _offers(runtime: str, provider: str | None) -> bool:
    if provider is not None and is_library(provider):
        return runtime == "litert"
    return provider is None or provider in PROVIDERS_OF_RUNTIME[runtime]


class Session(Protocol):
    """A loaded model.

    Attributes:
        provider: what really executes the graph: "cpu", "cuda", "xnnpack", …
        placement: the number of operators of each provider; empty where the engine does not tell.
        notes: what one has to know of how it runs, in words.
    """

    provider: str
    placement: Mapping[str, int]
    notes: Sequence[str]

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)` of any batch size.

        Images are normalised float32, or uint8 pixels where preprocessing is inside the model.
        """


@runtime_checkable
class DeviceSession(Protocol):
    """A loaded model on a device with memory of its own: what `infer` does there, step by step.

    Attributes:
        trial_ns: nanoseconds of the call that opening it made to see what runs where; 0 where the engine tells
            without one. It is the first call, and no part of loading.
        build_ns: nanoseconds in which opening it built an engine for this GPU; 0 where none was built, and no part of
            loading either.
    """

    trial_ns: int
    build_ns: int

    def upload(self, images: NDArray[Any]) -> None:
        """Copy images to the device, in place of those before; returns when they are there."""

    def compute(self) -> None:
        """Run the model on what was uploaded last; returns when the device has finished."""

    def launch(self) -> None:
        """Ask the device to run the model on what was uploaded last; may return before it has."""

    def wait(self) -> None:
        """Return when the device has finished all that this session launched."""

    def download(self) -> NDArray[np.float32]:
        """Copy the outputs of the last `compute` to the host."""


def infer_on_device(session: DeviceSession, images: NDArray[Any]) -> NDArray[np.float32]:
    """What `Session.infer` gives, by way of the device: `(batch, …)` for `(batch, height, width, channels)`."""
    session.upload(images)
    session.compute()
    return session.download()


class Runtime(Protocol):
    """An engine."""

    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> AbstractContextManager[Session]:
        """Load an artifact; the session is freed when the context ends.

        Raises:
            EngineError: the engine refuses the file or the options.
        """


@runtime_checkable
class DeviceRuntime(Protocol):
    """An engine that can open a device before it loads anything there."""

    def prepare(self, options: RuntimeOptions = RuntimeOptions()) -> None:
        """Load the libraries of the device that is asked for and open it, so that neither is part of loading a model.

        Nothing is done where the options ask for no device with memory of its own.

        Raises:
            EngineError: there is no such device, or it cannot be opened.
        """
