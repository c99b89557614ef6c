"""Function names that make a SavedModel come out the same, whatever its process traced before.

TensorFlow numbers functions and captured tensors through the whole life of a process and writes the numbers into the
graph's names, by which it also sorts the functions. Here each function gets its rank among the model's own instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.saved_model import fingerprinting_utils

CAPTURED = "_user_specified_name"  # of an argument; the process-wide number of a tensor, for one that was captured


def renumber_functions(folder: Path) -> None:
    """Rewrite `saved_model.pb` in place, and the fingerprint that belongs to it."""
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    (graph,) = model.meta_graphs
    functions = graph.graph_def.library.function
    traced = sorted((function.signature.name for function in functions), key=lambda name: int(name.rpartition("_")[2]))
    names = {name: f"{name.rpartition('_')[0]}_{rank}" for rank, name in enumerate(traced)}
    for function in functions:
        function.signature.name = names[function.signature.name]
        for argument in function.arg_attr.values():
            if CAPTURED in argument.attr and argument.attr[CAPTURED].s.isdigit():
                del argument.attr[CAPTURED]
    functions.sort(key=lambda function: function.signature.name)
    for nodes in (graph.graph_def.node, *(function.node_def for function in functions)):
        _rename_calls(nodes, names)
    objects = graph.object_graph_def
    for name in list(objects.concrete_functions):
        objects.concrete_functions[names[name]].CopyFrom(objects.concrete_functions[name])
        del objects.concrete_functions[name]
    for node in objects.nodes:
        if node.WhichOneof("kind") == "function":
            node.function.concrete_functions[:] = [names[name] for name in node.function.concrete_functions]
        elif node.WhichOneof("kind") == "bare_concrete_function":
            bare = node.bare_concrete_function
            bare.concrete_function_name = names[bare.concrete_function_name]
    path.write_bytes(model.SerializeToString(deterministic=True))
    fingerprinting_utils.write_fingerprint(str(folder))


def _rename_calls(nodes: Any, names: dict[str, str]) -> None:
    for node in nodes:
        for attribute in node.attr.values():
            if attribute.func.name in names:
                attribute.func.name = names[attribute.func.name]
