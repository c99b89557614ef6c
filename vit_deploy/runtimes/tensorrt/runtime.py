"""TensorRT plans, run by the Python API of TensorRT or TensorRT for RTX."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.cache import cache_folder, read_cached, write_cached
from vit_deploy.core.options.tensorrt import FULL, RTX
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.errors import EngineError
from vit_deploy.formats.tensorrt_plan import PROVIDERS, TITLES, PlanRecord
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.batching import groups_within, joined
from vit_deploy.runtimes.cuda.memory import Device, Gpu, hold_device, open_device
from vit_deploy.runtimes.cuda.streams import Buffer, CudaGraph
from vit_deploy.runtimes.tensorrt.engine import Complaints, explained, is_installed, load_engine, make_log
from vit_deploy.runtimes.tensorrt.refusals import AGAIN, GPU, refuse_foreign, refuse_invalid, refuse_options
from vit_deploy.runtimes.values import as_stored, checked_images, dequantized, missing_output, refuse_other_input


class TensorRT:
    """Plans, in the TensorRT that built them."""

    def prepare(self, options: RuntimeOptions = RuntimeOptions()) -> None:
        """Open the GPU, and load TensorRT where it is clear of which kind; see `runtimes.DeviceRuntime`."""
        hold_device(options.device)
        flavours = [
            flavour
            for flavour in TITLES
            if is_installed(flavour) and options.provider in (None, GPU, PROVIDERS[flavour])
        ]
        if len(flavours) == 1:
            load_engine(flavours[0])

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[PlanSession]:
        """Load a plan.

        Raises:
            ArtifactError: a manifest that does not say how the plan was built.
            MissingEngineError: the TensorRT that built it is not installed.
            EngineError: there is no GPU, the plan is for another one, of another version or damaged, or built with
                other rounding than what is requested.
        """
        record = PlanRecord.of(artifact)
        refuse_options(record, options, artifact.model_path)
        with contextlib.ExitStack() as stack:
            try:
                device = stack.enter_context(open_device(options.device))
            except EngineError as error:
                raise EngineError(f"cannot run {artifact.model_path}: {error.message}", fix=error.fix) from error
            session = PlanSession(artifact, record, options, device)
            stack.callback(session.close)
            session.load()
            yield session


class PlanSession:
    """One loaded plan, whose inputs and outputs stay on the GPU until they are requested; it takes a call at a time."""

    trial_ns = 0
    build_ns = 0

    def __init__(self, artifact: Artifact, record: PlanRecord, options: RuntimeOptions, device: Device) -> None:
        self.provider = PROVIDERS[record.flavour]
        self.placement: Mapping[str, int] = {}  # its layers are no operators of the model
        self.notes: Sequence[str] = tuple(_notes(record, device.gpu))
        self._artifact = artifact
        self._record = record
        self._device = device
        self._records_graphs = options.cuda_graph
        self._complaints = Complaints()
        self._lock = threading.RLock()  # so that `infer` is one step for other threads
        self._stream = device.stream()
        self._calls: list[_Call] = []
        self._bound: _Call | None = None
        self._count = 0
        self._plan: Any = None
        self._context: Any = None
        self._runtime_cache: Any = None

    def load(self) -> None:
        """Read the plan, and refuse one that is not what its manifest says.

        Raises:
            MissingEngineError, EngineError: as `TensorRT.open`.
        """
        record, artifact, path = self._record, self._artifact, self._artifact.model_path
        engine = load_engine(record.flavour)
        refuse_foreign(record, engine.__version__, self._device.gpu, path)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise EngineError(f"cannot read {path}: {error.strerror}", fix="check its permissions") from error
        with self._explained("load"):
            self._log = make_log(engine, self._complaints)  # TensorRT does not keep it
            self._runtime = engine.Runtime(self._log)
            refuse_invalid(engine, self._runtime, content, path)
            self._plan = self._runtime.deserialize_cuda_engine(content)
        if self._plan is None:
            raise self._refused("load")
        self._names = [self._plan.get_tensor_name(index) for index in range(self._plan.num_io_tensors)]
        inputs = [name for name in self._names if self._plan.get_tensor_mode(name) == engine.TensorIOMode.INPUT]
        outputs = [name for name in self._names if name not in inputs]
        refuse_other_input(artifact, inputs[0], tuple(self._plan.get_tensor_shape(inputs[0])))
        if artifact.config.output_name not in outputs:
            raise missing_output(artifact, outputs)
        with self._explained("load"):
            self._dtypes = {name: np.dtype(engine.nptype(self._plan.get_tensor_dtype(name))) for name in self._names}
        if self._dtypes[artifact.input.name] != np.dtype(artifact.input.dtype):
            raise EngineError(
                f"{path} takes {self._dtypes[artifact.input.name]}; its manifest says {artifact.input.dtype}", fix=AGAIN
            )
        self._least, self._most = _batches(self._plan, artifact)
        start = time.perf_counter_ns()
        with self._explained("load"):
            self._context = self._new_context(engine)
        if self._context is None:
            raise self._refused("load")
        if record.flavour == RTX:  # what it compiles for this GPU before the first call
            self.build_ns = time.perf_counter_ns() - start

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        with self._lock:
            self._upload(images)
            self.compute()
            return self.download()

    def upload(self, images: NDArray[Any]) -> None:
        """Copy images to the device; see `runtimes.DeviceSession`.

        Raises:
            EngineError: more or fewer than one call takes of a plan with an open batch, so that what is timed is one.
        """
        if self._artifact.input.batch is None and not self._least <= len(images) <= self._most:
            raise EngineError(
                f"{self._artifact.model_path} was built for batches of {self._least} to {self._most} images, and "
                f"{len(images)} a call are requested",
                fix=f"ask for another batch, or export the plan again with a --batch-range that holds {len(images)}",
            )
        self._upload(images)

    def _upload(self, images: NDArray[Any]) -> None:
        parts = groups_within(checked_images(images, self._artifact), self._least, self._most)
        stored = [as_stored(part, self._artifact.input) for part in parts]
        with self._working():
            if [part.shape for part in stored] != [call.shape for call in self._calls]:
                self._release()
                for part in stored:
                    self._calls.append(self._new_call(part))
            for call, part in zip(self._calls, stored, strict=True):
                self._stream.upload(part, call.buffers[self._artifact.input.name])
            self._stream.wait()
            self._count = len(images)

    def compute(self) -> None:
        """Run the model on what was uploaded last, to the end."""
        with self._lock:
            self.launch()
            self.wait()

    def launch(self) -> None:
        """Ask for a run on what was uploaded last; see `runtimes.DeviceSession`."""
        with self._working():
            for call in self._calls:
                if not self._records_graphs:
                    self._enqueue(call)
                    continue
                if call.graph is None:
                    self._enqueue(call)  # TensorRT prepares itself for a shape in the first call of it
                    self._stream.wait()
                    call.graph = self._recorded(call)
                call.graph.launch(self._stream)

    def wait(self) -> None:
        """Return when the device has finished."""
        with self._working():
            self._stream.wait()

    def download(self) -> NDArray[np.float32]:
        """Copy the outputs of the last `compute` to the host."""
        name, spec = self._artifact.config.output_name, self._artifact.output
        with self._working():
            outputs = [np.empty(call.shapes[name], self._dtypes[name]) for call in self._calls]
            for call, output in zip(self._calls, outputs, strict=True):
                self._stream.download(call.buffers[name], output)
            self._stream.wait()
        found = joined(outputs, self._count)
        if spec.scale is not None:
            return dequantized(found, spec.scale, spec.zero_point or 0)
        return np.asarray(found, np.float32)

    def close(self) -> None:
        """Free the plan, its weights, and what lies on the device."""
        with self._working():
            self._stream.wait()
            self._release()
            if self._runtime_cache is not None:
                write_cached(self._cache_path(), bytes(self._runtime_cache.serialize()))
            # In this order: each is used by the one before it.
            self._context = self._runtime_cache = self._plan = self._runtime = None

    @contextlib.contextmanager
    def _working(self) -> Iterator[None]:
        with self._lock:
            self._device.use()  # another thread may not have
            yield

    @contextlib.contextmanager
    def _explained(self, doing: str) -> Iterator[None]:
        what = f"{doing} {self._artifact.model_path}"
        with explained(what, self._record.flavour, self._complaints, AGAIN), quiet_stderr():
            yield

    def _refused(self, doing: str) -> EngineError:
        return EngineError(
            f"{self._record.title} cannot {doing} {self._artifact.model_path}: {self._complaints.text}", fix=AGAIN
        )

    def _new_context(self, engine: Any) -> Any:
        if self._record.flavour == FULL:
            return self._plan.create_execution_context()
        config = self._plan.create_runtime_config()
        # Else the calls that are timed would run in makeshift kernels until better ones are compiled.
        config.dynamic_shapes_kernel_specialization_strategy = engine.DynamicShapesKernelSpecializationStrategy.EAGER
        self._runtime_cache = config.create_runtime_cache()
        if kept := read_cached(self._cache_path()):
            self._runtime_cache.deserialize(kept)  # it refuses what was compiled elsewhere, and compiles again
        config.set_runtime_cache(self._runtime_cache)
        return self._plan.create_execution_context(config)

    def _cache_path(self) -> Path:
        digest = self._artifact.files.get(self._artifact.model_path.name, ("unknown", 0))[0]
        kind = hashlib.sha256(f"{digest} {self._record.version} {self._device.gpu}".encode()).hexdigest()
        return cache_folder() / "tensorrt-plans" / f"runtime-{kind[:32]}.cache"

    def _new_call(self, images: NDArray[Any]) -> _Call:
        self._set_shape(images.shape)
        shapes = {name: tuple(self._context.get_tensor_shape(name)) for name in self._names}
        call = _Call(images.shape, shapes, {})
        for name, shape in shapes.items():
            size = int(np.prod(shape, dtype=np.int64)) * self._dtypes[name].itemsize
            call.buffers[name] = self._device.allocate(size)
        return call

    def _set_shape(self, shape: tuple[int, ...]) -> None:
        if not self._context.set_input_shape(self._artifact.input.name, shape):
            raise self._refused(f"take {shape[0]} images in a call of")

    def _enqueue(self, call: _Call) -> None:
        if self._bound is not call:
            self._set_shape(call.shape)
            for name, buffer in call.buffers.items():
                if not self._context.set_tensor_address(name, buffer.address):
                    raise self._refused("run")
            self._bound = call
        if not self._context.execute_async_v3(self._stream.handle):
            raise self._refused("run")

    def _recorded(self, call: _Call) -> CudaGraph:
        able = getattr(self._context, "is_stream_capturable", None)  # only of TensorRT for RTX
        if able is not None and not able(self._stream.handle):
            raise self._refused("record a CUDA graph of")
        with self._stream.capturing() as capture:
            self._enqueue(call)
        assert capture.graph is not None
        return capture.graph

    def _release(self) -> None:
        self._bound = None
        for call in self._calls:
            if call.graph is not None:
                call.graph.close()
            for buffer in call.buffers.values():
                self._device.free(buffer)
        self._calls = []

    _names: Sequence[str] = ()
    _runtime: Any = None
    _log: Any = None


@dataclass
class _Call:
    """What one call of a plan works on.

    Attributes:
        shape: the shape of its images.
        shapes: the shapes of all inputs and outputs, by name.
        buffers: their buffers on the device, by name.
        graph: the CUDA graph of its kernels, once it was recorded.
    """

    shape: tuple[int, ...]
    shapes: Mapping[str, tuple[int, ...]]
    buffers: dict[str, Buffer]
    graph: CudaGraph | None = None


def _notes(record: PlanRecord, gpu: Gpu) -> Iterator[str]:
    if record.tf32:
        yield "factors of fp32 products are rounded to 11 bits (TF32)"
    if record.flavour == RTX:
        yield "TensorRT for RTX compiles kernels for this GPU in the first call of each batch"
    elif record.gpu not in (None, gpu.name):
        yield f"the plan was tuned on another GPU, {record.gpu}; this is {gpu.name}"


def _batches(plan: Any, artifact: Artifact) -> tuple[int, int]:
    """The least and the most images a call, which the plan itself says."""
    if artifact.input.batch is not None:
        return artifact.input.batch, artifact.input.batch
    least, _, most = plan.get_tensor_profile_shape(artifact.input.name, 0)
    return int(least[0]), int(most[0])
