"""ONNX files in bfloat16: weights and everything between, with float32 in and out."""

from __future__ import annotations

import ml_dtypes
import onnx
from onnx import TensorProto, helper, numpy_helper


def with_bfloat16(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with all floats in bfloat16 but for its input and its outputs.

    Args:
        model: fp32; changed.
    """
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(ml_dtypes.bfloat16)
            tensor.CopyFrom(
                helper.make_tensor(tensor.name, TensorProto.BFLOAT16, values.shape, values.tobytes(), raw=True)
            )
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.BFLOAT16
    del graph.value_info[:]  # the types of what lies between
    for output in graph.output:
        for outputs in (True, False):  # what is an output may be read in the graph as well
            _rename(graph, output.name, f"{output.name}.bfloat16", outputs=outputs)
    for output in graph.output:
        graph.node.append(_cast(f"{output.name}.bfloat16", output.name, TensorProto.FLOAT))
    for given in graph.input:
        if given.type.tensor_type.elem_type == TensorProto.FLOAT:
            _rename(graph, given.name, f"{given.name}.bfloat16", outputs=False)
            graph.node.insert(0, _cast(given.name, f"{given.name}.bfloat16", TensorProto.BFLOAT16))
    return model


def _rename(graph: onnx.GraphProto, old: str, new: str, *, outputs: bool) -> None:
    for node in graph.node:
        names = node.output if outputs else node.input
        for index, name in enumerate(names):
            if name == old:
                names[index] = new


def _cast(source: str, target: str, kind: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}.Cast", to=kind)
