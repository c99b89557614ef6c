"""The tensors around attention's matmuls in a TFLite file.

A product is a BATCH_MATMUL, its right side are the keys or the values. Between it and the layers around it lie steps
that only move values, so that the tensors before and behind them are integers of one scale.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vit_deploy.exporters.quantization.recipes import Part, Recipe, products_of
from vit_deploy.exporters.tflite.layers import Operator, operators
from vit_deploy.formats.tflite.schema import Model

PRODUCT = "BATCH_MATMUL"
MOVES = ("RESHAPE", "TRANSPOSE")


@dataclass(frozen=True)
class Side:
    """One side of a product, or what it gives.

    Args:
        tensors: names of the tensors that hold these values, in the order in which they are computed.
        moves: name of each of them that an operator moved there to the kind of that operator.
    """

    tensors: tuple[str, ...]
    moves: Mapping[str, str]


@dataclass(frozen=True)
class Product:
    """A product of attention.

    Args:
        name: of both products of its attention, as `block_0.attention.products`.
        output: name of the tensor that it computes.
        left: queries, or shares; None for a constant, as the query of a probe is.
        right: keys, or values.
        result: what it gives.
    """

    name: str
    output: str
    left: Side | None
    right: Side
    result: Side

    @property
    def sides(self) -> tuple[Side, ...]:
        """All that are computed."""
        return tuple(index for index in (self.left, self.right, self.result) if index is not None)


def integer_products(model: Model, recipe: Recipe, between: Mapping[str, str]) -> tuple[Product, ...]:
    """The products that become integers.

    Args:
        model: root of the float file.
        recipe: says whether any do, and which are kept in float.
        between: tensors by what they are, of `find_tensors`.
    """
    if Part.ATTENTION_PRODUCTS not in recipe.parts:
        return ()
    return tuple(product for product in find_products(model, between) if product.name not in recipe.keep_float)


def find_products(model: Model, between: Mapping[str, str]) -> tuple[Product, ...]:
    """The products of attention in the order in which the file computes them.

    Args:
        model: root of the float file.
        between: tensors by what they are, of `find_tensors`.
    """
    attentions = {tensor: name.partition(f".{PRODUCT.lower()}.")[0] for name, tensor in between.items()}
    graph = model.graph
    names = [tensor.name for tensor in graph.tensors]
    steps = list(operators(graph, model))
    writers = {index: step for step in steps for index in step.outputs}
    readers: dict[int, list[Operator]] = {}
    for step in steps:
        for index in step.inputs:
            readers.setdefault(index, []).append(step)

    def side(tensor: int, moved: list[Operator]) -> Side:
        written = [move.outputs[0] for move in moved]
        kinds = {names[move.outputs[0]]: move.kind for move in moved}
        return Side(tuple(names[index] for index in (tensor, *written)), kinds)

    def given(tensor: int) -> Side:
        moved = list(_moved_from(tensor, writers))[::-1]
        return side(moved[0].inputs[0] if moved else tensor, moved)

    return tuple(
        Product(
            name=products_of(attentions[names[step.outputs[0]]]),
            output=names[step.outputs[0]],
            left=given(step.inputs[0]) if step.inputs[0] in writers else None,
            right=given(step.inputs[1]),
            result=side(step.outputs[0], list(_moved_to(step.outputs[0], readers))),
        )
        for step in steps
        if step.kind == PRODUCT
    )


def _moved_from(tensor: int, writers: Mapping[int, Operator]) -> Iterator[Operator]:
    while tensor in writers and writers[tensor].kind in MOVES:
        yield writers[tensor]
        tensor = writers[tensor].inputs[0]


def _moved_to(tensor: int, readers: Mapping[int, list[Operator]]) -> Iterator[Operator]:
    while [reader.kind for reader in readers.get(tensor, ())] in ([kind] for kind in MOVES):
        (move,) = readers[tensor]
        yield move
        tensor = move.outputs[0]
