"""What is left to compute where only the first tokens are read: in the last block, one or two rows an image.

The selection of the class token, or of class and distillation token, moves up from the pooling to where all tokens are
needed, which is the key and the value of the last attention (6 % faster in ONNX Runtime with twelve layers). Expects
tokens laid out as rows, see `exporters.onnx.rows`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import numpy as np
import onnx_ir as ir

from vit_deploy.core.choices import Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.outputs import Output, tokens_read
from vit_deploy.core.weights import RELATIVE
from vit_deploy.errors import ExportError
from vit_deploy.exporters.onnx.constants import add_constant, constant
from vit_deploy.exporters.onnx.rows import is_tokenwise, reshaped, shape_constant

# Between the query and the rows that attention gives: what carries the tokens of its first input.
ATTENTION = frozenset({"MatMul", "Mul", "Reshape", "Slice", "Softmax", "Transpose"})
TURNING = frozenset({"Add", "Concat"})  # of rotary positions: what is computed of two parts of the same tokens
POOLING: Mapping[Pooling | None, tuple[str, ...]] = {
    Pooling.CLS: ("Squeeze", "Slice", "Reshape"),
    Pooling.CLS_DISTILLATION: ("Reshape", "Slice", "Reshape"),
}
PARTS = frozenset({"Concat", "Slice"})  # of heads, whose features rotary positions put in another order
SCORES = f"{RELATIVE}.scores"  # `(heads, queries, keys)`, what relative positions add
TOKENS = 1  # the axis, of queries too
WHOLE = (0, 2**31 - 1)  # how tf2onnx writes a part that is everything


def class_token_alone(graph: ir.Graph, config: ViTConfig, rows: set[ir.Value], outputs: Sequence[Output] = ()) -> None:
    """Select the class token, and the distillation token, in front of everything that is computed for them alone.

    Nothing is selected where outputs read more of the last block.

    Args:
        graph: changed in place.
        config: the config of the ViT.
        rows: the values that are rows of tokens.
        outputs: the outputs of the graph by name; none for the one that the config says.

    Raises:
        ExportError: the pooling is spelled in an unknown way.
    """
    pooling = config.effective_pooling
    if pooling not in POOLING or tokens_read(config, outputs) > config.num_tokens_read:
        return
    readers = _readers_of_last_block(graph, config) if outputs else [_last_slice(graph)]
    if len(readers) != 1:
        return
    ending = _pooling(graph, readers[0], POOLING[pooling], config.num_tokens_read)
    stream = ending[-1].inputs[0]
    if stream is None:
        raise ExportError("the class token is read from nowhere")
    vectors = stream
    if pooling is Pooling.CLS_DISTILLATION:
        vectors = reshaped(graph, stream, (-1, config.pooled_dim), after=ending[0])
    pooled = ending[0].outputs[0]
    if pooled.is_graph_output():
        vectors.name = pooled.name
    pooled.replace_all_uses_with(vectors, replace_graph_outputs=True)
    graph.remove(ending, safe=True)
    _select(graph, config, rows, stream)


def _last_slice(graph: ir.Graph) -> ir.Node | None:
    return next((node for node in reversed(graph) if node.op_type == "Slice"), None)


def _readers_of_last_block(graph: ir.Graph, config: ViTConfig) -> list[ir.Node]:
    """The nodes that take tokens of what comes behind the last sum of the last block; none if nothing else does."""
    last = f"block_{config.num_layers - 1}.ffn.down.kernel"
    behind: set[ir.Value | None] = {value for value in graph.inputs if value.name == last}
    found = []
    for node in graph:
        if any(value in behind for value in node.inputs):
            behind.update(node.outputs)
            if node.op_type == "Slice":
                found.append(node)
    return found


def _pooling(graph: ir.Graph, reader: ir.Node | None, spelling: tuple[str, ...], count: int) -> list[ir.Node]:
    """The nodes that read the first tokens, the last one first."""
    nodes = [] if reader is None else [*reader.outputs[0].consumers()[:1], reader]
    if reader is not None and (before := reader.inputs[0]) is not None and (node := before.producer()) is not None:
        nodes.append(node)
    if (found := tuple(node.op_type for node in nodes)) != spelling or not _are_first_tokens(nodes[1], count):
        first = "the first token" if count == 1 else f"the first {count} tokens"
        raise ExportError(
            f"the class token is read by {' of '.join(found)}, expected {' of '.join(spelling)} for {first}",
            fix="export another format, or report the model's options",
        )
    return nodes


def _are_first_tokens(reader: ir.Node, count: int) -> bool:
    starts, ends, axes = (constant(value) for value in reader.inputs[1:4])
    if starts is None or ends is None or axes is None:
        return False
    parts = {int(axis): (int(start), int(end)) for axis, start, end in zip(axes, starts, ends, strict=True)}
    return parts.pop(TOKENS) == (0, count) and all(part == WHOLE for part in parts.values())


def _select(graph: ir.Graph, config: ViTConfig, rows: set[ir.Value], stream: ir.Value) -> None:
    count = config.num_tokens_read
    tokenwise = rows | _heads(graph, rows)
    alone = _computed_for_few_rows(graph, tokenwise, stream)
    first: dict[ir.Value, ir.Value] = {}
    for node in alone:
        for index, value in enumerate(node.inputs):
            if value is None or value.producer() in alone:
                continue
            if value.is_graph_input() and node.op_type == "Add" and value.name.endswith(SCORES):
                node.replace_input_with(index, _first_queries(graph, value, count, before=node))
                continue
            if not _carries(node, index, tokenwise):
                continue
            if value not in first:
                first[value] = _first_rows(graph, config, value, count)
            node.replace_input_with(index, first[value])
        if node.op_type == "Reshape" and node.outputs[0] not in rows:
            node.replace_input_with(1, shape_constant(graph, (-1, count, config.num_heads, config.head_dim)))


def _heads(graph: ir.Graph, rows: Set[ir.Value]) -> set[ir.Value]:
    """Rows taken apart into heads, and what is computed of each head of a row alone, such as its norm."""
    heads: set[ir.Value] = set()
    for node in graph:
        taken_apart = node.op_type == "Reshape" and node.inputs[0] in rows and node.outputs[0] not in rows
        of_each = is_tokenwise(node) or node.op_type in PARTS
        if taken_apart or (of_each and any(value in heads for value in node.inputs)):
            heads.update(node.outputs)
    return heads


def _computed_for_few_rows(graph: ir.Graph, tokenwise: Set[ir.Value], stream: ir.Value) -> dict[ir.Node, None]:
    """The nodes all of whose results go into the first tokens' rows of `stream`, the last one first."""
    alone: dict[ir.Node, None] = {}
    for node in reversed(graph):
        uses = node.outputs[0].uses()
        is_last = node.outputs[0] is stream
        if not is_last and node.outputs[0].is_graph_output():
            continue
        if is_last or (uses and all(use.node in alone and _carries(use.node, use.idx, tokenwise) for use in uses)):
            alone[node] = None
    return alone


def _carries(node: ir.Node, index: int, tokenwise: Set[ir.Value]) -> bool:
    """Whether a row of the node's output depends on just that row (or that query) of this input."""
    if node.outputs[0] in tokenwise and node.op_type != "Reshape":
        return node.inputs[index] in tokenwise
    return node.op_type in TURNING or (index == 0 and node.op_type in ATTENTION)


def _first_queries(graph: ir.Graph, scores: ir.Value, count: int, *, before: ir.Node) -> ir.Value:
    """What is added to the scores of the first queries."""
    bounds = [
        graph.initializers.get(name) or add_constant(graph, name, np.array([number], np.int64))
        for name, number in (("first_query", 0), ("last_query", count), ("queries", TOKENS))
    ]
    taken = ir.node("Slice", [scores, *bounds])
    taken.outputs[0].name = f"{scores.name}_first"
    graph.insert_before(before, taken)
    return taken.outputs[0]


def _first_rows(graph: ir.Graph, config: ViTConfig, value: ir.Value, count: int) -> ir.Value:
    producer = value.producer()
    if producer is None:
        raise ExportError(
            f"the class token depends on the first rows of {value.name}, which no operator makes",
            fix="export another format, or report the model's options",
        )
    sequence = reshaped(graph, value, (-1, config.sequence_length, config.embed_dim), after=producer)
    indices = np.array(0 if count == 1 else range(count), np.int64)
    which = graph.initializers.get("first_tokens") or add_constant(graph, "first_tokens", indices)
    taken = ir.node("Gather", [sequence, which], {"axis": TOKENS})
    taken.outputs[0].name = f"{value.name}_first"
    graph.insert_after(sequence.producer(), taken)
    if count == 1:
        return taken.outputs[0]
    return reshaped(graph, taken.outputs[0], (-1, config.embed_dim), after=taken)
