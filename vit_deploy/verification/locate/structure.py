"""The places in a model file's graph where the reference's activations are, and what lies between them.

Attention is known by its softmax, the feed-forward half by being the next products with weights, the positions by the
size of their table; names and numbers of operators count for nothing, so that a quantized graph is read like any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from vit_deploy.core.choices import NormalizationPosition, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.verification.locate.flow import Flow, Node, Section
from vit_deploy.verification.locate.nodes import (
    ADDS,
    CARRIERS,
    adds_bias,
    carries,
    has_softmax,
    is_product,
    is_projection,
    nearest_product,
    source,
)
from vit_deploy.verification.locate.sublayers import Detail, Option, SublayerReader


@dataclass(frozen=True)
class Place:
    """Where an activation is.

    Args:
        values: the last of these that has as many numbers as the reference's activation is meant.
        node: that computes it.
        details: what lies in front of it, in the order of the network.
    """

    values: tuple[str, ...]
    node: Node
    details: tuple[Detail, ...] = ()


@dataclass
class Places:
    """All activations of a graph.

    Args:
        found: the value of each activation, in the order of the network.
        missing: why an activation was not found, by its name.
    """

    found: dict[str, Place] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def find_activations(flow: Flow, config: ViTConfig, *, folded_norms: bool) -> Places:
    """The activations of a graph, as far as they are there.

    Args:
        flow: the graph.
        config: the model's.
        folded_norms: whether scale and bias of a norm in front of a product are part of the product.
    """
    places = Places()
    sections = flow.sections
    sublayers = _sublayers(flow, config)
    if sublayers:
        _find_start(flow, config, sections[: sublayers[0]], places)
        if config.normalization_position is NormalizationPosition.PARALLEL:
            find_parallel(flow, [sections[index] for index in sublayers], places)
        else:
            _find_sublayers(SublayerReader(flow, config, folded_norms), sublayers, places)
    else:
        count = sum(map(has_softmax, sections))
        reason = f"the graph has {count} parts with a softmax, which do not make up {config.num_layers} blocks"
        names = [f"block_{index}.{half}" for index in range(config.num_layers) for half in ("attention", "ffn")]
        places.missing |= dict.fromkeys(("patch_embed", "pos_embed", *names), reason)
    tail = sections[sublayers[-1] + 1 :] if sublayers else ()
    reader = config.projection_after_norm or config.projection_after_pool
    _find_end(flow, config, tail, places, folded=folded_norms and reader is not None)
    return places


def _sublayers(flow: Flow, config: ViTConfig) -> list[int]:
    """The sections that are sublayers of blocks, attention and feed-forward in turn; none if they do not add up."""
    found: list[int] = []
    if config.normalization_position is NormalizationPosition.PARALLEL:
        found = [index for index, section in enumerate(flow.sections) if has_softmax(section)]
        return found[: config.num_layers] if len(found) - config.num_layers == _pools_by_attention(config) else []
    for index, section in enumerate(flow.sections):
        wants_attention = len(found) % 2 == 0
        if len(found) == 2 * config.num_layers:
            break
        if has_softmax(section):
            if not wants_attention:
                return []
            found.append(index)
        elif not wants_attention and any(is_projection(flow, node) for node in section.nodes):
            found.append(index)
    left = sum(map(has_softmax, flow.sections[found[-1] + 1 :])) if found else 0
    complete = len(found) == 2 * config.num_layers and left == _pools_by_attention(config)
    return found if complete else []


def _pools_by_attention(config: ViTConfig) -> bool:
    return config.effective_pooling is Pooling.MAP


def find_parallel(flow: Flow, blocks: Sequence[Section], places: Places) -> None:
    """The activations of blocks whose halves are computed side by side: the sum of one is part of the sum of both."""
    for index, section in enumerate(blocks):
        last = source(flow, section.end)
        assert last is not None  # sections end in what a node computes
        sums = [value for value in flow.moving_inputs(last) if _is_residual_sum(flow, value)]
        if len(sums) == 1 and (node := source(flow, sums[0])) is not None:
            places.found[f"block_{index}.attention"] = Place((sums[0],), node)
        else:
            places.missing[f"block_{index}.attention"] = "it is computed together with the feed-forward"
        places.found[f"block_{index}.ffn"] = Place((section.end,), last)


def _is_residual_sum(flow: Flow, value: str) -> bool:
    node = source(flow, value)
    return node is not None and node.kind in ADDS and len(flow.moving_inputs(node)) == 2


def _find_start(flow: Flow, config: ViTConfig, sections: Sequence[Section], places: Places) -> None:
    size = config.sequence_length * config.embed_dim
    sums = [node for section in sections for node in section.nodes if flow.constant_size(node) == size]
    sums = [node for node in sums if not is_product(node)]
    if len(sums) != 1:
        reason = f"{len(sums)} operators read a table of {size} numbers, expected one that adds the positions"
        places.missing |= dict.fromkeys(("patch_embed", "pos_embed"), reason)
        return
    (positions,) = sums
    (tokens,) = flow.moving_inputs(positions)
    patches, joined = tokens, source(flow, tokens)
    details: tuple[Detail, ...] = ()
    if config.num_prefix_tokens:
        if joined is None or not joined.kind.startswith("CONCAT") or len(flow.moving_inputs(joined)) != 1:
            places.missing["patch_embed"] = "no operator joins the prefix tokens to the patches"
        else:
            (patches,) = flow.moving_inputs(joined)
            details = (Detail("pos_embed.tokens", (Option(joined, (tokens, *joined.outputs)),), config.embed_dim),)
    if "patch_embed" not in places.missing:
        node = nearest_product(flow, patches)
        if node is None:
            places.missing["patch_embed"] = "no product leads to the patches"
        else:
            places.found["patch_embed"] = Place((patches,), node)
    places.found["pos_embed"] = Place(positions.outputs[:1], positions, details)


def _find_sublayers(reader: SublayerReader, sublayers: Sequence[int], places: Places) -> None:
    flow, config = reader.flow, reader.config
    sections = flow.sections
    post = config.normalization_position is NormalizationPosition.POST
    for order, position in enumerate(sublayers):
        half = "ffn" if order % 2 else "attention"
        activation = f"block_{order // 2}.{half}"
        section = sections[position]
        details = [*(reader.ffn(section, activation) if order % 2 else reader.attention(section, activation))]
        value = section.end
        if post:
            details.append(Detail(f"{activation}.sum", (Option(flow.producers[value], (value,)),), config.embed_dim))
            last = order + 1 == len(sublayers)
            if last and reader.folded_norms and config.norm_after_pooling and config.effective_pooling is Pooling.MAP:
                places.missing[activation] = "scale and bias of its norm are part of the products that read it"
                continue
            value = _end_of_last_norm(flow, sublayers) if last else sections[sublayers[order + 1]].start
        node = source(flow, value)
        assert node is not None  # sections end in what a node computes
        places.found[activation] = Place((value,), node, tuple(details))


def _end_of_last_norm(flow: Flow, sublayers: Sequence[int]) -> str:
    """The end of the last block's second norm, which has as many sections as its first; the model's own follows."""
    sections = flow.sections
    first = [section for section in sections[sublayers[-2] + 1 : sublayers[-1]] if not carries(section)]
    following = [section for section in sections[sublayers[-1] + 1 :] if not carries(section)]
    count = len(first)
    if not any(adds_bias(flow, stage) for stage in first[-1:]):
        # The first norm's bias may have been moved into the products that follow; nothing takes up the second's.
        count += any(adds_bias(flow, stage) for stage in following[count : count + 1])
    return following[count - 1].end if count else sections[sublayers[-1]].end


def _find_end(flow: Flow, config: ViTConfig, tail: Sequence[Section], places: Places, *, folded: bool) -> None:
    producer = source(flow, flow.output)
    if producer is None:
        places.missing |= dict.fromkeys(("norm", "head"), "the output does not depend on the images")
        return
    head_layers = config.include_top + bool(config.pre_logits_dim)
    products = [stage for stage in tail if any(is_projection(flow, node) for node in stage.nodes)]
    ending = products[len(products) - head_layers :] if head_layers else []
    starts = [section.start for section in ending] or [flow.output]
    pooled_is_norm = config.norm_after_pooling and not _reads_normed(config)
    details = [] if pooled_is_norm or folded else [_head_detail(flow, "head.pooled", starts[0], config.pooled_dim)]
    if config.pre_logits_dim and config.include_top:
        details.append(_head_detail(flow, "head.pre_logits", starts[1], config.pre_logits_dim))
    if not config.last_norm:
        places.missing["norm"] = "no norm follows the last block"
    elif config.norm_after_pooling and _reads_normed(config):
        places.missing["norm"] = "the head's own norm follows it, and the two are not told apart"
    elif not tail or len(ending) != head_layers:
        places.missing["norm"] = "the parts behind the last block are not told apart"
    else:
        opening = [stage for stage in tail if has_softmax(stage) or stage in products]
        inner = tail[: tail.index(opening[0])] if opening else tail
        values = (starts[0],) if config.norm_after_pooling else tuple(section.end for section in inner)
        before = places.found.get(_last_half(config))
        values = tuple(value for value in values if before is None or value not in before.values)
        node = source(flow, values[-1]) if values else None
        if node is None:
            places.missing["norm"] = "no operator is between the last block and the pooling"
        else:
            places.found["norm"] = Place(values, node)
    last = nearest_product(flow, flow.output) if config.include_top else producer
    places.found["head"] = Place(
        (flow.output,), last or producer, tuple(detail for detail in details if detail is not None)
    )


def _reads_normed(config: ViTConfig) -> bool:
    """Whether a norm of the head's own lies between the pooling and the first product behind it."""
    return config.head_norm and not config.pre_logits_dim


def _head_detail(flow: Flow, name: str, value: str, features: int) -> Detail:
    node = source(flow, value, through=CARRIERS - {"GATHER", "SLICE", "STRIDED_SLICE", "STRIDEDSLICE"})
    assert node is not None
    return Detail(name, (Option(node, (value,)),), features)


def _last_half(config: ViTConfig) -> str:
    return f"block_{config.num_layers - 1}.ffn"
