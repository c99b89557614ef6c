"""The single values that everything in a model's graph passes through, from the images to the output.

A residual stream is what all later tokens depend on, and nothing else of what came before: a cut through the graph at
one value. So the stream is found by the graph's shape, whatever operators a format spells its halves with and whatever
it calls them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

# They look at the shape of what they are given, not at the numbers.
SHAPE_READERS = frozenset({"SHAPE", "SIZE", "RANK"})


@dataclass(frozen=True)
class Node:
    """One operator.

    Args:
        operator: what it does, as the format calls it.
        name: which one it is.
        inputs: names of values, of which some are constant.
        outputs: names of values.
    """

    operator: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.operator} {self.name}"

    @property
    def kind(self) -> str:
        """The operator in capitals, as formats spell the same one differently."""
        return self.operator.upper().rpartition(".")[2]


@dataclass(frozen=True)
class Section:
    """What lies between two values that everything goes through.

    Args:
        start: the value it begins with.
        end: the value it ends with.
        nodes: the nodes in between.
    """

    start: str
    end: str
    nodes: tuple[Node, ...]


@dataclass(frozen=True)
class Flow:
    """A graph from one input to one output.

    Args:
        nodes: each after those that it depends on.
        input: the value that is given.
        output: the requested value.
        stored: the number of values of each stored constant.
    """

    nodes: tuple[Node, ...]
    input: str
    output: str
    stored: Mapping[str, int]

    @cached_property
    def moving(self) -> frozenset[str]:
        """The values that depend on the numbers in the input."""
        found = {self.input}
        for node in self.nodes:
            if node.kind not in SHAPE_READERS and any(value in found for value in node.inputs):
                found.update(node.outputs)
        return frozenset(found)

    @cached_property
    def constants(self) -> Mapping[str, int]:
        """How many stored numbers are behind each value that does not depend on the input."""
        sizes = dict(self.stored)
        for node in self.nodes:
            if node.outputs and node.outputs[0] not in self.moving:
                largest = max((sizes.get(value, 0) for value in node.inputs), default=0)
                sizes |= {name: max(largest, sizes.get(name, 0)) for name in node.outputs}
        return sizes

    @cached_property
    def path(self) -> tuple[Node, ...]:
        """The nodes on the way from the input to the output."""
        needed, found = {self.output}, []
        for node in reversed(self.nodes):
            if needed & set(node.outputs) & self.moving:
                needed.update(value for value in node.inputs if value in self.moving)
                found.append(node)
        return tuple(reversed([node for node in found if node.kind not in SHAPE_READERS]))

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node on the way that computes each value."""
        return {name: node for node in self.path for name in node.outputs}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """The nodes on the way that read each value."""
        found: dict[str, list[Node]] = {}
        for node in self.path:
            for name in dict.fromkeys(node.inputs):
                found.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in found.items()}

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """The whole way, cut wherever a single value carries everything."""
        return tuple(self._cut())

    def _cut(self) -> Iterator[Section]:
        # A value is a cut if, when it is computed, nothing else that was computed is still waited for.
        waiting = Counter(name for node in self.path for name in set(node.inputs) if name in self.moving)
        live, start, between = {self.input}, self.input, []
        for node in self.path:
            between.append(node)
            for name in set(node.inputs) & live:
                waiting[name] -= 1
                if not waiting[name]:
                    live.discard(name)
            live.update(name for name in node.outputs if waiting[name] or name == self.output)
            if len(live) == 1:
                (end,) = live
                yield Section(start, end, tuple(between))
                start, between = end, []

    def moving_inputs(self, node: Node) -> list[str]:
        """Those of a node's inputs that depend on the images."""
        return [name for name in node.inputs if name in self.moving]

    def constant_size(self, node: Node) -> int:
        """How many numbers the largest constant has that a node reads."""
        return max((self.constants.get(name, 0) for name in node.inputs if name not in self.moving), default=0)
