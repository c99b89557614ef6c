"""Protection of an ONNX graph in 16-bit floats from values that these do not hold.

What every operator gives is measured on images, and on inputs unlike any. Channels that one layer writes and another
reads alone are divided by a power of two where they are written and multiplied where they are read, which is exact.
What is too large after that stays in float32, with all that reads it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import JOINED
from vit_deploy.errors import ConfigError
from vit_deploy.exporters.onnx.float16 import in_float32
from vit_deploy.exporters.onnx.fused_attention import FUSED, inside_attention
from vit_deploy.exporters.onnx.inside import opened_with
from vit_deploy.exporters.onnx.layers import PATCH_EMBED, array, layers_of, set_array
from vit_deploy.exporters.onnx.size_nodes import COUNTS, SCOPE
from vit_deploy.exporters.quantization.calibration import Calibration, batches
from vit_deploy.exporters.quantization.float16_kernels import LARGEST
from vit_deploy.exporters.quantization.half_protection import LIMIT, Protection
from vit_deploy.exporters.quantization.recipes import Recipe, products_of
from vit_deploy.exporters.quantization.smoothing import links
from vit_deploy.formats.onnx.graph import CONTRIB
from vit_deploy.runtimes.values import as_stored
from vit_deploy.verification.adversarial import VERY_LARGE, adversarial_images, adversarial_pixels

IMAGES = 8  # of those to calibrate with
MOVES = (
    *("Reshape", "Transpose", "Gather", "Slice", "Split", "Squeeze", "Unsqueeze", "Expand", "Concat", "Identity"),
    *("Flatten", "Cast"),
)
NO_FLOATS = ("Shape", "Constant", "ConstantOfShape", "Range", "Size")


@dataclass(frozen=True)
class Guarded:
    """What keeps a graph in 16-bit floats right.

    Args:
        nodes: names of the nodes that stay in float32.
        told: what was done, by layers and products; None for nothing.
    """

    nodes: frozenset[str] = frozenset()
    told: Protection | None = None


@dataclass(frozen=True, eq=False)
class Measured:
    """The largest absolute value of each tensor of a graph, by its name; within a fused attention by its node's."""

    largest: Mapping[str, float] = field(default_factory=dict)

    def of(self, *names: str) -> float:
        """Of several tensors; nothing for those that are not computed."""
        return max((self.largest.get(name, 0.0) for name in names), default=0.0)

    def at(self, node: onnx.NodeProto) -> float:
        """Of all that a node reads, gives and computes on the way."""
        return self.of(*node.input, *node.output, node.name)


def guard(model: onnx.ModelProto, source: Artifact, calibration: Calibration, recipe: Recipe) -> Guarded:
    """Rescale what can be, and say which nodes have to stay in float32.

    Args:
        model: fp32; its weights are changed where they are rescaled.
        source: the artifact that it is of.
        calibration: the images to measure on.
        recipe: which parts stay in float32 anyway.

    Raises:
        ConfigError: the file's own output is to have 16 bits, and does not fit.
    """
    graph = model.graph
    measured = measure(model, source, calibration)
    if recipe.half_io:
        _refuse_large_outputs(graph, measured)
    scaled = _rescale(model, source.config, measured)
    if scaled:
        measured = measure(model, source, calibration)
    in_half = [node for node in graph.node if not in_float32(node, recipe)]
    nodes = [node for node in in_half if measured.at(node) > LIMIT]
    if not (scaled or nodes):
        return Guarded()
    kept: dict[str, float] = {}
    for name, largest in _places(graph, nodes, measured):
        if name not in recipe.keep_float:
            kept[name] = max(largest, kept.get(name, 0.0))
    return Guarded(frozenset(node.name for node in nodes), Protection(kept, scaled))


def _refuse_large_outputs(graph: onnx.GraphProto, measured: Measured) -> None:
    makers = {output: node for node in graph.node for output in node.output}
    for result in graph.output:
        if (largest := measured.of(result.name)) > LARGEST:
            node = makers[result.name]
            place, _, operator = node.name.rpartition(".")
            raise ConfigError(
                f"the output {result.name} reaches {largest:.3g}, in the {operator or node.op_type} of {place}, and "
                f"16-bit floats end at {LARGEST:g}",
                fix="leave --half-io out: the file then gives float32, and whatever is too large inside stays so too",
            )


def measure(model: onnx.ModelProto, source: Artifact, calibration: Calibration) -> Measured:
    """The largest absolute values of all that a graph computes, on images and on inputs unlike any."""
    graph = model.graph
    values = {name: name for node in graph.node if _computes(node) for name in node.output if name}
    nodes = []
    for node in graph.node:
        if node.domain == CONTRIB and node.op_type in FUSED:
            nodes += inside_attention(node, f"{node.name}.inside")
            values[node.name] = f"{node.name}.inside"
    computed = list(values)
    for name, value in values.items():
        nodes.append(helper.make_node("Abs", [value], [f"{name}.absolute"]))
        nodes.append(helper.make_node("ReduceMax", [f"{name}.absolute"], [f"{name}.largest"], keepdims=0))
    names = [f"{name}.largest" for name in computed]
    found = np.zeros(len(names))
    with opened_with(model, names, nodes) as engine:
        for images in _inputs(source, calibration):
            given = {source.input.name: as_stored(images, source.input)}
            found = np.maximum(found, [float(value) for value in engine.run(names, given)])
    largest = dict(zip(computed, found.tolist(), strict=True)) | _too_large(graph)
    for node in graph.node:
        if node.op_type in MOVES:
            moved = max((largest.get(name, 0.0) for name in node.input), default=0.0)
            largest.update(dict.fromkeys(node.output, moved))
    return Measured(largest)


def _too_large(graph: onnx.GraphProto) -> dict[str, float]:
    """Weights that 16-bit floats do not hold, and biases without room for what they are added to inside a kernel."""
    floats = (one for one in graph.initializer if one.data_type == onnx.TensorProto.FLOAT)
    sizes = ((one.name, float(np.abs(numpy_helper.to_array(one)).max(initial=0.0))) for one in floats)
    return {name: size for name, size in sizes if size > (LIMIT if name.endswith(".bias") else LARGEST)}


def _inputs(source: Artifact, calibration: Calibration) -> Iterator[NDArray[Any]]:
    """Batches of images as a session takes them."""
    shape = (*source.config.image_size, source.config.channels)
    inside = source.input.preprocessing_inside
    odd: Mapping[str, NDArray[Any]]
    odd = adversarial_pixels(shape) if inside else adversarial_images(shape, source.preprocess)
    unlike = np.stack([image for name, image in odd.items() if name != VERY_LARGE])
    images = np.concatenate([calibration.images[:IMAGES], unlike.astype(calibration.images.dtype)])
    return batches(images, source.input.batch, IMAGES)


def _computes(node: onnx.NodeProto) -> bool:
    skipped = node.op_type in MOVES or node.op_type in NO_FLOATS or node.name.startswith((SCOPE, *COUNTS))
    return not skipped


def _places(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto], measured: Measured) -> Iterator[tuple[str, float]]:
    """The layers and products that these nodes are of, with the largest value there."""
    layers = {layer.node: layer.name for layer in layers_of(graph)}
    for node in nodes:
        place, largest = node.name.rpartition(".")[0], measured.at(node)
        if node.name in layers:
            yield from ((name, largest) for name in layers[node.name].split(JOINED))
        elif node.op_type == "Conv":
            yield PATCH_EMBED, largest
        elif node.op_type not in (*MOVES, *NO_FLOATS):
            yield products_of(place) if place.endswith("attention") else node.name, largest


def _rescale(model: onnx.ModelProto, config: ViTConfig, measured: Measured) -> dict[str, int]:
    """Divide what layers write by powers of two where it is too large; gives the power by the layer.

    Scores stay the same where a query is divided and its key multiplied; a value and the units of a homogeneous or
    gated feed-forward are multiplied again by the kernel that reads them.
    """
    graph = model.graph
    there = {weight.name for weight in graph.initializer}
    outputs = {node.name: node.output[0] for node in graph.node}
    layers = {layer.name: layer for layer in layers_of(graph)}
    sizes = {name: measured.of(outputs[layer.node]) for name, layer in layers.items()}
    found: dict[str, int] = {}
    for written, read in _linear(config):
        if not {written, read} <= layers.keys():
            continue
        power = _power(max(sizes[written], measured.of(layers[read].input)))
        largest = float(np.abs(array(graph, f"{read}.kernel")).max(initial=0.0))
        if power and largest * 2.0**power <= LARGEST:
            _multiply(graph, (f"{written}.kernel", f"{written}.bias"), -power, there)
            _multiply(graph, (f"{read}.kernel",), power, there)
            found[written] = power
    for one, other in _scored(config):
        if not {one, other} <= layers.keys():
            continue
        power = _power(sizes[one])
        if power and sizes[other] * 2.0**power <= LIMIT:
            _multiply(graph, (f"{one}.kernel", f"{one}.bias"), -power, there)
            _multiply(graph, (f"{other}.kernel", f"{other}.bias"), power, there)
            found[one] = power
    return found


def _linear(config: ViTConfig) -> Iterator[tuple[str, str]]:
    """Layers whose outputs are read by one layer alone, by nothing that would change with their size."""
    for link in links(config):
        layer, _, part = link.written[0].rpartition(".")
        if part == "kernel" and len(link.read) == 1:
            yield layer, link.read[0]


def _scored(config: ViTConfig) -> Iterator[tuple[str, str]]:
    """Queries and keys of the blocks, both ways around; none where a norm divides them by their size anyway."""
    for index in range(0 if config.qk_norm else config.num_layers):
        query, key = (f"block_{index}.attention.{role}" for role in ("query", "key"))
        yield query, key
        yield key, query


def _power(largest: float) -> int:
    """The least power of two that brings a value into the range."""
    return max(0, math.ceil(math.log2(largest / LIMIT))) if 0 < largest < math.inf else 0


def _multiply(graph: onnx.GraphProto, names: Sequence[str], power: int, there: Collection[str]) -> None:
    for name in names:
        if name in there:
            set_array(graph, name, np.ldexp(array(graph, name), power))
