"""Arithmetic in the nodes of an ONNX graph, written as expressions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from vit_deploy.exporters.onnx.constants import add_constant
from vit_deploy.exporters.onnx.size_nodes import SCOPE


@dataclass(frozen=True)
class Computed:
    """A float32 value of a graph, with the operators of numbers."""

    xp: Operators
    value: ir.Value

    def __add__(self, other: object) -> Computed:
        return self.xp.binary("Add", self, other)

    def __sub__(self, other: object) -> Computed:
        return self.xp.binary("Sub", self, other)

    def __rsub__(self, other: object) -> Computed:
        return self.xp.binary("Sub", other, self)

    def __mul__(self, other: object) -> Computed:
        return self.xp.binary("Mul", self, other)

    def __truediv__(self, other: object) -> Computed:
        return self.xp.binary("Div", self, other)


class Operators:
    """`core.open_positions.Arithmetic` in new nodes of a graph, which `insert_first` puts in front of its others."""

    def __init__(self, graph: ir.Graph) -> None:
        self._graph = graph
        self._nodes: list[ir.Node] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], ir.Value] = {}

    def node(self, operator: str, *inputs: ir.Value, name: str = "", **attributes: Any) -> ir.Value:
        """The output of a new node, which has the node's name."""
        node = ir.node(operator, inputs, attributes)
        node.name = name or f"{SCOPE}.{operator}_{len(self._nodes)}"
        node.outputs[0].name = node.name
        self._nodes.append(node)
        return node.outputs[0]

    def insert_first(self) -> None:
        """Put all nodes in front of those that the graph had."""
        self._graph.insert_before(self._graph[0], self._nodes)

    def whole_numbers(self, numbers: Sequence[int]) -> ir.Value:
        """A constant of int64, as shapes are."""
        return self._known(np.array(numbers, np.int64))

    def binary(self, operator: str, left: object, right: object) -> Computed:
        """An operator of two sides, of which one may be a number."""
        return Computed(self, self.node(operator, self._as_value(left), self._as_value(right)))

    def constant(self, values: NDArray[Any]) -> Computed:
        """See `Arithmetic`."""
        return Computed(self, self._known(np.asarray(values, np.float32)))

    def counted(self, count: Computed) -> Computed:
        """See `Arithmetic`."""
        scalar = self.node("Squeeze", count.value)
        start, step = self._known(np.array(0, np.float32)), self._known(np.array(1, np.float32))
        numbers = self.node("Range", start, scalar, step)
        return Computed(self, self.node("Reshape", numbers, self.whole_numbers([-1, 1])))

    def absolute(self, value: Computed) -> Computed:
        """See `Arithmetic`."""
        return Computed(self, self.node("Abs", value.value))

    def least(self, one: Computed, other: Computed) -> Computed:
        """See `Arithmetic`."""
        return self.binary("Min", one, other)

    def largest(self, one: Computed, other: Computed) -> Computed:
        """See `Arithmetic`."""
        return self.binary("Max", one, other)

    def cosine(self, value: Computed) -> Computed:
        """See `Arithmetic`."""
        return Computed(self, self.node("Cos", value.value))

    def sine(self, value: Computed) -> Computed:
        """See `Arithmetic`."""
        return Computed(self, self.node("Sin", value.value))

    def product(self, left: Computed, right: Computed) -> Computed:
        """See `Arithmetic`."""
        return self.binary("MatMul", left, right)

    def row_sum(self, value: Computed) -> Computed:
        """See `Arithmetic`."""
        return Computed(self, self.node("ReduceSum", value.value, self.whole_numbers([-1]), keepdims=1))

    def reshaped(self, value: Computed, sides: Sequence[int]) -> Computed:
        """See `Arithmetic`."""
        return Computed(self, self.node("Reshape", value.value, self.whole_numbers(sides)))

    def part(self, value: Computed, start: int, end: int | None) -> Computed:
        """See `Arithmetic`."""
        bounds = (self.whole_numbers([bound]) for bound in (start, 2**31 - 1 if end is None else end, 0))
        return Computed(self, self.node("Slice", value.value, *bounds))

    def joined(self, values: Sequence[Computed], axis: int) -> Computed:
        """See `Arithmetic`."""
        return Computed(self, self.node("Concat", *(value.value for value in values), axis=axis))

    def _as_value(self, side: object) -> ir.Value:
        if isinstance(side, Computed):
            return side.value
        return self._known(np.asarray(side, np.float32))

    def _known(self, array: NDArray[Any]) -> ir.Value:
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = f"{SCOPE}.constant_{len(self._constants)}"
            self._constants[key] = add_constant(self._graph, name, array)
        return self._constants[key]
