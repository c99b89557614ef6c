"""Which engines run an artifact, and through what one method?"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vit_deploy.artifact import Artifact
from vit_deploy.plugins import Plugin, Registry

RUNTIMES = Registry(
    "runtime",
    {
        "keras": Plugin("vit_deploy.runtimes.keras:KerasRuntime", extra="cpu", needs=("keras", "h5py")),
        "savedmodel": Plugin("vit_deploy.runtimes.savedmodel:SavedModelRuntime", extra="cpu", needs=("tensorflow",)),
        "onnxruntime": Plugin("vit_deploy.runtimes.ort:OnnxRuntime", extra="onnx", needs=("onnxruntime",)),
        "litert": Plugin("vit_deploy.runtimes.litert:LiteRT", extra="litert", needs=("ai_edge_litert",)),
    },
)

# Which of them take which format; the first is the one that proves an export.
RUNTIMES_OF_FORMAT: dict[str, tuple[str, ...]] = {
    "keras": ("keras",),
    "savedmodel": ("savedmodel",),
    "onnx": ("onnxruntime",),
    "tflite": ("litert",),
}


@dataclass(frozen=True)
class RuntimeOptions:
    """How to run.

    Args:
        threads: for the work inside one call; None leaves the engine's own choice.
        provider: what executes the graph ("cpu", "cuda", …); None takes the engine's usual one.
        allow_tf32: whether a GPU may round the factors of fp32 products to 11 bits, as the engines do by themselves.
    """

    threads: int | None = None
    provider: str | None = None
    allow_tf32: bool = True


class Session(Protocol):
    """A loaded model.

    Attributes:
        provider: what really executes the graph: "cpu", "cuda", "xnnpack", …
    """

    provider: str

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)` of any batch size.

        Images are normalised float32, or uint8 pixels where preprocessing is inside the model.
        """


class Runtime(Protocol):
    """An engine."""

    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> AbstractContextManager[Session]:
        """Load an artifact; the session is freed when the context ends.

        Raises:
            EngineError: the engine refuses the file or the options.
        """
