"""The layers of a ViT in its ONNX graph, and the forms in which an engine can compute them in integers.

A layer is a product with a kernel that has its canonical name. All forms below compute what the fp32 graph computes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import JOINED
from vit_deploy.errors import ExportError
from vit_deploy.exporters.onnx.size_nodes import COUNTS
from vit_deploy.formats.onnx.graph import CONTRIB

KERNEL = ".kernel"
PATCH_EMBED = "patch_embed"


@dataclass(frozen=True)
class Layer:
    """One product with a kernel.

    Args:
        name: canonical: `block_0.attention.query`; several joined by a plus sign where they became one product.
        node: name of its node.
        input: the input of the product.
        kernel: name of the initializer, `(inputs, outputs)`.
        bias: name of the initializer, `(outputs,)`; empty where there is none.
        operator: "Gemm" or "MatMul", or "Attention" where the product is part of it.
    """

    name: str
    node: str
    input: str
    kernel: str
    bias: str
    operator: str


def layers_of(graph: onnx.GraphProto) -> list[Layer]:
    """All products with kernels, in the order of the graph."""
    weights = {weight.name for weight in graph.initializer}
    return [
        Layer(
            node.input[1].removesuffix(KERNEL),
            node.name,
            node.input[0],
            node.input[1],
            node.input[2] if len(node.input) > 2 else "",
            node.op_type,
        )
        for node in graph.node
        if _has_kernel(node) and node.input[1] in weights and node.input[1].endswith(KERNEL)
    ]


def _has_kernel(node: onnx.NodeProto) -> bool:
    return node.op_type in ("Gemm", "MatMul") or (node.op_type == "Attention" and node.domain == CONTRIB)


def patches_as_product(graph: onnx.GraphProto, config: ViTConfig) -> None:
    """Compute the patch embedding as a product of rows of pixels with the kernel, in place of a convolution.

    Patches do not overlap, so both do the same sums; a product is what engines have integer kernels for, one scale a
    channel included. The kernel's order (height, width, channel) is that of the pixels, so it only gets another shape.

    Raises:
        ExportError: the graph does not have the patch embedding of a ViT of ours.
    """
    makers = {output: node for node in graph.node for output in node.output}
    conv = next((node for node in graph.node if node.op_type == "Conv"), None)
    kernel = _initializer(graph, PATCH_EMBED + KERNEL)
    rows = _only_reader(graph, conv.output[0], "Reshape") if conv is not None else None
    tokens = _only_reader(graph, rows.output[0], "Transpose") if rows is not None else None
    if conv is None or kernel is None or rows is None or tokens is None:
        raise ExportError("the ONNX graph has no patch embedding that can be quantized", fix="export the fp32 again")
    turned = makers[conv.input[1]]
    before = makers.get(conv.input[0])
    # An NHWC input is transposed for the convolution, which the product does not need.
    nhwc = before is not None and before.op_type == "Transpose" and list(_ints(before, "perm")) == [0, 3, 1, 2]
    pixels = before.input[0] if nhwc and before is not None else conv.input[0]
    height, width, channels, outputs = kernel.dims
    name = PATCH_EMBED
    # Of images of any size the counts are computed, by nodes in front of all others.
    rows_columns = tuple(node.output[0] for node in graph.node if node.name.startswith(COUNTS)) or config.grid
    (down, across), patches = rows_columns, -1 if rows_columns is not config.grid else config.num_patches
    if nhwc:
        cut, order = [0, down, height, across, width, channels], [0, 1, 3, 2, 4, 5]
    else:
        cut, order = [0, channels, down, height, across, width], [0, 2, 4, 3, 5, 1]
    new = [
        *_cut(graph, pixels, f"{name}.patches", cut),
        helper.make_node("Transpose", [f"{name}.patches"], [f"{name}.order"], name=f"{name}.order", perm=order),
        _reshaped(graph, f"{name}.order", f"{name}.rows", [-1, height * width * channels]),
        helper.make_node(
            "Gemm", [f"{name}.rows", kernel.name, *conv.input[2:]], [f"{name}.tokens"], name=f"{name}.Gemm"
        ),
        *_sequence(graph, f"{name}.tokens", tokens.output[0], patches, outputs, images=pixels),
    ]
    flat = numpy_helper.to_array(kernel).reshape(-1, outputs)
    kernel.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(flat), kernel.name))
    at = list(graph.node).index(conv)
    gone = [conv, rows, tokens, turned]
    if nhwc and before is not None and _only_reader(graph, before.output[0], "Conv") is not None:
        gone.append(before)
    nodes = [node for node in graph.node if not any(node is dropped for dropped in gone)]
    place = at - sum(any(node is dropped for dropped in gone) for node in list(graph.node)[:at])
    _replace_nodes(graph, [*nodes[:place], *new, *nodes[place:]])


def bias_apart(graph: onnx.GraphProto, names: Collection[str], operator: str) -> None:
    """Write layers as `operator` without a bias, and an addition of the bias after it.

    Args:
        graph: changed in place.
        names: the names of the layers.
        operator: "MatMul" for a bias `(outputs,)`, the form whose dynamic quantization ONNX Runtime fuses; "Gemm" for
            one of `(1, outputs)`, which stays a float beside an integer Gemm (a bias of one axis would be fused with
            the activation function behind it, into an operator that is slower than both apart).
    """
    layers = {layer.node: layer for layer in layers_of(graph) if layer.name in names}
    nodes = []
    for node in graph.node:
        if node.name not in layers:
            nodes.append(node)
            continue
        layer, output = layers[node.name], node.output[0]
        if layer.operator == "MatMul":  # it has no bias, and its input may have any rank
            nodes.append(node)
            continue
        product = f"{layer.name}.product" if layer.bias else output
        nodes.append(helper.make_node(operator, [layer.input, layer.kernel], [product], name=node.name))
        if layer.bias:
            nodes.append(helper.make_node("Add", [product, layer.bias], [output], name=f"{layer.name}.plus_bias"))
            bias = _initializer(graph, layer.bias)
            if bias is not None and operator == "Gemm":
                bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias)[None], bias.name))
    _replace_nodes(graph, nodes)


def join_layers(graph: onnx.GraphProto, names: Collection[str]) -> None:
    """Make one layer of those that read the same tensor (query, key and value; gate and up), and split its output.

    Each output keeps the kernel's column, and so its own scale. ONNX Runtime computes with signed activations fast
    only where their quantizer has a single reader; see `exporters.onnx.static`.
    """
    readers = defaultdict(list)
    for layer in layers_of(graph):
        if layer.name in names:
            readers[layer.input].append(layer)
    for layers in readers.values():
        if len(layers) > 1 and len({(layer.operator, bool(layer.bias)) for layer in layers}) == 1:
            _join(graph, sorted(layers, key=lambda layer: layer.name))


def _join(graph: onnx.GraphProto, layers: list[Layer]) -> None:
    name = JOINED.join(layer.name for layer in layers)
    nodes = {node.name: node for node in graph.node}
    sizes = [array(graph, layer.kernel).shape[1] for layer in layers]
    arrays = {name + KERNEL: np.concatenate([array(graph, layer.kernel) for layer in layers], axis=1)}
    if layers[0].bias:
        arrays[f"{name}.bias"] = np.concatenate([array(graph, layer.bias) for layer in layers])
    drop_initializers(graph, [tensor for layer in layers for tensor in (layer.kernel, layer.bias)])
    add_initializers(graph, **arrays, **{f"{name}.sizes": np.array(sizes, np.int64)})
    outputs = [nodes[layer.node].output[0] for layer in layers]
    new = [
        helper.make_node(layers[0].operator, [layers[0].input, *arrays], [f"{name}.joined"], name=f"{name}.product"),
        helper.make_node("Split", [f"{name}.joined", f"{name}.sizes"], outputs, name=f"{name}.Split", axis=-1),
    ]
    gone = {layer.node for layer in layers}
    at = next(index for index, node in enumerate(graph.node) if node.name in gone)
    rest = [node for node in list(graph.node)[at:] if node.name not in gone]
    _replace_nodes(graph, [*list(graph.node)[:at], *new, *rest])


def array(graph: onnx.GraphProto, name: str) -> NDArray[np.float32]:
    """The values of an initializer.

    Raises:
        KeyError: there is none of that name.
    """
    found = _initializer(graph, name)
    if found is None:
        raise KeyError(name)
    return np.asarray(numpy_helper.to_array(found))


def set_array(graph: onnx.GraphProto, name: str, values: NDArray[np.float32]) -> None:
    """Give an initializer other values.

    Raises:
        KeyError: there is none of that name.
    """
    found = _initializer(graph, name)
    if found is None:
        raise KeyError(name)
    found.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(values), name))


def add_initializers(graph: onnx.GraphProto, **arrays: NDArray[np.generic]) -> None:
    """New initializers by their names."""
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(values), key) for key, values in arrays.items()
    )


def drop_initializers(graph: onnx.GraphProto, names: Iterable[str]) -> None:
    """Remove initializers; names that there are not are left alone."""
    gone = set(names)
    for index in reversed(range(len(graph.initializer))):
        if graph.initializer[index].name in gone:
            del graph.initializer[index]


def drop_unused_initializers(graph: onnx.GraphProto) -> None:
    """Remove the initializers that no node reads."""
    used = {name for node in graph.node for name in node.input}
    drop_initializers(graph, [weight.name for weight in graph.initializer if weight.name not in used])


def _initializer(graph: onnx.GraphProto, name: str) -> onnx.TensorProto | None:
    return next((weight for weight in graph.initializer if weight.name == name), None)


def _only_reader(graph: onnx.GraphProto, value: str, operator: str) -> onnx.NodeProto | None:
    readers = [node for node in graph.node if value in node.input]
    return readers[0] if len(readers) == 1 and readers[0].op_type == operator else None


def _ints(node: onnx.NodeProto, name: str) -> list[int]:
    return next(list(attribute.ints) for attribute in node.attribute if attribute.name == name)


def _reshaped(graph: onnx.GraphProto, value: str, output: str, shape: list[int]) -> onnx.NodeProto:
    key = f"{output}.shape"
    add_initializers(graph, **{key: np.array(shape, np.int64)})
    return helper.make_node("Reshape", [value, key], [output], name=f"{PATCH_EMBED}.{output.rpartition('.')[2]}")


def _cut(graph: onnx.GraphProto, pixels: str, output: str, cut: Sequence[int | str]) -> list[onnx.NodeProto]:
    """Pixels with other sides, of which those that are texts are computed: they name a vector of one number."""
    known = [side for side in cut if not isinstance(side, str)]
    if len(known) == len(cut):
        return [_reshaped(graph, pixels, output, known)]
    names = [side if isinstance(side, str) else f"{output}.side_{side}" for side in cut]
    add_initializers(graph, **{f"{output}.side_{side}": np.array([side], np.int64) for side in known})
    key = f"{output}.shape"
    return [
        helper.make_node("Concat", names, [key], name=f"{PATCH_EMBED}.shape", axis=0),
        helper.make_node("Reshape", [pixels, key], [output], name=f"{PATCH_EMBED}.{output.rpartition('.')[2]}"),
    ]


def _sequence(
    graph: onnx.GraphProto, rows: str, output: str, patches: int, dim: int, *, images: str
) -> list[onnx.NodeProto]:
    """Rows as the sequences of the images, whose number is computed where that of the patches is open."""
    if patches >= 0:
        return [_reshaped(graph, rows, output, [-1, patches, dim])]
    batch, rest, key = f"{output}.batch", f"{output}.rest", f"{output}.shape"
    add_initializers(graph, **{rest: np.array([-1, dim], np.int64)})
    return [
        helper.make_node("Shape", [images], [batch], name=f"{PATCH_EMBED}.batch", start=0, end=1),
        helper.make_node("Concat", [batch, rest], [key], name=f"{PATCH_EMBED}.sequence", axis=0),
        helper.make_node("Reshape", [rows, key], [output], name=f"{PATCH_EMBED}.{output.rpartition('.')[2]}"),
    ]


def _replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
