"""A session of ONNX Runtime whose calls copy what they need, and the making of any that says what runs where."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.core.processor import cpu_features
from vit_deploy.core.saturation import EXACT_KERNELS, lacks_vnni, may_saturate
from vit_deploy.runtimes import DeviceSession, RuntimeOptions
from vit_deploy.runtimes.batching import in_batches, outputs_in_batches
from vit_deploy.runtimes.ort.errors import explained, failure, opening, setting_of
from vit_deploy.runtimes.ort.placement import no_placement, placement_of
from vit_deploy.runtimes.values import (
    as_stored,
    blank_images,
    checked_images,
    missing_output,
    refuse_other_input,
    refuse_unplaced,
)

Array = NDArray[Any]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
NAMES = {full: name for name, full in PROVIDERS.items()}
RECORDS = hasattr(ort.InferenceSession, "get_provider_graph_assignment_info")
DOCTOR = "check the driver and the CUDA libraries with vit-deploy doctor, or run with --provider cpu"
EXACT_NOTE = (
    f"this processor has no VNNI, and the file's weights would saturate its fast kernels: it runs with "
    f"{'='.join(EXACT_KERNELS)}, exact and slower, and elsewhere needs that setting too; quantize it again"
)
FATAL = 4  # the log level above which ONNX Runtime writes nothing; what it raises says it as well

AnySession = TypeVar("AnySession", bound="OnnxSession")


class OnnxSession:
    """One loaded ONNX file."""

    def __init__(self, engine: Any, artifact: Artifact, provider: str, device: int = 0) -> None:
        given = engine.get_inputs()[0]
        refuse_other_input(artifact, given.name, given.shape)
        names = [output.name for output in engine.get_outputs()]
        if not set(artifact.output_names) <= set(names):
            raise missing_output(artifact, names)
        self.provider = provider
        self.placement: Mapping[str, int] = {}
        self.notes: Sequence[str] = ()
        self._engine = engine
        self._artifact = artifact
        setting, path = setting_of(provider, device), artifact.model_path
        self._running = explained(f"run {path}", setting)
        self._copying_images = explained(f"copy images for {path}", setting)
        self._copying_outputs = explained(f"copy the outputs of {path}", setting)

    def infer(self, images: Array) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        return in_batches(self._run, checked_images(images, self._artifact), self._artifact.input.batch)

    def infer_outputs(self, images: Array) -> dict[str, NDArray[np.float32]]:
        """Every recorded output by its name; see `runtimes.NamedSession`."""
        return outputs_in_batches(self._run_all, checked_images(images, self._artifact), self._artifact.input.batch)

    def _run_all(self, images: Array) -> dict[str, NDArray[np.float32]]:
        spec, names = self._artifact.input, self._artifact.output_names
        with self._running:
            outputs = self._engine.run(list(names), {spec.name: as_stored(images, spec)})
        return {name: np.asarray(output, np.float32) for name, output in zip(names, outputs, strict=True)}

    def _run(self, images: Array) -> NDArray[np.float32]:
        spec = self._artifact.input
        with self._running:
            (output,) = self._engine.run([self._artifact.output_name], {spec.name: as_stored(images, spec)})
        return np.asarray(output, np.float32)

    def close(self) -> None:
        """Free the engine and its weights."""
        self._engine = None


@contextlib.contextmanager
def loaded(
    artifact: Artifact,
    options: RuntimeOptions,
    session_of: Callable[[Any], AnySession],
    chosen: Sequence[tuple[str, Mapping[str, str]]] = (("cpu", {}),),
    *,
    alone: AbstractContextManager[object] | None = None,
) -> Iterator[AnySession]:
    """A session of which it is known what runs where.

    Args:
        artifact: the artifact to load.
        options: the requested options.
        session_of: makes it of an engine.
        chosen: the providers with their options, the requested one first.
        alone: entered while the engine is made; None for nothing.

    Raises:
        EngineError: ONNX Runtime refuses the file, or falls back to another provider.
    """
    provider = chosen[0][0]
    setting, doing = setting_of(provider, options.device), f"load {artifact.model_path}"
    settings = ort.SessionOptions()
    settings.log_severity_level = FATAL
    if options.threads is not None:
        settings.intra_op_num_threads = options.threads
    exactly = may_saturate(artifact) and lacks_vnni(cpu_features())
    if exactly:
        settings.add_session_config_entry(*EXACT_KERNELS)
    providers = [(PROVIDERS[name], dict(others)) for name, others in chosen]
    # Profiling takes a call; on the CPU there is nothing that could have fallen back.
    with placement_of(settings, records=RECORDS) if RECORDS or provider != "cpu" else no_placement() as read_placement:
        with opening(doing, setting) as noise, alone or contextlib.nullcontext():
            engine = ort.InferenceSession(
                engine_path(artifact.model_path), settings, providers=providers, enable_fallback=False
            )
        if PROVIDERS[provider] not in (used := engine.get_providers()):
            fell_back = f"it fell back from {PROVIDERS[provider]} to {', '.join(used)}"
            raise failure(doing, setting, fell_back, heard=noise.text, fix=DOCTOR)
        session = session_of(engine)
        start = time.perf_counter_ns()
        counts = read_placement(engine, lambda: session.infer(blank_images(artifact, options.largest_batch)))
        opened: object = session
        if isinstance(opened, DeviceSession) and not RECORDS:  # it has made that call
            opened.trial_ns = time.perf_counter_ns() - start
    session.notes = (*session.notes, *((EXACT_NOTE,) if exactly else ()))
    session.placement = {NAMES.get(name, name): count for name, count in counts.items()}
    refuse_unplaced(session, artifact)
    try:
        yield session
    finally:
        session.close()
