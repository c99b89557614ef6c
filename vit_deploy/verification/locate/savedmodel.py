"""Intermediate activations of a SavedModel in TensorFlow."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from typing import Any

import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.framework import convert_to_constants

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.stderr import quiet_stderr
from vit_deploy.runtimes.tensorflow.runtime import SIGNATURE, explained, literal
from vit_deploy.runtimes.values import as_stored
from vit_deploy.verification.locate.flow import Flow, Node

CALL = "StatefulPartitionedCall/"  # in front of every name, from the function that the signature calls


class SavedModelTapper:
    """TensorFlow on the CPU; the signature's functions are laid out as one graph, which is cut where it is asked."""

    @contextlib.contextmanager
    def open(self, artifact: Artifact) -> Iterator[OpenedSavedModel]:
        """Load an artifact; see `locate.Tapper`."""
        with (
            explained(f"show what {artifact.model_path} computes"),
            quiet_stderr(),
            tf.device("/CPU:0"),
            literal(artifact.model_path) as path,
        ):
            engine = tf.saved_model.load(str(path))
            yield OpenedSavedModel(engine, artifact)


class OpenedSavedModel:
    """A SavedModel; values go by their tensors' names in the laid out graph."""

    def __init__(self, engine: Any, artifact: Artifact) -> None:
        self._engine = engine  # a function does not keep its variables
        self._artifact = artifact
        self._function = _laid_out(engine.signatures[SIGNATURE])
        self.flow = _flow(self._function, artifact)

    def values(self, names: Sequence[str], images: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """What is computed on the way; see `locate.Opened`."""
        graph = self._function.graph
        cut = self._function.prune(self.flow.input, [graph.get_tensor_by_name(name) for name in names])
        found = cut(tf.convert_to_tensor(as_stored(images, self._artifact.input)))
        return {name: value.numpy() for name, value in zip(names, found, strict=True)}


def _laid_out(function: Any) -> Any:
    """The function with those that it calls written out in their place, its variables still outside."""
    # What TensorFlow's own freezing begins with, without the limit of 2 GB for what follows.
    definition = convert_to_constants._run_inline_graph_optimization(function, False, False)

    def imported() -> None:
        graph = tf.compat.v1.get_default_graph()
        given = {inner.name: graph.capture(outer) for outer, inner in function.graph.captures}
        tf.graph_util.import_graph_def(definition, input_map=given, name="")

    return tf.compat.v1.wrap_function(imported, [])


def _flow(function: Any, artifact: Artifact) -> Flow:
    operations = {operation.name: operation for operation in function.graph.get_operations()}
    before = {name: {tensor.op.name for tensor in operation.inputs} for name, operation in operations.items()}
    ordered = [operations[name] for name in TopologicalSorter(before).static_order()]
    nodes = [
        Node(
            operator=operation.type,
            name=operation.name.removeprefix(CALL),
            inputs=tuple(tensor.name for tensor in operation.inputs),
            outputs=tuple(tensor.name for tensor in operation.outputs),
        )
        for operation in ordered
    ]
    stored = {
        tensor.name: tensor.shape.num_elements() or 0
        for operation in ordered
        if operation.type in ("ReadVariableOp", "Const")
        for tensor in operation.outputs
    }
    # A signature numbers its outputs in the order of their names.
    place = sorted(artifact.output_names).index(artifact.deepest_output)
    output = f"Identity_{place}:0" if place else "Identity:0"
    return Flow(tuple(nodes), f"{artifact.input.name}:0", output, stored)
