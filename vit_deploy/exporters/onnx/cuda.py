"""The ONNX graph for NVIDIA GPUs: fewer and larger operators, those that ONNX Runtime has CUDA kernels for.

At small batches a GPU waits for the next kernel more than it computes, and at large ones for memory, so that what
counts is how often the residual stream is read and written. Each rewrite below computes what the standard graph
computes, in one operator of the domain `com.microsoft` where that has several:

- query, key and value as one product with all heads' attention behind it (`Attention`, with flash attention in 16
  bits; `MultiHeadAttention` where they are not one product of all tokens);
- a residual sum, the bias in front of it and the norm behind it (`SkipLayerNormalization`);
- a bias and the GELU behind it (`BiasGelu`, `FastGelu`);
- the patch embedding as a product, which has no convolution library to wait for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vit_deploy.core.choices import RelativePositions
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import JOINED
from vit_deploy.errors import ExportError
from vit_deploy.exporters.onnx.constants import constant
from vit_deploy.exporters.onnx.rows import shape_constant
from vit_deploy.formats.onnx.graph import CONTRIB

Weights = dict[str, NDArray[np.float32]]
PATCH_KERNEL = "patch_embed.kernel"
HEADS_RANK = 4
FLOAT = ir.TensorType(ir.DataType.FLOAT)  # said of each new value, since ONNX knows nothing of what `CONTRIB` makes


def fuse_for_cuda(model: ir.Model, config: ViTConfig, weights: Mapping[str, NDArray[np.float32]]) -> Weights:
    """Rewrite a published graph in place.

    Args:
        model: whose weights are values without a producer, named canonically.
        config: the config of the ViT.
        weights: the weights by canonical name.

    Returns:
        The weights that the graph reads now: some joined, under their names with plus signs between them.

    Raises:
        ExportError: the graph is not the one of this ViT.
    """
    graph, made = model.graph, dict(weights)
    _patches_as_product(graph, config, made)
    for softmax in _nodes(graph, "Softmax"):
        # Not that of a pooling, nor one that relative positions are added in front of.
        is_read = softmax.outputs[0].is_graph_output()
        if softmax.name.startswith("block_") and config.relative_positions is RelativePositions.NONE and not is_read:
            _fuse_attention(graph, softmax, config, made)
    for gelu in _nodes(graph, "Gelu"):
        _fuse_bias_and_gelu(graph, gelu)
    for norm in _nodes(graph, "LayerNormalization"):
        _fuse_sum_and_norm(graph, norm)
    graph.sort()  # sums are made at the norms behind them, and read before these as well
    model.opset_imports[CONTRIB] = 1
    used = {value.name for node in graph for value in node.inputs if value is not None}
    for name in [name for name in graph.initializers if name not in used]:
        del graph.initializers[name]
    return {name: array for name, array in made.items() if name in used}


def _patches_as_product(graph: ir.Graph, config: ViTConfig, weights: Weights) -> None:
    [conv] = _nodes(graph, "Conv")
    rows = _reader(conv.outputs[0], "Reshape")
    tokens = _reader(rows.outputs[0], "Transpose")
    turned = _maker(conv.inputs[1], "Transpose")
    gone = [tokens, rows, conv, turned]
    pixels = conv.inputs[0]
    before = None if pixels is None else pixels.producer()
    nhwc = before is not None and before.op_type == "Transpose" and before.attributes["perm"].as_ints() == (0, 3, 1, 2)
    if nhwc and before is not None:
        pixels = before.inputs[0]
        gone.append(before)
    (height, width), (down, across), channels = config.patch_size, config.grid, config.channels
    cut = (-1, down, height, across, width, channels) if nhwc else (-1, channels, down, height, across, width)
    order = (0, 1, 3, 2, 4, 5) if nhwc else (0, 2, 4, 3, 5, 1)
    weights[PATCH_KERNEL] = weights[PATCH_KERNEL].reshape(-1, config.embed_dim)
    add = _Adder(graph, conv)
    patches = add("Reshape", [pixels, shape_constant(graph, cut)], "patch_embed.patches")
    patches = add("Transpose", [patches], "patch_embed.order", perm=order)
    patches = add("Reshape", [patches, shape_constant(graph, (-1, height * width * channels))], "patch_embed.rows")
    product = add("Gemm", [patches, _weight(PATCH_KERNEL), *conv.inputs[2:]], "patch_embed.Gemm")
    sequence = add("Reshape", [product, shape_constant(graph, (-1, down * across, config.embed_dim))], tokens.name)
    _replace(graph, tokens.outputs[0], sequence, gone)


@dataclass(frozen=True)
class _Projection:
    """What an attention reads its queries, keys or values from.

    Args:
        value: the projected tokens: rows `(batch * tokens, dim)` of a Gemm, or heads `(batch, tokens, heads, dim)`.
        tokens: the tokens of an image.
        product: that gives the rows, a Gemm or a MatMul, if nothing lies between.
        gone: the nodes that only take them apart into heads.
    """

    value: ir.Value
    tokens: int
    product: ir.Node | None
    gone: tuple[ir.Node, ...]


def _fuse_attention(graph: ir.Graph, softmax: ir.Node, config: ViTConfig, weights: Weights) -> None:
    scores, mix = _maker(softmax.inputs[0], "MatMul"), _reader(softmax.outputs[0], "MatMul")
    back = _reader(mix.outputs[0], "Transpose")
    rows = _reader(back.outputs[0], "Reshape")
    left, scale, scaling = scores.inputs[0], 1.0, list[ir.Node]()
    if left is not None and (producer := left.producer()) is not None and producer.op_type == "Mul":
        factor = constant(producer.inputs[1])
        if factor is not None and factor.size == 1:
            left, scale, scaling = producer.inputs[0], float(factor), [producer]
    projections = [
        _projection(left, (0, 2, 1, 3), config),
        _projection(scores.inputs[1], (0, 2, 3, 1), config),
        _projection(mix.inputs[1], (0, 2, 1, 3), config),
    ]
    name = softmax.name.removesuffix(".Softmax")
    add = _Adder(graph, mix)
    options = {"num_heads": config.num_heads, "scale": scale}
    products = [projection.product for projection in projections if projection.product is not None]
    gone = [
        rows,
        back,
        mix,
        softmax,
        scores,
        *scaling,
        *(node for projection in projections for node in projection.gone),
    ]
    whole = all(projection.tokens == config.sequence_length for projection in projections)
    if len(products) == len(projections) and len({product.inputs[0] for product in products}) == 1 and whole:
        kernel, bias = _joined(products, config.attention_dim, weights)
        tokens = _sequence(
            graph, add, products[0].inputs[0], config.sequence_length, config.embed_dim, f"{name}.tokens"
        )
        attended = add("Attention", [tokens, kernel, bias], f"{name}.Attention", CONTRIB, **options)
        gone += products
    else:
        parts = [
            _sequence(graph, add, projection.value, projection.tokens, config.attention_dim, f"{name}.{role}")
            for projection, role in zip(projections, ("queries", "keys", "values"), strict=True)
        ]
        attended = add("MultiHeadAttention", parts, f"{name}.Attention", CONTRIB, **options)
    flat = add("Reshape", [attended, shape_constant(graph, (-1, config.attention_dim))], f"{name}.rows")
    _replace(graph, rows.outputs[0], flat, gone)


def _projection(value: ir.Value | None, order: Sequence[int], config: ViTConfig) -> _Projection:
    turned = _maker(value, "Transpose")
    heads = turned.inputs[0]
    if tuple(turned.attributes["perm"].as_ints()) != tuple(order) or heads is None:
        raise ExportError(f"{turned.name} turns the heads of an attention in an unknown way")
    apart, tokens = _taken_apart(heads)
    if heads.producer() is not apart or apart.inputs[0] is None:  # a norm of each head, say
        return _Projection(heads, tokens, None, (turned,))
    rows = apart.inputs[0]
    product = rows.producer()
    alone = product is not None and product.op_type in ("Gemm", "MatMul") and len(rows.uses()) == 1
    return _Projection(rows, tokens, product if alone else None, (turned, apart))


def _taken_apart(heads: ir.Value) -> tuple[ir.Node, int]:
    """The reshape that takes rows apart into `(batch, tokens, heads, dim)`, and that many tokens."""
    value: ir.Value | None = heads
    while value is not None and (node := value.producer()) is not None:
        sides = constant(node.inputs[1]) if node.op_type == "Reshape" else None
        if sides is not None and sides.size == HEADS_RANK:
            return node, int(sides[1])
        value = next((value for value in node.inputs if value is not None and value.producer() is not None), None)
    raise ExportError(f"nothing takes {heads.name} apart into heads")


def _joined(products: Sequence[ir.Node], width: int, weights: Weights) -> tuple[ir.Value, ir.Value]:
    """One kernel `(dim, 3 * dim)` and one bias of query, key and value."""
    kernels = [_name(product.inputs[1]) for product in products]
    biases = [_name(product.inputs[2]) if len(product.inputs) > 2 else "" for product in products]
    layers = JOINED.join(kernel.removesuffix(".kernel") for kernel in kernels)
    weights[f"{layers}.kernel"] = np.concatenate([weights[kernel] for kernel in kernels], axis=1)
    weights[f"{layers}.bias"] = np.concatenate(
        [weights[bias] if bias else np.zeros(width, np.float32) for bias in biases]
    )
    return _weight(f"{layers}.kernel"), _weight(f"{layers}.bias")


def _fuse_bias_and_gelu(graph: ir.Graph, gelu: ir.Node) -> None:
    gemm = _gemm_with_bias(gelu.inputs[0])
    if gemm is None:
        return
    approximate = gelu.attributes.get("approximate")
    operator = "FastGelu" if approximate is not None and approximate.as_string() == "tanh" else "BiasGelu"
    product = _Adder(graph, gemm)("MatMul", gemm.inputs[:2], gemm.name)
    activated = _Adder(graph, gelu)(operator, [product, gemm.inputs[2]], gelu.name, CONTRIB)
    _replace(graph, gelu.outputs[0], activated, [gelu, gemm])


def _fuse_sum_and_norm(graph: ir.Graph, norm: ir.Node) -> None:
    total = norm.inputs[0]
    add = None if total is None else total.producer()
    if total is None or add is None or add.op_type != "Add" or len(norm.inputs) < 3:
        return
    stream, change = add.inputs
    gemm = _gemm_with_bias(change)
    if stream is None or gemm is None:
        return
    product = _Adder(graph, gemm)("MatMul", gemm.inputs[:2], gemm.name)
    fused = ir.node(
        "SkipLayerNormalization",
        [stream, product, *norm.inputs[1:3], gemm.inputs[2]],
        {"epsilon": norm.attributes["epsilon"].as_float()},
        domain=CONTRIB,
        num_outputs=4,
        name=norm.name,
    )
    for output, name in zip(fused.outputs, (f"{norm.name}.out", "", "", f"{add.name}.out"), strict=True):
        output.name = name
        output.type = FLOAT if name else None
    graph.insert_before(norm, fused)
    _replace(graph, norm.outputs[0], fused.outputs[0], [norm])
    _replace(graph, total, fused.outputs[3], [add, gemm])


def _gemm_with_bias(value: ir.Value | None) -> ir.Node | None:
    gemm = None if value is None else value.producer()
    if value is None or gemm is None or gemm.op_type != "Gemm" or len(gemm.inputs) < 3 or len(value.uses()) != 1:
        return None
    return gemm


@dataclass(frozen=True)
class _Adder:
    """Puts new nodes before another one."""

    graph: ir.Graph
    before: ir.Node

    def __call__(
        self, operator: str, inputs: Sequence[ir.Value | None], name: str | None, domain: str = "", **attributes: object
    ) -> ir.Value:
        node = ir.node(operator, inputs, attributes, domain=domain, name=name)
        node.outputs[0].name, node.outputs[0].type = f"{name}.out", FLOAT
        self.graph.insert_before(self.before, node)
        return node.outputs[0]


def _sequence(graph: ir.Graph, add: _Adder, value: ir.Value | None, tokens: int, width: int, name: str) -> ir.Value:
    return add("Reshape", [value, shape_constant(graph, (-1, tokens, width))], name)


def _weight(name: str) -> ir.Value:
    return ir.Value(name=name)


def _name(value: ir.Value | None) -> str:
    return "" if value is None else value.name or ""


def _nodes(graph: ir.Graph, operator: str) -> list[ir.Node]:
    return [node for node in graph if node.op_type == operator and node.domain == ""]


def _maker(value: ir.Value | None, operator: str) -> ir.Node:
    node = None if value is None else value.producer()
    if node is None or node.op_type != operator:
        found = "nothing" if node is None else node.op_type
        raise ExportError(f"the ONNX graph has {found} where this ViT has a {operator}")
    return node


def _reader(value: ir.Value, operator: str) -> ir.Node:
    readers = [use.node for use in value.uses()]
    if [node.op_type for node in readers] != [operator]:
        raise ExportError(f"{value.name} is read by {[node.op_type for node in readers]}, expected one {operator}")
    return readers[0]


def _replace(graph: ir.Graph, old: ir.Value, new: ir.Value, gone: Sequence[ir.Node]) -> None:
    """Let `new` be read in place of `old`, and remove the nodes that nothing reads any more."""
    new.type, new.shape = old.type or FLOAT, old.shape
    if old.is_graph_output():
        old.name, new.name = None, old.name
    old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove([*dict.fromkeys(gone)], safe=True)
