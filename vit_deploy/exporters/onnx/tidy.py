"""A readable and reproducible graph: names after the model's parts, each constant once."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from vit_deploy.errors import ExportError
from vit_deploy.exporters.onnx.constants import constant

# Standard operators that mean the same in opsets 17 to 21, but for the axes of reductions and for Gelu.
KNOWN = frozenset(
    {
        *(
            "Add",
            "Cast",
            "Clip",
            "Concat",
            "Conv",
            "Div",
            "Elu",
            "Erf",
            "Expand",
            "Gather",
            "Gelu",
            "Gemm",
            "HardSwish",
        ),
        *(
            "LayerNormalization",
            "LeakyRelu",
            "MatMul",
            "Max",
            "Min",
            "Mul",
            "Neg",
            "Pad",
            "Pow",
            "ReduceMax",
            "ReduceMean",
            "Relu",
            "Reshape",
        ),
        *("Reciprocal", "Shape", "Sigmoid", "Slice", "Softmax", "Sqrt", "Squeeze", "Sub", "Tanh", "Transpose"),
    }
)
REDUCTIONS = ("ReduceMax", "ReduceMean")
AXES_INPUT_OPSET = 18  # the first in which the axes of a reduction are an input

# IR version by opset: the lowest that knows it, so that old runtimes read the file.
IR_VERSIONS = {17: 8, 18: 8, 19: 9, 20: 9, 21: 10}

SCOPE = re.compile(r"([a-z]+(?:_[a-z]+)*\d?|block_\d+)(?:_\d+)?")
"""A part of the model in TensorFlow's names, which number it."""


def tidy(model: ir.Model, opset: int) -> None:
    """Bring a rewritten graph to its opset, check its operators, and name all it holds.

    Raises:
        ExportError: operators that are not known to be standard.
    """
    graph = model.graph
    if opset < AXES_INPUT_OPSET:
        for node in graph:
            _axes_as_attribute(node)
    RemoveUnusedNodesPass()(model)
    _check_operators(graph)
    _name_nodes(graph)
    _share_constants(graph)
    model.opset_imports.clear()
    model.opset_imports[""] = opset
    model.ir_version = IR_VERSIONS[opset]


def _axes_as_attribute(node: ir.Node) -> None:
    if node.op_type in REDUCTIONS:
        axes = constant(node.inputs[1])
        if axes is None:
            raise ExportError(f"the axes of {node.op_type} {node.name} are computed, which opset 17 cannot express")
        node.replace_input_with(1, None)
        node.resize_inputs(1)
        node.attributes.pop("noop_with_empty_axes", None)
        node.attributes["axes"] = ir.AttrInt64s("axes", [int(axis) for axis in np.ravel(axes)])


def _check_operators(graph: ir.Graph) -> None:
    if unknown := sorted({f"{node.domain}.{node.op_type}".strip(".") for node in graph if not _is_known(node)}):
        raise ExportError(
            f"the ONNX graph has operators that are not known to be portable: {', '.join(unknown)}",
            fix="export another format, or report the model's options",
        )


def _is_known(node: ir.Node) -> bool:
    return node.op_type in KNOWN and node.domain == ""


def _name_nodes(graph: ir.Graph) -> None:
    kept = {value.name for value in (*graph.inputs, *graph.outputs)}
    scopes: dict[ir.Node, str] = {}
    for node in reversed(graph):
        # What a rule made in between belongs to the part that reads it.
        readers = [scopes[use.node] for use in node.outputs[0].uses()]
        own = _scope(node.outputs[0].name or "") or _scope(node.name or "")
        scopes[node] = own or (readers[0] if readers else "")
    taken: Counter[str] = Counter()
    for node in graph:
        name = f"{scopes[node]}.{node.op_type}".strip(".")
        taken[name] += 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"
        node.doc_string = None
        node.metadata_props.clear()
        for value in node.outputs:
            value.shape = value.type = None
            value.metadata_props.clear()
            if value.name not in kept:
                value.name = node.name


def _scope(name: str) -> str:
    parts = [SCOPE.fullmatch(part) for part in name.split("/")[:-1]]
    return ".".join(part[1] for part in parts if part is not None)


def _share_constants(graph: ir.Graph) -> None:
    shared: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}
    for node in graph:
        for index, value in enumerate(node.inputs):
            known = constant(value)
            if known is not None:
                key = (known.dtype.str, known.shape, known.tobytes())
                if key not in shared:
                    name = f"constant_{len(shared)}"
                    shared[key] = ir.Value(name=name, const_value=ir.tensor(known, name=name))
                node.replace_input_with(index, shared[key])
    graph.initializers.clear()
    for value in shared.values():
        graph.register_initializer(value)
