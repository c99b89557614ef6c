"""LiteRT as the runtime of TFLite artifacts."""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter, OpResolverType, load_delegate
from numpy.typing import NDArray

from vit_deploy.core import engine_errors
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.engine_paths import engine_path
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.errors import EngineError
from vit_deploy.runtimes import RuntimeOptions, is_library
from vit_deploy.runtimes.batching import in_batches, outputs_in_batches
from vit_deploy.runtimes.values import (
    as_stored,
    checked_images,
    dequantized,
    missing_output,
    refuse_other_input,
    refuse_unplaced,
)

SIGNATURE = "serving_default"
DELEGATE = "DELEGATE"
XNNPACK = "xnnpack"
FIX = (
    "export the model again with this version, in another precision if it is this one that is refused; "
    "--provider cpu runs it without XNNPACK"
)
DELEGATE_EXPORTS = ("tflite_plugin_create_delegate", "tflite_plugin_destroy_delegate")


class LiteRT:
    """LiteRT's interpreter.

    Its providers are `xnnpack`, which is what it takes by itself, `cpu` for its own kernels without any delegate, and
    the path of a shared library that holds an external delegate; what that one leaves goes to XNNPACK.
    """

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[LiteRTSession]:
        """Load an artifact.

        Raises:
            EngineError: a file that LiteRT refuses, or a provider that is not there or takes nothing of the graph.
        """
        requested = options.provider
        delegates = [_delegate(requested)] if requested is not None and is_library(requested) else []
        if requested not in (None, "cpu", XNNPACK) and not delegates:
            raise EngineError(
                f"LiteRT has no provider {requested!r}",
                fix=f"choose {XNNPACK}, cpu, or the path of a delegate's library",
            )
        kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES if requested == "cpu" else OpResolverType.AUTO
        with explained(f"load {artifact.model_path}"), quiet_stderr():
            first = _with_graph_first(artifact) if artifact.signature else None
            source = {"model_path": engine_path(artifact.model_path)} if first is None else {"model_content": first}
            engine = Interpreter(
                **source,
                num_threads=options.threads,
                experimental_delegates=delegates,
                experimental_op_resolver_type=kernels,
            )
            taken = {operator["index"] for operator in engine._get_ops_details() if operator["op_name"] == DELEGATE}
            engine.allocate_tensors()
        placement = _placement(engine, taken, Path(requested).name if delegates and requested else "")
        session = LiteRTSession(engine, artifact, _provider(requested, placement), placement)
        refuse_unplaced(session, artifact)
        try:
            yield session
        finally:
            session.close()


class LiteRTSession:
    """One loaded TFLite file, whose calls come one after the other: an interpreter has one place for their tensors."""

    def __init__(self, engine: Interpreter, artifact: Artifact, provider: str, placement: Mapping[str, int]) -> None:
        signatures = engine.get_signature_list()
        nothing: dict[str, list[str]] = {"inputs": [], "outputs": []}
        key = artifact.signature or SIGNATURE
        signature = signatures.get(key) or next(iter(signatures.values()), nothing)
        given = engine.get_input_details()[0]
        name = signature["inputs"][0] if signature["inputs"] else given["name"]
        refuse_other_input(artifact, name, [int(side) for side in given["shape_signature"]])
        found = _outputs_by_name(engine, signatures, signature["outputs"], key)
        names = artifact.output_names
        if not set(names) <= set(found) or (len(found) > len(names) and not artifact.is_bare):
            raise missing_output(artifact, list(found))
        self.provider = provider
        self.placement = placement
        self.notes: Sequence[str] = ()
        self._engine = engine
        self._turn = threading.Lock()
        self._artifact = artifact
        self._input = given["index"]
        self._outputs = {name: found[name] for name in names}
        self._shape = tuple(map(int, given["shape"]))

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        return in_batches(self._run, checked_images(images, self._artifact), self._artifact.input.batch)

    def infer_outputs(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """Every recorded output by its name; see `runtimes.NamedSession`."""
        return outputs_in_batches(self._run_all, checked_images(images, self._artifact), self._artifact.input.batch)

    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        return self._read(images, [self._artifact.output_name])[self._artifact.output_name]

    def _run_all(self, images: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        return self._read(images, list(self._outputs))

    def _read(self, images: NDArray[Any], names: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        # Tensors by index: a signature runner looks every tensor up by name at each call.
        stored = as_stored(images, self._artifact.input)
        with self._turn, explained(f"run {self._artifact.model_path}"):
            if stored.shape != self._shape:  # a file for any number of images is laid out for one number of them
                self._engine.resize_tensor_input(self._input, stored.shape)
                self._engine.allocate_tensors()
                self._shape = stored.shape
            self._engine.set_tensor(self._input, stored)
            self._engine.invoke()
            outputs = {name: self._engine.get_tensor(self._outputs[name]["index"]) for name in names}
        return {name: _as_float(values, self._outputs[name]) for name, values in outputs.items()}

    def close(self) -> None:
        """Free the interpreter and its weights."""
        self._engine = None


def _with_graph_first(artifact: Artifact) -> Any:
    from vit_deploy.formats.tflite.file import with_graph_first  # a file with one graph is loaded as it is

    return with_graph_first(artifact.model_path, artifact.signature)


def _as_float(values: NDArray[Any], output: Mapping[str, Any]) -> NDArray[np.float32]:
    scale, zero_point = output["quantization"]
    if np.issubdtype(output["dtype"], np.integer):
        return dequantized(values, float(scale), zero_point)
    return np.asarray(values, np.float32)


def _outputs_by_name(
    engine: Interpreter, signatures: Mapping[str, Any], names: Sequence[str], key: str
) -> dict[str, Any]:
    """What the engine says of each output, by its name in the signature; by the tensor's in a file without one."""
    if not names:
        return {output["name"]: output for output in engine.get_output_details()}
    if key not in signatures:
        key = next(key for key, signature in signatures.items() if signature["outputs"] == names)
    details: dict[str, Any] = engine.get_signature_runner(key).get_output_details()
    return details


def _delegate(path: str) -> Any:
    if not Path(path).is_file():
        raise EngineError(f"there is no delegate {path}", fix="give the path of its shared library")
    try:
        # Looked at first: one that was loaded in part only complains once more when it is freed.
        library = ctypes.CDLL(str(Path(path).resolve()))
        if absent := [name for name in DELEGATE_EXPORTS if not hasattr(library, name)]:
            raise ValueError(f"it does not export {', '.join(absent)}")
        return load_delegate(str(Path(path).resolve()))
    except (OSError, ValueError) as error:
        raise EngineError(
            f"{path} cannot be loaded as a delegate: {str(error).strip().splitlines()[-1]}",
            fix="give a library that is a TFLite delegate, made for this machine",
        ) from error


def _provider(requested: str | None, placement: Mapping[str, int]) -> str:
    """What to call that which executes the graph; unasked, a delegate counts only if it executes all of it."""
    if requested is None:
        return next(iter(placement)) if len(placement) == 1 else "cpu"
    return Path(requested).name


def _placement(engine: Interpreter, taken: Collection[int], delegate: str) -> dict[str, int]:
    """How many operators run where.

    The listing keeps the operators that a delegate took over: those on the way from its inputs to its outputs.

    Args:
        engine: the interpreter, with its tensors allocated.
        taken: indices of the entries that stand for what the external delegate took.
        delegate: name of that one.
    """
    entries = engine._get_ops_details()  # there is no public way to ask
    makers = {int(index): entry for entry in entries if entry["op_name"] != DELEGATE for index in entry["outputs"]}
    counts = Counter[str]()
    found: set[int] = set()
    for entry in (entry for entry in entries if entry["op_name"] == DELEGATE):
        outside = {int(index) for index in entry["inputs"]}
        waiting = [int(index) for index in entry["outputs"]]
        while waiting:
            tensor = waiting.pop()
            if tensor in outside or tensor not in makers or makers[tensor]["index"] in found:
                continue
            found.add(makers[tensor]["index"])
            counts[delegate if entry["index"] in taken else XNNPACK] += 1
            waiting += [int(index) for index in makers[tensor]["inputs"]]
    if left := sum(entry["op_name"] != DELEGATE for entry in entries) - len(found):
        counts["cpu"] = left
    return dict(counts)


def explained(doing: str) -> engine_errors.explained:
    """A block in which LiteRT's errors become ours; it raises nothing more specific than these."""
    return engine_errors.explained(f"LiteRT cannot {doing}", (ValueError, RuntimeError), FIX)
