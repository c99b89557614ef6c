"""Intermediate activations of an ONNX file on Qualcomm's Hexagon processor, or on an emulated one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.qnn.runtime import compiled
from vit_deploy.runtimes.values import as_stored
from vit_deploy.verification.locate.flow import Flow
from vit_deploy.verification.locate.onnx import flow_of, giving


class QnnTapper:
    """The processor, given a copy of the file with the requested values as outputs.

    Args:
        provider: as `qnn.runtime` takes it; None for its usual one.
    """

    def __init__(self, provider: str | None = None) -> None:
        self._options = RuntimeOptions(provider=provider)

    @contextlib.contextmanager
    def open(self, artifact: Artifact) -> Iterator[OpenedQnn]:
        """Read an artifact's graph; see `locate.Tapper`."""
        yield OpenedQnn(artifact, flow_of(artifact), self._options)


class OpenedQnn:
    """An ONNX file that runs on the processor, one image a call where it takes any number."""

    def __init__(self, artifact: Artifact, flow: Flow, options: RuntimeOptions) -> None:
        self.flow = flow
        self._artifact, self._options = artifact, options

    def values(self, names: Sequence[str], images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """What is computed on the way; see `locate.Opened`."""
        spec = self._artifact.input
        model = giving(self._artifact, names, self.flow)
        asked = [name for name in names if name != self.flow.input]
        found: dict[str, list[NDArray[Any]]] = {name: [] for name in names}
        step = spec.batch or 1
        with compiled(self._artifact, self._options, model) as engine:
            for start in range(0, len(images), step):
                given = as_stored(images[start : start + step], spec)
                for name, value in zip(asked, engine.run(asked, {spec.name: given}), strict=True):
                    found[name].append(value)
                if self.flow.input in found:
                    found[self.flow.input].append(given)
        return {name: np.concatenate(values) for name, values in found.items()}
