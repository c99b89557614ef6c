"""OpenVINO as the runtime of ONNX artifacts."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray

from vit_deploy.core import engine_errors
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.core.processor import cpu_features
from vit_deploy.core.saturation import lacks_vnni, may_saturate
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.errors import EngineError
from vit_deploy.formats.onnx.file import refuse_outside_data
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.batching import in_batches, outputs_in_batches
from vit_deploy.runtimes.values import as_stored, checked_images, missing_output, refuse_other_input, refuse_unplaced

DEVICE = "CPU"
SATURATES = (
    "this processor has no VNNI, and OpenVINO's products of 8 bits saturate at the file's weights: quantize it again"
)
BF16 = "cpu-bf16"
# Said in any case: left alone, OpenVINO computes in bfloat16 wherever the processor can.
PRECISIONS = {"cpu": "f32", BF16: "bf16"}
FIX = "export the model again with this version, or run it with --runtime onnxruntime"
UNINFORMATIVE = ("Exception from ", "Check ")  # lines of its messages that name its own sources


class OpenVINO:
    """OpenVINO on the CPU, in float32 unless the provider `cpu-bf16` is requested."""

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[OpenVINOSession]:
        """Load an artifact.

        Raises:
            EngineError: a file that OpenVINO refuses or whose weights lie outside the artifact, or a provider that is
                not there.
        """
        provider = options.provider or "cpu"
        core = openvino.Core()
        _refuse_provider(core, provider)
        refuse_outside_data(artifact.model_path)
        with explained(f"load {artifact.model_path}", _fix(artifact)), quiet_stderr():
            engine = core.compile_model(engine_path(artifact.model_path), DEVICE, settings(options, provider))
        session = OpenVINOSession(engine, artifact, provider)
        try:
            yield session
        finally:
            session.close()


class OpenVINOSession:
    """One compiled model; calls at the same time have a request each, which are kept for the next ones."""

    def __init__(self, engine: Any, artifact: Artifact, provider: str) -> None:
        given = engine.inputs[0]
        shape = [None if side.is_dynamic else side.get_length() for side in given.partial_shape]
        name = (
            artifact.input.name if artifact.input.name in given.names else given.any_name
        )  # a tensor may have several
        refuse_other_input(artifact, name, shape)
        names = [name for output in engine.outputs for name in output.names]
        if not set(artifact.output_names) <= set(names):
            raise missing_output(artifact, names)
        self.provider = provider
        self.placement: Mapping[str, int] = _placement(engine)
        saturates = may_saturate(artifact) and artifact.precision == "int8-static" and lacks_vnni(cpu_features())
        self.notes: Sequence[str] = (SATURATES,) if saturates else ()
        refuse_unplaced(self, artifact)
        self._output = engine.output(artifact.output_name)
        self._engine = engine
        self._free = [engine.create_infer_request()]
        self._turn = threading.Lock()  # at the requests that are free
        self._artifact = artifact

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        return in_batches(self._run, checked_images(images, self._artifact), self._artifact.input.batch)

    def infer_outputs(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Every recorded output by its name; see `runtimes.NamedSession`."""
        return outputs_in_batches(self._run_all, checked_images(images, self._artifact), self._artifact.input.batch)

    def _run_all(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        with self._results(images) as results:
            names = self._artifact.output_names
            return {name: np.array(results[self._engine.output(name)], np.float32) for name in names}

    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        with self._results(images) as results:
            return np.array(results[self._output], np.float32)

    @contextlib.contextmanager
    def _results(self, images: NDArray[Any]) -> Iterator[Any]:
        """The results of a call: views of memory that the next call writes to."""
        spec = self._artifact.input
        with explained(f"run {self._artifact.model_path}"), self._request() as request:
            yield request.infer({spec.name: as_stored(images, spec)}, share_inputs=True)

    @contextlib.contextmanager
    def _request(self) -> Iterator[Any]:
        """One that no other call has meanwhile."""
        with self._turn:
            request = self._free.pop() if self._free else self._engine.create_infer_request()
        try:
            yield request
        finally:
            with self._turn:
                self._free.append(request)

    def close(self) -> None:
        """Free the compiled model and its weights."""
        self._free.clear()
        self._engine = self._output = None


def settings(options: RuntimeOptions, provider: str) -> dict[str, Any]:
    """OpenVINO's properties for a case."""
    chosen: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[provider],
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        # Sessions side by side would all be pinned to the same cores.
        "ENABLE_CPU_PINNING": False,
    }
    return chosen if options.threads is None else chosen | {"INFERENCE_NUM_THREADS": options.threads}


def _refuse_provider(core: Any, provider: str) -> None:
    if provider not in PRECISIONS:
        raise EngineError(
            f"OpenVINO is not run with the provider {provider!r} here", fix=f"choose one of {', '.join(PRECISIONS)}"
        )
    capabilities = core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    if provider == BF16 and "BF16" not in capabilities:
        raise EngineError(
            f"this CPU does not compute in bfloat16, says OpenVINO {openvino.__version__}; "
            f"it offers {', '.join(capabilities)}",
            fix="run with --provider cpu, or on a processor with AVX512-BF16 or AMX",
        )


def _placement(engine: Any) -> dict[str, int]:
    """How many operators run as which provider; what is computed only from weights is done once, and not counted."""
    constant: set[str] = set()
    counts = Counter[str]()
    for operator in engine.get_runtime_model().get_ordered_ops():
        facts = operator.get_rt_info()
        kind = facts["layerType"].astype(str)
        sources = [value.get_node().get_friendly_name() for value in operator.input_values()]
        if kind == "Const" or (sources and constant.issuperset(sources)):
            constant.add(operator.get_friendly_name())
        elif kind not in ("Input", "Output"):
            counts[BF16 if facts["runtimePrecision"].astype(str) == "bf16" else "cpu"] += 1
    return dict(counts)


def _fix(artifact: Artifact) -> str:
    # See `exporters.onnx.static`.
    open_batch = artifact.precision == "int8-static" and artifact.input.batch is None
    return (
        "export the model again with --batch 1, which OpenVINO may take where it takes no open one"
        if open_batch
        else FIX
    )


def explained(doing: str, fix: str = FIX) -> engine_errors.explained:
    """A block in which OpenVINO's errors become ours; it raises nothing more specific than a RuntimeError."""
    return engine_errors.explained(
        f"OpenVINO {openvino.__version__} cannot {doing}", RuntimeError, fix, words=_informative
    )


def _informative(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip() and not line.startswith(UNINFORMATIVE)]
    return (lines or ["it does not say why"])[0]
