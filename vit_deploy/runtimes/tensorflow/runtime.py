"""Plain TensorFlow as the runtime of SavedModel artifacts."""

from __future__ import annotations

import contextlib
import glob
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.eager import context  # there is no public way to ask where operators run

from vit_deploy.core import engine_errors
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.errors import EngineError
from vit_deploy.runtimes import GPU_PROVIDERS, RuntimeOptions, infer_on_device
from vit_deploy.runtimes.batching import groups, in_batches, joined, outputs_in_batches
from vit_deploy.runtimes.tensorflow.options import DEVICES, ONE_STREAM, apply, open_device, tf32
from vit_deploy.runtimes.values import (
    as_stored,
    blank_images,
    checked_images,
    missing_output,
    refuse_other_input,
    refuse_unplaced,
)

SIGNATURE = "serving_default"
# Nodes that compute nothing.
NO_WORK = {
    "_Arg",
    "_DeviceArg",
    "_Retval",
    "_DeviceRetval",
    "_Send",
    "_Recv",
    "_HostSend",
    "_HostRecv",
    "Const",
    "NoOp",
}


# What TensorFlow and its loader, which is Python, raise of a file that is damaged.
BROKEN = (
    *(tf.errors.OpError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, AssertionError),
    RuntimeError,
)
OUT_OF_MEMORY = engine_errors.Reason("out of memory", "take a smaller batch, or fewer cases at once")


class SavedModelRuntime:
    """`tf.saved_model.load` and its `serving_default` signature."""

    def prepare(self, options: RuntimeOptions = RuntimeOptions()) -> None:
        """Open the device; see `runtimes.DeviceRuntime`.

        Raises:
            EngineError: options that TensorFlow cannot take, or a device that it cannot open.
        """
        with explained("open the device"), quiet_stderr():
            open_device(tf, apply(tf, options))

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[SavedModelSession]:
        """Load an artifact.

        Raises:
            EngineError: a folder that TensorFlow refuses, or options that it cannot take.
        """
        with quiet_stderr():
            provider = apply(tf, options)
        with tf32(tf, provider, options.allow_tf32), self._loaded(artifact, provider) as session:
            yield session

    @contextlib.contextmanager
    def _loaded(self, artifact: Artifact, provider: str) -> Iterator[SavedModelSession]:
        with (
            explained(f"load {artifact.model_path}"),
            quiet_stderr(),
            tf.device(DEVICES[provider]),
            literal(artifact.model_path) as path,
        ):
            engine = tf.saved_model.load(str(path))
        session: SavedModelSession
        if provider in GPU_PROVIDERS:
            session = on_device = SavedModelDeviceSession(engine, artifact, provider)
            start = time.perf_counter_ns()
            with explained(f"run {artifact.model_path}"), quiet_stderr():
                session.placement = placement(lambda: on_device.infer(blank_images(artifact)))
            on_device.trial_ns = time.perf_counter_ns() - start
            refuse_unplaced(session, artifact)
        else:
            session = SavedModelSession(engine, artifact, provider)
        try:
            yield session
        finally:
            session.close()


class SavedModelSession:
    """One loaded SavedModel."""

    def __init__(self, engine: Any, artifact: Artifact, provider: str) -> None:
        signature = engine.signatures.get(SIGNATURE)
        if signature is None:
            raise EngineError(f"{artifact.model_path} has no signature {SIGNATURE}", fix="export the model again")
        _, inputs = signature.structured_input_signature
        name, given = next(iter(inputs.items()))
        refuse_other_input(artifact, name, given.shape.as_list())
        if not set(artifact.output_names) <= set(signature.structured_outputs):
            raise missing_output(artifact, list(signature.structured_outputs))
        self.provider = provider
        self.placement: Mapping[str, int] = {}
        self.notes: Sequence[str] = ()
        self._engine = engine  # a signature alone does not keep its variables
        self._signature = signature
        self._artifact = artifact

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        return in_batches(self._run, checked_images(images, self._artifact), self._artifact.input.batch)

    def infer_outputs(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Every recorded output by its name; see `runtimes.NamedSession`."""
        return outputs_in_batches(self._run_all, checked_images(images, self._artifact), self._artifact.input.batch)

    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        return self._read(images, [self._artifact.output_name])[self._artifact.output_name]

    def _run_all(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return self._read(images, self._artifact.output_names)

    def _read(self, images: NDArray[Any], names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        spec = self._artifact.input
        with explained(f"run {self._artifact.model_path}"), tf.device(DEVICES[self.provider]):
            outputs = self._signature(**{spec.name: tf.convert_to_tensor(as_stored(images, spec))})
            return {name: np.asarray(outputs[name].numpy(), np.float32) for name in names}

    def close(self) -> None:
        """Free the model and its weights."""
        self._engine = self._signature = None


class SavedModelDeviceSession(SavedModelSession):
    """One loaded SavedModel whose inputs and outputs stay on a device until they are requested.

    Its steps are for one thread; `infer` is whole, whatever other threads call.
    """

    trial_ns = 0
    build_ns = 0
    _given: Sequence[Any] = ()
    _results: Sequence[Any] = ()
    _count = 0

    def __init__(self, engine: Any, artifact: Artifact, provider: str) -> None:
        super().__init__(engine, artifact, provider)
        self.notes = (ONE_STREAM,)
        self._whole = threading.Lock()

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        with self._whole:
            return infer_on_device(self, images)

    def upload(self, images: NDArray[Any]) -> None:
        """Copy images to the device; see `runtimes.DeviceSession`."""
        spec = self._artifact.input
        parts = groups(checked_images(images, self._artifact), spec.batch)
        with explained(f"copy images for {self._artifact.model_path}"), tf.device(DEVICES[self.provider]):
            self._given = [tf.identity(tf.convert_to_tensor(as_stored(part, spec))) for part in parts]
            self._count = len(images)
            tf.test.experimental.sync_devices()

    def compute(self) -> None:
        """Run the model on what was uploaded last, to the end."""
        self.launch()
        self.wait()

    def launch(self) -> None:
        """Ask the device to run the model on what was uploaded last; see `runtimes.DeviceSession`."""
        name = self._artifact.output_name
        with explained(f"run {self._artifact.model_path}"), tf.device(DEVICES[self.provider]):
            self._results = [self._signature(**{self._artifact.input.name: part})[name] for part in self._given]

    def wait(self) -> None:
        """Return when the device has finished."""
        with explained(f"run {self._artifact.model_path}"), tf.device(DEVICES[self.provider]):
            tf.test.experimental.sync_devices()

    def download(self) -> NDArray[np.float32]:
        """Copy the outputs of the last `compute` to the host."""
        with explained(f"copy the outputs of {self._artifact.model_path}"):
            outputs = [result.numpy() for result in self._results]
        return np.asarray(joined(outputs, self._count), np.float32)

    def close(self) -> None:
        """Free the model, its weights, and what lies on the device."""
        self._given = self._results = ()
        super().close()


def placement(call: Callable[[], object]) -> dict[str, int]:
    """How many operators of the graphs that a call runs, each for the first time, each provider gets.

    TensorFlow moves an operator that has no kernel for a GPU to the CPU without a word; it is told by the graphs that
    are really run.
    """
    context.enable_run_metadata()
    try:
        call()
        found = context.export_run_metadata()
    finally:
        context.disable_run_metadata()
    nodes = [node for graph in found.partition_graphs for node in graph.node if node.op not in NO_WORK]
    return dict(Counter("cuda" if "/device:GPU:" in node.device else "cpu" for node in nodes))


@contextlib.contextmanager
def literal(path: Path) -> Iterator[Path]:
    """A path by which TensorFlow finds a SavedModel, whatever its folder is called."""
    engine_path(path)
    # TensorFlow takes the path of the variables for a pattern, in which a folder "[a]" stands for "a".
    if glob.escape(str(path)) == str(path):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / path.name
        link.symlink_to(path.resolve(), target_is_directory=True)
        yield link


def explained(doing: str) -> engine_errors.explained:
    """A block in which TensorFlow's errors become ours."""
    return engine_errors.explained(
        f"TensorFlow {tf.__version__} cannot {doing}",
        BROKEN,
        "export the model again, or check the installation with vit-deploy doctor",
        reason=lambda error: OUT_OF_MEMORY if isinstance(error, tf.errors.ResourceExhaustedError) else None,
    )
