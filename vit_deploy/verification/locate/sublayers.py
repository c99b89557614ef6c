"""The nodes of one sub-layer of a block: queries, scores, projections."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vit_deploy.core.choices import FFNType, NormalizationPosition, NormalizationType
from vit_deploy.core.config import ViTConfig
from vit_deploy.verification.locate.flow import Flow, Node, Section
from vit_deploy.verification.locate.nodes import ADDS, CARRIERS, is_product, is_projection, is_softmax, source

# What may lie between a product and the end of its projection.
FINISHERS = ADDS | {"MUL", "CAST", "RESHAPE", "SQUEEZE", "IDENTITY", "QUANTIZE", "DEQUANTIZE"}


@dataclass(frozen=True)
class Option:
    """A node, and the values of which one should be what it computes."""

    node: Node
    values: tuple[str, ...]


@dataclass(frozen=True)
class Detail:
    """Something between two activations.

    Args:
        name: the name of the reference's detail.
        options: the nodes that may compute it; more than one where the graph does not tell them apart.
        features: the number of features of a token in it; None for `(images, heads, tokens, tokens)`.
        factors: the factors by which a format may have scaled it.
    """

    name: str
    options: tuple[Option, ...]
    features: int | None
    factors: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class SublayerReader:
    """Tells apart what is inside a half of a block.

    Args:
        flow: the graph.
        config: the model's.
        folded_norms: whether scale and bias of a norm in front of products are part of them.
    """

    flow: Flow
    config: ViTConfig
    folded_norms: bool

    def attention(self, section: Section, activation: str) -> Iterator[Detail]:
        """What is between a block's input and its attention activation; nothing if one operator does it all."""
        softmax = next(node for node in section.nodes if is_softmax(node))
        later = self._depending_on(softmax, section)
        products = [node for node in section.nodes if is_product(node)]
        projections = [node for node in products if is_projection(self.flow, node)]
        entering = [node for node in projections if node not in later]
        leaving = [node for node in projections if node in later]
        scores = [node for node in products if node not in projections and node not in later]
        mixes = [node for node in products if node not in projections and node in later]
        if len(entering) != 3 or len(leaving) != 1 or len(scores) != 1 or len(mixes) != 1:
            return
        dim = self.config.attention_dim
        factors = (1.0, 1 / math.sqrt(self.config.head_dim))
        yield from self._normed(entering, activation)
        options = tuple(Option(node, self._finished(node, section)) for node in entering)
        # Of folded norms of queries and keys, factors go into their products, and the keys' bias goes nowhere: it adds
        # the same to all scores of a query, which softmax does not see.
        folded = self.folded_norms and self.config.qk_norm
        if not (folded and self.config.query_norm_type is NormalizationType.DYNAMIC_TANH):
            yield Detail(f"{activation}.query", options, dim, factors)
            yield Detail(f"{activation}.key", options, dim)
        yield Detail(f"{activation}.value", options, dim)
        if not folded:
            given = self.flow.moving_inputs(softmax)[0]
            yield Detail(f"{activation}.scores", (Option(scores[0], self._carried(given)),), None)
        yield Detail(f"{activation}.softmax", (Option(softmax, softmax.outputs[:1]),), None)
        if not self.config.attention_norm:  # else what the projection reads is normalized
            yield self._read_by(leaving[0], f"{activation}.mix", dim, mixes[0])
        # The bias of a norm in front of post-norm blocks, which the first residual sum reads too, is moved in here.
        takes_bias = self.folded_norms and self.config.pre_norm and activation == "block_0.attention"
        if not (takes_bias and self.config.normalization_position is NormalizationPosition.POST):
            yield self._last(leaving[0], section, activation, "out")

    def ffn(self, section: Section, activation: str) -> Iterator[Detail]:
        """What is between a block's attention activation and its feed-forward activation."""
        *entering, down = [node for node in section.nodes if is_projection(self.flow, node)]
        roles = ("up",) if self.config.ffn_type is FFNType.MLP else ("gate", "up")
        if len(entering) != len(roles):
            return
        yield from self._normed(entering, activation)
        options = tuple(Option(node, self._finished(node, section)) for node in entering)
        hidden = self._read_by(down, f"{activation}.hidden", self.config.mlp_dim)
        if self.config.ffn_norm:
            for role in roles:
                yield Detail(f"{activation}.{role}", options, self.config.mlp_dim)
            yield self._last(down, section, activation, "down")
            return
        if hidden.options[0].node not in entering:  # else the activation is a part of the product
            for role in roles:
                yield Detail(f"{activation}.{role}", options, self.config.mlp_dim)
        yield hidden
        yield self._last(down, section, activation, "down")

    def _normed(self, entering: Sequence[Node], activation: str) -> Iterator[Detail]:
        if self.config.normalization_position is NormalizationPosition.PRE:
            name = "unit" if self.folded_norms else "norm"
            yield self._read_by(entering[0], f"{activation}.{name}", self.config.embed_dim)

    def _last(self, node: Node, section: Section, activation: str, name: str) -> Detail:
        # Exporters make the layer scale a part of the product in front of it.
        inside = self.config.normalization_position is NormalizationPosition.RES_POST  # of whose norm it becomes a part
        name = "scaled" if activation.rpartition(".")[2] in self.config.scaled_halves and not inside else name
        return Detail(f"{activation}.{name}", (Option(node, self._finished(node, section)),), self.config.embed_dim)

    def _read_by(self, node: Node, name: str, features: int, computed_by: Node | None = None) -> Detail:
        value = self.flow.moving_inputs(node)[0]
        computing = computed_by or source(self.flow, value) or node
        return Detail(name, (Option(computing, self._carried(value)),), features)

    def _carried(self, value: str) -> tuple[str, ...]:
        """A value and those that it is carried from."""
        found = [value]
        while (node := self.flow.producers.get(found[-1])) is not None and node.kind in CARRIERS:
            found.append(self.flow.moving_inputs(node)[0])
        return tuple(found)

    def _finished(self, node: Node, section: Section) -> tuple[str, ...]:
        """What a product gives, with and without what is done to it on the way to its first reader."""
        found = [node.outputs[0]]
        while found[-1] != section.end:
            readers = self.flow.consumers.get(found[-1], ())
            if len(readers) != 1 or readers[0].kind not in FINISHERS:
                break
            if readers[0].kind in ADDS and len(self.flow.moving_inputs(readers[0])) > 1:
                break
            found.append(readers[0].outputs[0])
        return tuple(output for output in found if output != section.end)

    def _depending_on(self, node: Node, section: Section) -> set[Node]:
        values, found = set(node.outputs), set()
        for later in section.nodes:
            if values & set(later.inputs):
                values.update(later.outputs)
                found.add(later)
        return found
