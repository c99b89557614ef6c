"""16-bit floats in an ONNX file, where they are safe."""

from __future__ import annotations

import re
from collections.abc import Collection

import onnx
from onnx import numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from vit_deploy.core.weights import JOINED
from vit_deploy.exporters.onnx.layers import KERNEL, PATCH_EMBED, layers_of
from vit_deploy.exporters.onnx.size_nodes import COUNTS, SCOPE
from vit_deploy.exporters.quantization.float16_kernels import fits_half
from vit_deploy.exporters.quantization.recipes import Part, Recipe, products_of

OPERATORS: dict[Part, tuple[str, ...]] = {
    Part.SOFTMAX: ("Softmax",),
    Part.NORMS: ("LayerNormalization",),
    Part.ACTIVATION_FUNCTIONS: (
        "Gelu",
        "Erf",
        "Sigmoid",
        "Tanh",
        "Relu",
        "LeakyRelu",
        "Elu",
        "HardSwish",
        "Clip",
        "Max",
        "Min",
    ),
}
NORM = re.compile(r"(^|\.)(\w*norm\d*)\.")  # `block_0.norm1.`, `norm.`, `block_0.attention.query_norm.`
RESIDUAL = re.compile(r"^(block_\d+|pos_embed|class_token)\.(Add|Concat|Expand|Gather|Reshape|Slice|Squeeze)(_\d+)?$")


def with_float16(
    model: onnx.ModelProto, recipe: Recipe, keep_float: Collection[str], nodes: Collection[str] = ()
) -> onnx.ModelProto:
    """The model with weights and most operators in 16-bit floats; input and output stay as they are unless asked for.

    Args:
        model: fp32; changed.
        recipe: which parts become 16-bit floats; the others compute in float32.
        keep_float: names of layers, and of an attention's products, that stay in float32.
        nodes: names of nodes that stay so too.
    """
    unfit = {tensor.name for tensor in model.graph.initializer if not fits_half(numpy_helper.to_array(tensor))}
    layers = layers_of(model.graph)
    kept = {layer.node for layer in layers if {*layer.name.split(JOINED)} & {*keep_float} or layer.kernel in unfit}
    if PATCH_EMBED in keep_float or f"{PATCH_EMBED}{KERNEL}" in unfit:  # it is turned around before it is used
        kept.update(node.name for node in model.graph.node if node.name.startswith(f"{PATCH_EMBED}."))
    kept.update(node.name for node in model.graph.node if _stays(node, recipe) or _is_product_of(node, keep_float))
    kept.update(nodes)
    operators = [name for part, names in OPERATORS.items() if part not in recipe.parts for name in names]
    result: onnx.ModelProto = convert_float_to_float16(
        model,
        keep_io_types=not recipe.half_io,
        op_block_list=operators,
        node_block_list=sorted(kept),
    )
    _drop_round_trips(result.graph)
    return result


def _drop_round_trips(graph: onnx.GraphProto) -> None:
    """Let nodes in float32 that follow each other pass float32 on; the converter rounds to 16 bits in between."""
    makers = {output: node for node in graph.node for output in node.output}
    original = {}
    for node in graph.node:
        before = makers.get(node.input[0]) if _casts_to(node, onnx.TensorProto.FLOAT) else None
        if before is not None and _casts_to(before, onnx.TensorProto.FLOAT16):
            original[node.output[0]] = before.input[0]
    results = {value.name for value in graph.output}
    for node in graph.node:  # a result in float32 that was rounded on its way out
        result = node.output[0]
        value = original.get(result) if result in results else None
        if value is not None and value not in results:
            _rename(graph, value, result, node)
            # Others that were to read the value in float32 find it under its new name.
            original = {name: result if before == value else before for name, before in original.items()}
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = original.get(name, name)
    for kind in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):  # what they read is unused only without them
        used = results | {name for node in graph.node for name in node.input}
        for index in reversed(range(len(graph.node))):
            if _casts_to(graph.node[index], kind) and graph.node[index].output[0] not in used:
                del graph.node[index]


def _rename(graph: onnx.GraphProto, value: str, name: str, last: onnx.NodeProto) -> None:
    """Let what computes a value give it as the result `name`, which `last` gave."""
    last.output[0] = f"{name}_rounded"
    for node in graph.node:
        for index, tensor in enumerate(node.input):
            node.input[index] = name if tensor == value else tensor
        for index, tensor in enumerate(node.output):
            node.output[index] = name if tensor == value else tensor


def _is_product_of(node: onnx.NodeProto, keep_float: Collection[str]) -> bool:
    """Whether a node computes or moves what an attention multiplies, where its products stay in float32."""
    return products_of(node.name.rpartition(".")[0]) in keep_float


def _casts_to(node: onnx.NodeProto, kind: int) -> bool:
    return node.op_type == "Cast" and any(
        attribute.name == "to" and attribute.i == kind for attribute in node.attribute
    )


def in_float32(node: onnx.NodeProto, recipe: Recipe) -> bool:
    """Whether a node computes in float32 by the recipe, whatever its values are."""
    parts = [part for part, names in OPERATORS.items() if node.op_type in names]
    return any(part not in recipe.parts for part in parts) or _stays(node, recipe)


def _stays(node: onnx.NodeProto, recipe: Recipe) -> bool:
    if node.name.startswith((SCOPE, *COUNTS)):  # positions of images of any size: counts pass what 16 bits hold
        return True
    if Part.NORMS not in recipe.parts and NORM.search(node.name):
        return True
    return Part.RESIDUALS not in recipe.parts and bool(RESIDUAL.match(node.name))
