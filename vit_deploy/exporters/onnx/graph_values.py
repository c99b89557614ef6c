"""What calibration sees of every value of an ONNX graph, and of how the inputs of its layers go together."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from vit_deploy.core.input_output import InputSpec
from vit_deploy.exporters.onnx.layer_inputs import values_of
from vit_deploy.exporters.onnx.layers import KERNEL
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.clipping import NOTHING, Observed
from vit_deploy.exporters.quantization.squares import Read, Rows, summed
from vit_deploy.runtimes.values import as_stored

ONE = 1  # image a call, where the file leaves it open: all values of the graph are kept
TURNED = "turned."  # before the name of a kernel that was transposed
MOST_STORED = 1 << 10  # numbers of a constant that types and shapes may depend on
FLOAT = onnx.TensorProto.FLOAT


def measure(model: onnx.ModelProto, spec: InputSpec, calibration: Calibration, *, counted: bool) -> dict[str, Observed]:
    """The values of each tensor of float32 on the calibration images, by its name.

    Args:
        model: fp32, its constants folded.
        spec: the spec of its input.
        calibration: the images.
        counted: whether values are counted, or only their extremes.
    """
    seen: dict[str, Observed] = {}
    names = computed_floats(model)
    for values in values_of(model, names, spec, calibration, batch=ONE):
        for name, value in values.items():
            seen[name] = seen.get(name, NOTHING).also(value, counted=counted)
    if spec.dtype == "float32":
        given = as_stored(calibration.images, spec)
        seen[model.graph.input[0].name] = NOTHING.also(given, counted=counted)
    return seen


def computed_floats(model: onnx.ModelProto) -> list[str]:
    """Names of all values of float32 that are computed, in the order of the graph."""
    inferred = onnx.shape_inference.infer_shapes(_without_weights(model))
    values = (*inferred.graph.value_info, *inferred.graph.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    return [name for node in model.graph.node for name in node.output if kinds.get(name) == FLOAT]


def layer_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that multiply with a kernel, the patch embedding among them."""
    return [node for node in graph.node if _is_layer(node)]


def layer_name(node: onnx.NodeProto) -> str:
    """The layer of a node that multiplies with a kernel, whose kernel may be turned."""
    kernel: str = node.input[1]
    return kernel.removeprefix(TURNED).removesuffix(KERNEL)


def _is_layer(node: onnx.NodeProto) -> bool:
    return node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1].endswith(KERNEL)


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with its large constants as inputs: what is left fits one message, whatever the model's size."""
    copy = onnx.ModelProto()
    copy.ir_version = model.ir_version
    copy.opset_import.extend(model.opset_import)
    graph = copy.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    for tensor in model.graph.initializer:
        if np.prod(tensor.dims) > MOST_STORED:
            graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            graph.initializer.append(tensor)
    return copy


def layer_squares(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], spec: InputSpec, calibration: Calibration
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Sums of products `(inputs, inputs)` of the rows that layers read, by the name of what they read.

    Args:
        model: fp32, not to be changed until the last of them.
        nodes: those of the layers; what the graph itself is given is left out.
        spec: the spec of its input.
        calibration: the images.

    Raises:
        ExportError: as `squares.summed`.
    """
    shapes = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    # One of what several read stands for them.
    layers = {node.input[0]: node for node in nodes if node.input[0] != model.graph.input[0].name}
    wanted = []
    for name, node in layers.items():
        shape = shapes[node.input[1]]
        side = int(np.prod(shape[1:])) if node.op_type == "Conv" else shape[0]
        wanted.append(Read(name, side, layer_name(node)))

    def rows(names: Collection[str]) -> Iterator[Rows]:
        for values in values_of(model, list(names), spec, calibration):
            yield {name: rows_of(layers[name], value) for name, value in values.items()}

    return summed(wanted, rows)


def rows_of(node: onnx.NodeProto, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What a layer multiplies with its kernel, a row for each token or patch."""
    if node.op_type != "Conv":
        return values.reshape(-1, values.shape[-1])
    attributes: dict[str, Any] = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    height, width = attributes["kernel_shape"]
    batch, channels, rows, columns = values.shape
    cut = values.reshape(batch, channels, rows // height, height, columns // width, width)
    return cut.transpose(0, 2, 4, 1, 3, 5).reshape(-1, channels * height * width)
