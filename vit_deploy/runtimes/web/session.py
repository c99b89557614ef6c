"""One model that is loaded in a page."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.runtimes.batching import groups, in_batches, outputs_in_batches
from vit_deploy.runtimes.values import as_stored, checked_images, missing_output, refuse_other_input
from vit_deploy.runtimes.web.engines import WASM, WEBGPU
from vit_deploy.runtimes.web.page import Page


class WebSession:
    """A model in a page: `runtimes.Session`, and `runtimes.ClockedSession`, whose clock is the page's."""

    def __init__(
        self,
        page: Page,
        artifact: Artifact,
        opened: Mapping[str, Any],
        *,
        provider: str,
        engine: Mapping[str, Any],
        notes: Sequence[str],
        resting_mb: float | None,
    ) -> None:
        _check(artifact, opened)
        self.provider = provider
        self.placement: Mapping[str, int] = {}
        self.notes = notes
        self.engine = engine
        software = provider not in (WASM, WEBGPU)
        self.unfit = f"its WebGPU adapter is software ({provider})" if software else ""
        self.load_ns = round(opened["open_ms"] * 1e6)
        self.resting_mb = resting_mb
        self._page, self._artifact = page, artifact
        self._turn = threading.Lock()
        self._most_mb = page.process.memory_mb()

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        return in_batches(self._run, checked_images(images, self._artifact), self._artifact.input.batch)

    def infer_outputs(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Every recorded output by its name; see `runtimes.NamedSession`."""
        return outputs_in_batches(self._run_all, checked_images(images, self._artifact), self._artifact.input.batch)

    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        [output] = self._read(images, [self._artifact.output_name]).values()
        return output

    def _run_all(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return self._read(images, self._artifact.output_names)

    def _read(self, images: NDArray[Any], names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        stored = as_stored(images, self._artifact.input)
        head, raw = self._page.ask(
            "run",
            self._doing,
            body=stored.tobytes(),
            shape=stored.shape,
            dtype=stored.dtype.name,
            outputs=list(names),
        )
        found, start = {}, 0
        for name, about in zip(names, head["outputs"], strict=True):
            dtype, count = np.dtype(about["dtype"]), math.prod(about["shape"])
            values = np.frombuffer(raw, dtype, count, start).reshape(about["shape"])
            found[name] = values.astype(np.float32)
            start += values.nbytes
        return found

    def upload(self, images: NDArray[Any]) -> None:
        """Give the page the images of the calls that `time` makes."""
        parts = groups(checked_images(images, self._artifact), self._artifact.input.batch)
        stored = [as_stored(part, self._artifact.input) for part in parts]
        self._page.ask(
            "upload",
            f"take images for {self._artifact.model_path}",
            body=b"".join(part.tobytes() for part in stored),
            shapes=[part.shape for part in stored],
            dtype=stored[0].dtype.name,
        )

    def time(self, calls: int | None, seconds: float | None) -> list[int]:
        """Nanoseconds of each call on what was uploaded last, by the page's clock; see `runtimes.ClockedSession`."""
        head, _ = self._page.ask("time", self._doing, extra_s=seconds or 0.0, calls=calls, seconds=seconds)
        return [max(1, round(sample * 1e6)) for sample in head["samples_ms"]]

    def peak_mb(self) -> float | None:
        """The most memory that the browser's processes were seen to hold, in 10^6 bytes; None where it is unknown."""
        self._look_at_memory()
        return self._most_mb

    def cpu_s(self) -> float | None:
        """Seconds of processors that the browser's processes have taken; None where it is unknown."""
        return self._page.process.cpu_s()

    def _look_at_memory(self) -> None:
        now = self._page.process.memory_mb()
        with self._turn:
            self._most_mb = max(filter(None, (self._most_mb, now)), default=None)

    @property
    def _doing(self) -> str:
        return f"run {self._artifact.model_path}"


def _check(artifact: Artifact, opened: Mapping[str, Any]) -> None:
    """Refuse a file that is not the one that the artifact was made with."""
    refuse_other_input(artifact, opened["input"]["name"], opened["input"]["shape"])
    outputs, names = opened["outputs"], artifact.output_names
    if not set(names) <= set(outputs) or (len(outputs) > len(names) and not artifact.is_bare):
        raise missing_output(artifact, outputs)
