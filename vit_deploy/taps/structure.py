"""Where in a model file's graph are the taps of the reference, and what is computed between them?

Attention is known by its softmax, the feed-forward half by being the next products with weights, the positions by the
size of their table; names and numbers of operators count for nothing, so that a quantized graph is read like any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from vit_deploy.config import FFNType, NormalizationPosition, NormalizationType, Pooling, ViTConfig
from vit_deploy.taps.flow import Flow, Node, Section

ADDS = frozenset({"ADD", "ADDV2", "BIASADD"})
# They give the same numbers in another order, shape or dtype, or some of them.
CARRIERS = frozenset(
    {
        *("RESHAPE", "TRANSPOSE", "IDENTITY", "CAST", "SQUEEZE", "UNSQUEEZE", "EXPANDDIMS", "EXPAND_DIMS", "FLATTEN"),
        *("QUANTIZE", "DEQUANTIZE", "QUANTIZELINEAR", "DEQUANTIZELINEAR", "DYNAMICQUANTIZELINEAR"),
        *("GATHER", "SLICE", "STRIDED_SLICE", "STRIDEDSLICE"),
    }
)
# What may lie between a product and the end of its projection.
FINISHERS = ADDS | {"MUL", "CAST", "RESHAPE", "SQUEEZE", "IDENTITY", "QUANTIZE", "DEQUANTIZE"}


@dataclass(frozen=True)
class Option:
    """A node, and the values of which one should be what it computes."""

    node: Node
    values: tuple[str, ...]


@dataclass(frozen=True)
class Detail:
    """Something between two taps.

    Args:
        name: of the reference's detail.
        options: the nodes that may compute it; more than one where the graph does not tell them apart.
        features: of a token in it; None for `(images, heads, tokens, tokens)`.
        factors: by which a format may have scaled it.
    """

    name: str
    options: tuple[Option, ...]
    features: int | None
    factors: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Place:
    """Where a tap is.

    Args:
        values: the last of these that has as many numbers as the reference's tap is the tap.
        node: that computes it.
        details: what lies in front of it, in the order of the network.
    """

    values: tuple[str, ...]
    node: Node
    details: tuple[Detail, ...] = ()


@dataclass
class Places:
    """All taps of a graph.

    Args:
        found: by tap, in the order of the network.
        missing: by tap, why it was not found.
    """

    found: dict[str, Place] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def find_taps(flow: Flow, config: ViTConfig, *, folded_norms: bool) -> Places:
    """The taps of a graph, as far as they are there.

    Args:
        flow: the graph.
        config: the model's.
        folded_norms: whether scale and bias of a norm in front of a product are part of the product.
    """
    places = Places()
    sections = flow.sections
    halves = _halves(flow, config)
    if halves:
        _find_start(flow, config, sections[: halves[0]], places)
        reader = _Reader(flow, config, folded_norms)
        _find_halves(reader, halves, places)
    else:
        count = sum(map(_has_softmax, sections))
        reason = f"the graph has {count} parts with a softmax, which do not make up {config.num_layers} blocks"
        names = [f"block_{index}.{half}" for index in range(config.num_layers) for half in ("attention", "ffn")]
        places.missing |= dict.fromkeys(("patch_embed", "pos_embed", *names), reason)
    tail = sections[halves[-1] + 1 :] if halves else ()
    _find_end(flow, config, tail, places, folded=folded_norms and config.projection_after_norm is not None)
    return places


def _halves(flow: Flow, config: ViTConfig) -> list[int]:
    """The sections that are halves of blocks, attention and feed-forward in turn; none if they do not add up."""
    found: list[int] = []
    for index, section in enumerate(flow.sections):
        wants_attention = len(found) % 2 == 0
        if len(found) == 2 * config.num_layers:
            break
        if _has_softmax(section):
            if not wants_attention:
                return []
            found.append(index)
        elif not wants_attention and any(_is_projection(flow, node) for node in section.nodes):
            found.append(index)
    left = sum(map(_has_softmax, flow.sections[found[-1] + 1 :])) if found else 0
    complete = len(found) == 2 * config.num_layers and left == (config.effective_pooling is Pooling.MAP)
    return found if complete else []


def _find_start(flow: Flow, config: ViTConfig, sections: Sequence[Section], places: Places) -> None:
    size = config.sequence_length * config.embed_dim
    sums = [node for section in sections for node in section.nodes if flow.constant_size(node) == size]
    sums = [node for node in sums if not _is_product(node)]
    if len(sums) != 1:
        reason = f"{len(sums)} operators read a table of {size} numbers, expected one that adds the positions"
        places.missing |= dict.fromkeys(("patch_embed", "pos_embed"), reason)
        return
    (positions,) = sums
    (tokens,) = flow.moving_inputs(positions)
    patches, joined = tokens, _source(flow, tokens)
    details: tuple[Detail, ...] = ()
    if config.num_prefix_tokens:
        if joined is None or not joined.kind.startswith("CONCAT") or len(flow.moving_inputs(joined)) != 1:
            places.missing["patch_embed"] = "no operator joins the prefix tokens to the patches"
        else:
            (patches,) = flow.moving_inputs(joined)
            details = (Detail("pos_embed.tokens", (Option(joined, (tokens, *joined.outputs)),), config.embed_dim),)
    if "patch_embed" not in places.missing:
        node = _nearest_product(flow, patches)
        if node is None:
            places.missing["patch_embed"] = "no product leads to the patches"
        else:
            places.found["patch_embed"] = Place((patches,), node)
    places.found["pos_embed"] = Place(positions.outputs[:1], positions, details)


def _find_halves(reader: _Reader, halves: Sequence[int], places: Places) -> None:
    flow, config = reader.flow, reader.config
    sections = flow.sections
    post = config.normalization_position is NormalizationPosition.POST
    for order, position in enumerate(halves):
        half = "ffn" if order % 2 else "attention"
        tap = f"block_{order // 2}.{half}"
        section = sections[position]
        details = [*(reader.ffn(section, tap) if order % 2 else reader.attention(section, tap))]
        value = section.end
        if post:
            details.append(Detail(f"{tap}.sum", (Option(flow.producers[value], (value,)),), config.embed_dim))
            last = order + 1 == len(halves)
            if last and reader.folded_norms and config.norm_after_pooling and config.effective_pooling is Pooling.MAP:
                places.missing[tap] = "scale and bias of its norm are part of the products that read it"
                continue
            value = _end_of_last_norm(flow, halves) if last else sections[halves[order + 1]].start
        node = _source(flow, value)
        assert node is not None  # sections end in what a node computes
        places.found[tap] = Place((value,), node, tuple(details))


def _end_of_last_norm(flow: Flow, halves: Sequence[int]) -> str:
    """Of the last block's second norm, which has as many sections as its first and is followed by the model's own."""
    sections = flow.sections
    first = [each for each in sections[halves[-2] + 1 : halves[-1]] if not _carries(each)]
    following = [each for each in sections[halves[-1] + 1 :] if not _carries(each)]
    count = len(first)
    if not any(_adds_bias(flow, each) for each in first[-1:]):
        # The first norm's bias may have been moved into the products that follow; nothing takes up the second's.
        count += any(_adds_bias(flow, each) for each in following[count : count + 1])
    return following[count - 1].end if count else sections[halves[-1]].end


def _find_end(flow: Flow, config: ViTConfig, tail: Sequence[Section], places: Places, *, folded: bool) -> None:
    producer = _source(flow, flow.output)
    if producer is None:
        places.missing |= dict.fromkeys(("norm", "head"), "the output does not depend on the images")
        return
    wanted = config.include_top + bool(config.pre_logits_dim)
    products = [each for each in tail if any(_is_projection(flow, node) for node in each.nodes)]
    ending = products[len(products) - wanted :] if wanted else []
    starts = [section.start for section in ending] or [flow.output]
    details = (
        [] if config.norm_after_pooling or folded else [_head_detail(flow, "head.pooled", starts[0], config.pooled_dim)]
    )
    if config.pre_logits_dim and config.include_top:
        details.append(_head_detail(flow, "head.pre_logits", starts[1], config.pre_logits_dim))
    if not tail or len(ending) != wanted:
        places.missing["norm"] = "the parts behind the last block are not told apart"
    else:
        opening = [each for each in tail if _has_softmax(each) or each in products]
        inner = tail[: tail.index(opening[0])] if opening else tail
        values = (starts[0],) if config.norm_after_pooling else tuple(section.end for section in inner)
        before = places.found.get(_last_half(config))
        values = tuple(value for value in values if before is None or value not in before.values)
        node = _source(flow, values[-1]) if values else None
        if node is None:
            places.missing["norm"] = "no operator is between the last block and the pooling"
        else:
            places.found["norm"] = Place(values, node)
    last = _nearest_product(flow, flow.output) if config.include_top else producer
    places.found["head"] = Place((flow.output,), last or producer, tuple(each for each in details if each is not None))


def _head_detail(flow: Flow, name: str, value: str, features: int) -> Detail:
    node = _source(flow, value, through=CARRIERS - {"GATHER", "SLICE", "STRIDED_SLICE", "STRIDEDSLICE"})
    assert node is not None
    return Detail(name, (Option(node, (value,)),), features)


def _last_half(config: ViTConfig) -> str:
    return f"block_{config.num_layers - 1}.ffn"


@dataclass(frozen=True)
class _Reader:
    """Tells apart what is inside a half of a block.

    Args:
        flow: the graph.
        config: the model's.
        folded_norms: whether scale and bias of a norm in front of products are part of them.
    """

    flow: Flow
    config: ViTConfig
    folded_norms: bool

    def attention(self, section: Section, tap: str) -> Iterator[Detail]:
        """What is between a block's input and its attention tap; nothing if one operator does it all."""
        softmax = next(node for node in section.nodes if _is_softmax(node))
        later = self._depending_on(softmax, section)
        products = [node for node in section.nodes if _is_product(node)]
        projections = [node for node in products if _is_projection(self.flow, node)]
        entering = [node for node in projections if node not in later]
        leaving = [node for node in projections if node in later]
        scores = [node for node in products if node not in projections and node not in later]
        mixes = [node for node in products if node not in projections and node in later]
        if len(entering) != 3 or len(leaving) != 1 or len(scores) != 1 or len(mixes) != 1:
            return
        dim = self.config.embed_dim
        factors = (1.0, 1 / math.sqrt(self.config.head_dim))
        yield from self._normed(entering, tap)
        options = tuple(Option(node, self._finished(node, section)) for node in entering)
        # Of folded norms of queries and keys, factors go into their products, and the keys' bias goes nowhere: it adds
        # the same to all scores of a query, which softmax does not see.
        folded = self.folded_norms and self.config.qk_norm
        if not (folded and self.config.normalization_type is NormalizationType.DYNAMIC_TANH):
            yield Detail(f"{tap}.query", options, dim, factors)
            yield Detail(f"{tap}.key", options, dim)
        yield Detail(f"{tap}.value", options, dim)
        if not folded:
            given = self.flow.moving_inputs(softmax)[0]
            yield Detail(f"{tap}.scores", (Option(scores[0], self._carried(given)),), None)
        yield Detail(f"{tap}.softmax", (Option(softmax, softmax.outputs[:1]),), None)
        yield self._read_by(leaving[0], f"{tap}.mix", dim, mixes[0])
        # The bias of a norm in front of post-norm blocks, which the first residual sum reads too, is moved in here.
        takes_bias = self.folded_norms and self.config.pre_norm and tap == "block_0.attention"
        if not (takes_bias and self.config.normalization_position is NormalizationPosition.POST):
            yield self._last(leaving[0], section, tap, "out")

    def ffn(self, section: Section, tap: str) -> Iterator[Detail]:
        """What is between a block's attention tap and its feed-forward tap."""
        *entering, down = [node for node in section.nodes if _is_projection(self.flow, node)]
        roles = ("up",) if self.config.ffn_type is FFNType.MLP else ("gate", "up")
        if len(entering) != len(roles):
            return
        yield from self._normed(entering, tap)
        options = tuple(Option(node, self._finished(node, section)) for node in entering)
        hidden = self._read_by(down, f"{tap}.hidden", self.config.mlp_dim)
        if hidden.options[0].node not in entering:  # else the activation is a part of the product
            for role in roles:
                yield Detail(f"{tap}.{role}", options, self.config.mlp_dim)
        yield hidden
        yield self._last(down, section, tap, "down")

    def _normed(self, entering: Sequence[Node], tap: str) -> Iterator[Detail]:
        if self.config.normalization_position is NormalizationPosition.PRE:
            name = "unit" if self.folded_norms else "norm"
            yield self._read_by(entering[0], f"{tap}.{name}", self.config.embed_dim)

    def _last(self, node: Node, section: Section, tap: str, name: str) -> Detail:
        # Exporters make the layer scale a part of the product in front of it.
        name = "scaled" if self.config.layer_scale else name
        return Detail(f"{tap}.{name}", (Option(node, self._finished(node, section)),), self.config.embed_dim)

    def _read_by(self, node: Node, name: str, features: int, computed_by: Node | None = None) -> Detail:
        value = self.flow.moving_inputs(node)[0]
        source = computed_by or _source(self.flow, value) or node
        return Detail(name, (Option(source, self._carried(value)),), features)

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
        return tuple(each for each in found if each != section.end)

    def _depending_on(self, node: Node, section: Section) -> set[Node]:
        values, found = set(node.outputs), set()
        for each in section.nodes:
            if values & set(each.inputs):
                values.update(each.outputs)
                found.add(each)
        return found


def _has_softmax(section: Section) -> bool:
    return any(_is_softmax(node) for node in section.nodes)


def _is_softmax(node: Node) -> bool:
    return "SOFTMAX" in node.kind or node.kind.endswith("ATTENTION")


def _is_product(node: Node) -> bool:
    return any(part in node.kind for part in ("MATMUL", "GEMM", "FULLY_CONNECTED", "EINSUM", "CONV"))


def _is_projection(flow: Flow, node: Node) -> bool:
    # A quantized product of two activations has constants as well: scales and zero points, one number each.
    return _is_product(node) and flow.constant_size(node) > 1


def _carries(section: Section) -> bool:
    return all(node.kind in CARRIERS for node in section.nodes)


def _adds_bias(flow: Flow, section: Section) -> bool:
    return len(section.nodes) == 1 and section.nodes[0].kind in ADDS and flow.constant_size(section.nodes[0]) > 0


def _source(flow: Flow, value: str, through: frozenset[str] = CARRIERS) -> Node | None:
    """The node that computed a value, past those that only carried it."""
    node = flow.producers.get(value)
    while node is not None and node.kind in through and (before := flow.producers.get(flow.moving_inputs(node)[0])):
        node = before
    return node


def _nearest_product(flow: Flow, value: str) -> Node | None:
    node = flow.producers.get(value)
    while node is not None and not _is_product(node):
        node = flow.producers.get(flow.moving_inputs(node)[0])
    return node
