"""The graph that tf2onnx makes of a ViT's structure, with the weights as inputs."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir
import tensorflow as tf
import tf2onnx.tfonnx

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.engine_errors import explained
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.outputs import Output
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.errors import ExportError
from vit_deploy.exporters.failures import REPORT, explained_tensorflow_errors
from vit_deploy.exporters.tracing import TracedViT

OPSET = 18  # the newest that tf2onnx speaks


def traced_structure(
    checkpoint: Checkpoint, spec: InputSpec, outputs: Sequence[Output] = (), *, turned_first: bool = False
) -> ir.Model:
    """The graph as tf2onnx spells it, for any batch: inputs are the images and every weight, by canonical name.

    Args:
        checkpoint: whose structure is traced.
        spec: the input of the file.
        outputs: its outputs by name; none for the one that the config says.
        turned_first: see `TracedViT`.

    Raises:
        ExportError: tf2onnx logged an error, such as an operator that ONNX does not have.
        EngineError: TensorFlow or tf2onnx failed.
    """
    with explained_tensorflow_errors("tracing the model"), quiet_stderr():
        any_batch = dataclasses.replace(spec, shape=(None, *spec.shape[1:]))
        traced = TracedViT(checkpoint, any_batch, outputs=outputs, turned_first=turned_first)

        def serve(images: Any, *weights: Any) -> Any:
            return traced.call(images, weights)

        function = tf.function(serve, input_signature=[traced.images_spec(), *traced.weight_specs()], autograph=False)
        concrete = function.get_concrete_function()
        with _logged_errors_raised():
            structure = _converted(concrete)
    for value, name in zip(structure.graph.inputs, (spec.name, *traced.names), strict=True):
        value.name = name
    names = [output.name for output in outputs] or [checkpoint.config.output_name]
    for value, name in zip(structure.graph.outputs, names, strict=True):
        value.name = name
    return structure


def _converted(concrete: Any) -> ir.Model:
    what = f"tf2onnx {tf2onnx.__version__} failed on TensorFlow {tf.__version__}'s graph"
    raised = (ValueError, TypeError, KeyError, RuntimeError, AssertionError, NotImplementedError)
    with explained(what, raised, REPORT, words=str):
        graph = tf2onnx.tfonnx.process_tf_graph(
            concrete.graph,
            opset=OPSET,
            custom_op_handlers={"Erfc": (_as_erf, [])},
            input_names=[tensor.name for tensor in concrete.inputs],
            output_names=[output.name for output in concrete.outputs],
        )
        return ir.from_proto(graph.make_model("ViT"))


def _as_erf(context: Any, node: Any, name: str, args: Any) -> None:
    # tf2onnx has no Erfc: erfc(x) = 1 - erf(x).
    one = context.make_const(f"{name}_one", tf.ones((), tf.float32).numpy())
    context.remove_node(name)
    erf = context.make_node("Erf", [node.input[0]])
    context.make_node("Sub", [one.output[0], erf.output[0]], outputs=[node.output[0]], name=name)


class _Collected(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextlib.contextmanager
def _logged_errors_raised() -> Iterator[None]:
    """Silence tf2onnx's log, and raise what it has there as errors: it would write a file all the same."""
    collected = _Collected(logging.ERROR)
    logger = logging.getLogger("tf2onnx")
    before = logger.handlers, logger.propagate, logger.level
    logger.handlers, logger.propagate = [collected], False
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.handlers, logger.propagate = before[:2]
        logger.setLevel(before[2])
    if collected.messages:
        raise ExportError(
            f"tf2onnx cannot express the model in ONNX: {'; '.join(collected.messages)}",
            fix="export another format, or report the model's options",
        )
