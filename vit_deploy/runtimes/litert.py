"""How does LiteRT run a bundle?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from vit_deploy.artifact import Artifact
from vit_deploy.errors import EngineError
from vit_deploy.quiet import quiet_stderr
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.batching import in_batches
from vit_deploy.runtimes.values import as_stored, checked_images, dequantized, missing_output, refuse_other_input

SIGNATURE = "serving_default"
DELEGATE = "DELEGATE"


class LiteRT:
    """LiteRT's interpreter with its default delegate, XNNPACK."""

    @contextlib.contextmanager
    def open(self, artifact: Artifact, options: RuntimeOptions = RuntimeOptions()) -> Iterator[LiteRTSession]:
        """Load an artifact.

        Raises:
            EngineError: a file that LiteRT refuses, or a provider that it is not run with.
        """
        with explained(f"load {artifact.model_path}"), quiet_stderr():
            engine = Interpreter(model_path=str(artifact.model_path), num_threads=options.threads)
            engine.allocate_tensors()
            session = LiteRTSession(engine, artifact)
        if options.provider not in (None, session.provider):
            raise EngineError(
                f"{artifact.model_path} runs on {session.provider}, not on {options.provider!r}",
                fix=f"leave the provider out, or ask for {session.provider}",
            )
        try:
            yield session
        finally:
            session.close()


class LiteRTSession:
    """One loaded TFLite file."""

    def __init__(self, engine: Interpreter, artifact: Artifact) -> None:
        signature = engine.get_signature_list().get(SIGNATURE, {"inputs": [], "outputs": []})
        (given, *_), outputs = engine.get_input_details(), engine.get_output_details()
        name = signature["inputs"][0] if signature["inputs"] else given["name"]
        refuse_other_input(artifact, name, [int(side) for side in given["shape_signature"]])
        if signature["outputs"] != [artifact.config.output_name] or len(outputs) != 1:
            raise missing_output(artifact, signature["outputs"])
        self.provider = "xnnpack" if _is_delegated(engine) else "cpu"
        self._engine = engine
        self._artifact = artifact
        self._input, self._output = given["index"], outputs[0]["index"]
        scale, self._zero_point = outputs[0]["quantization"]
        self._scale = float(scale) if np.issubdtype(outputs[0]["dtype"], np.integer) else None

    def infer(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Outputs `(batch, …)` for images `(batch, height, width, channels)`; see `runtimes.Session`."""
        return in_batches(self._run, checked_images(images, self._artifact), self._artifact.input.batch)

    def _run(self, images: NDArray[Any]) -> NDArray[np.float32]:
        # Tensors by index: a signature runner looks every tensor up by name at each call.
        with explained(f"run {self._artifact.model_path}"):
            self._engine.set_tensor(self._input, as_stored(images, self._artifact.input))
            self._engine.invoke()
            output: NDArray[Any] = self._engine.get_tensor(self._output)
        if self._scale is not None:
            return dequantized(output, self._scale, self._zero_point)
        return np.asarray(output, np.float32)

    def close(self) -> None:
        """Free the interpreter and its weights."""
        self._engine = None


def _is_delegated(engine: Interpreter) -> bool:
    """Whether one delegate computes everything.

    The listing keeps the operators that a delegate took over, so what counts is that a single delegate reads
    nothing that another operator computes, and that all outputs are its own.
    """
    operators = engine._get_ops_details()  # there is no public way to ask
    delegates = [each for each in operators if each["op_name"] == DELEGATE]
    if len(delegates) != 1:
        return False
    computed = {int(index) for each in operators if each["op_name"] != DELEGATE for index in each["outputs"]}
    outputs = {each["index"] for each in engine.get_output_details()}
    return not computed & {int(index) for index in delegates[0]["inputs"]} and outputs <= set(delegates[0]["outputs"])


@contextlib.contextmanager
def explained(doing: str) -> Iterator[None]:
    """Raise what LiteRT raises as an `EngineError`."""
    try:
        yield
    except (ValueError, RuntimeError) as error:  # it raises nothing more specific
        raise EngineError(
            f"LiteRT cannot {doing}: {str(error).strip().splitlines()[0]}",
            fix="export the model again, or check the installation with vit-deploy doctor",
        ) from error
