"""A whole ONNX graph in integers, in QDQ form: every value has a `QuantizeLinear` and a `DequantizeLinear` behind it.

That is what the compilers of NPUs read: an operator is one of integers where all that it reads and gives is.
Activations are unsigned, with a zero point of their own; kernels are signed and symmetric, with a scale an output
channel, and biases have 32 bits and the scale of the products that they are added to. What only moves numbers keeps
their scale. Where both sides of an edge have other bits, two pairs follow each other, which is a conversion.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.options.quantizing import Clipping
from vit_deploy.errors import ConfigError
from vit_deploy.exporters.onnx.even_norms import with_even_norms
from vit_deploy.exporters.onnx.graph_values import TURNED, layer_name, layer_nodes, layer_squares, measure
from vit_deploy.exporters.onnx.int8_pairs import scales
from vit_deploy.exporters.onnx.layers import KERNEL, drop_initializers, drop_unused_initializers
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.clipping import clipped
from vit_deploy.exporters.quantization.learned_ranges import learned_ranges
from vit_deploy.exporters.quantization.recipes import Recipe, products_of
from vit_deploy.exporters.quantization.rounding import rounded

Array = NDArray[Any]
Range = tuple[float, float]

OPSET = 21  # the first whose quantizers have 16 bits
IR_VERSION = 10  # of that opset
TYPES: Mapping[int, type[np.unsignedinteger[Any]]] = {8: np.uint8, 16: np.uint16}
MOVING = frozenset(
    {"Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"}
)
# Of 16 bits Hexagon takes these scales alone.
FIXED: Mapping[str, Range] = {"Sigmoid": (0.0, 65535 / 65536), "Tanh": (-1.0, 32767 / 32768)}
SMALLEST = 1e-30  # of a scale, so that its product with another is none of zero
BIAS_LIMIT = float(2**30)


@dataclass(frozen=True)
class Widths:
    """How many bits activations have.

    Args:
        layers: of what layers with a kernel read and give.
        others: of everything else.
        fitting_pairs: whether the kernels' integers keep neighbouring products within 16 bits; see `saturation`.
    """

    layers: int
    others: int
    fitting_pairs: bool = False

    def of(self, node: onnx.NodeProto, kernels: Collection[str]) -> int:
        """Of what a node reads and gives."""
        return self.layers if is_layer(node, kernels) else self.others


def with_whole_graph(
    model: onnx.ModelProto, source: Artifact, recipe: Recipe, calibration: Calibration | None
) -> onnx.ModelProto:
    """The model with every value in integers, by a recipe.

    Args:
        model: fp32; changed.
        source: the artifact that it is of.
        recipe: the recipe, of a whole graph.
        calibration: images that ranges are measured on.

    Raises:
        ConfigError: there are none.
    """
    if calibration is None:
        raise ConfigError(f"{recipe.precision} needs images to calibrate with")
    fold_constants(model.graph)
    if not learned_ranges(source, calibration):  # which hold for the channels as they are
        with_even_norms(model.graph, [f"{name}{KERNEL}" for name in recipe.keep_float])
    widths = Widths(recipe.activation_bits, recipe.residual_bits, recipe.fitting_pairs)
    observed = measure(model, source.input, calibration, counted=recipe.clipping is not Clipping.MIN_MAX)
    narrow = {name for node in layer_nodes(model.graph) for name in (node.input[0], node.output[0])}
    ranges = {}
    for name, seen in observed.items():
        bits = widths.layers if name in narrow else widths.others
        ranges[name] = clipped(seen, recipe.clipping, bits=bits, percentile=recipe.percentile)
    ranges |= _learned(model.graph, source, calibration)
    kept = {*recipe.keep_float}
    nodes = [node for node in layer_nodes(model.graph) if not _is_kept(node, kept)]
    squares = layer_squares(model, nodes, source.input, calibration)
    return in_integers(model, ranges, widths, squares, keep_float=lambda node: _is_kept(node, kept))


def _learned(graph: onnx.GraphProto, source: Artifact, calibration: Calibration) -> dict[str, Range]:
    """Ranges that training found of what layers read and give, by the name of the value."""
    learned = learned_ranges(source, calibration)
    found: dict[str, Range] = {}
    for node in layer_nodes(graph):
        layer = layer_name(node)
        sides = {"input": node.input[0], "output": node.output[0]}
        found |= {name: learned[f"{layer}.{side}"] for side, name in sides.items() if f"{layer}.{side}" in learned}
    return found


def _is_kept(node: onnx.NodeProto, kept: Collection[str]) -> bool:
    """Whether a node is one of those that stay in float: a layer, or the products of an attention."""
    if not kept:
        return False
    if len(node.input) > 1 and node.input[1].endswith(KERNEL):
        return layer_name(node) in kept
    attention = node.name.rpartition(".")[0]
    return node.op_type in ("MatMul", "Softmax") and products_of(attention) in kept


def is_layer(node: onnx.NodeProto, kernels: Collection[str]) -> bool:
    """Whether a node multiplies with a kernel."""
    return node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in kernels


def fold_constants(graph: onnx.GraphProto) -> None:
    """Compute what depends on stored numbers alone, such as kernels that are transposed before they are used."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        if node.input and all(name in stored for name in node.input if name):
            renamed = _canonical(node)
            for name, values in zip(node.output, _computed(node, stored), strict=True):
                stored[name] = numpy_helper.from_array(np.ascontiguousarray(values), renamed.get(name, name))
        else:
            kept.append(node)
    for node in kept:
        for index, name in enumerate(node.input):
            if name in stored:
                node.input[index] = stored[name].name
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(copies)
    graph.initializer.extend({tensor.name: tensor for tensor in stored.values()}.values())
    drop_unused_initializers(graph)


def _canonical(node: onnx.NodeProto) -> dict[str, str]:
    """A kernel that is turned stays the kernel of its layer."""
    turned = node.op_type == "Transpose" and node.input[0].endswith(KERNEL)
    return {node.output[0]: f"{TURNED}{node.input[0]}"} if turned else {}


def _computed(node: onnx.NodeProto, stored: Mapping[str, onnx.TensorProto]) -> Sequence[Array]:
    given = {name: numpy_helper.to_array(stored[name]) for name in node.input if name}
    inputs = [helper.make_tensor_value_info(name, stored[name].data_type, stored[name].dims) for name in given]
    outputs = [helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in node.output]
    graph = helper.make_graph([node], "constant", inputs, outputs)
    found: Sequence[Array] = ReferenceEvaluator(helper.make_model(graph)).run(None, given)
    return found


def in_integers(
    model: onnx.ModelProto,
    ranges: Mapping[str, Range],
    widths: Widths,
    squares: Iterable[tuple[str, NDArray[np.float32]]],
    *,
    keep_float: Callable[[onnx.NodeProto], bool] = lambda node: False,
) -> onnx.ModelProto:
    """The model with every value of float32 in integers.

    Args:
        model: fp32, its constants folded; changed.
        ranges: the lowest and the highest number that each value had; of those that are in there.
        widths: how many bits they get.
        squares: sums of products of what layers read, each with its name; see `rounding`.
        keep_float: tells which nodes compute in float32 between what is in integers.
    """
    work = _Work(model.graph, dict(ranges), widths, squares)
    work.run(keep_float)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", OPSET))
    model.ir_version = IR_VERSION
    drop_unused_initializers(model.graph)
    return model


@dataclass
class _Work:
    graph: onnx.GraphProto
    ranges: dict[str, Range]
    widths: Widths
    squares: Iterable[tuple[str, NDArray[np.float32]]]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    restored: dict[tuple[str, int], str] = field(default_factory=dict)  # by value and bits
    scales: dict[str, Array] = field(default_factory=dict)  # of what was restored, and of kernels
    kernels: dict[str, tuple[Array, Array]] = field(default_factory=dict)  # scales and integers by the kernel's name

    def run(self, keep_float: Callable[[onnx.NodeProto], bool]) -> None:
        """Write the graph anew."""
        graph = self.graph
        self.stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        kernels = [name for name in self.stored if name.endswith(KERNEL)]
        results = [value.name for value in graph.output]
        self._share_scales()
        given = graph.input[0].name
        self.natural = {given: self.widths.others}
        for node in graph.node:
            for name in node.output:
                self.natural[name] = self._width(node, kernels)
        self._round_kernels(kernels)
        if given in self.ranges:  # pixels are integers as they are
            self._both(given)
        for node in list(graph.node):
            copy = self._reading(node, kernels, floats=keep_float(node))
            for index, name in enumerate(node.output):
                if name in results:
                    copy.output[index] = f"{name}.float"
            self.nodes.append(copy)
            for name in node.output:
                if name in self.ranges:
                    self._both(name, source=f"{name}.float" if name in results else name)
        for name in results:
            last = self.nodes.index(
                next(node for node in self.nodes if self.restored[name, self.natural[name]] in node.output)
            )
            self._rename(self.restored[name, self.natural[name]], name, last)
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        del graph.node[:], graph.value_info[:]
        graph.node.extend(copies)

    def _reading(self, node: onnx.NodeProto, kernels: Collection[str], *, floats: bool) -> onnx.NodeProto:
        """A copy of a node that reads restored integers, its constants among them unless it computes in floats."""
        width = self._width(node, kernels)
        copy = onnx.NodeProto.FromString(node.SerializeToString())
        for index, name in enumerate(node.input):
            if name in self.ranges:
                copy.input[index] = self._read(name, width)
            elif floats and name.startswith(TURNED):
                self._turn_back(name)
            elif name in self.stored and self.stored[name].dtype == np.float32 and not floats:
                copy.input[index] = self._constant(node, index, copy, width, kernels)
        return copy

    def _turn_back(self, name: str) -> None:
        """Store a kernel that stays in float as the checkpoint has it, and turn it where it is used."""
        original = self._stored(name.removeprefix(TURNED), self.stored[name].transpose(2, 3, 1, 0))
        self.nodes.append(
            helper.make_node("Transpose", [original], [name], name=f"{name}.Transpose", perm=[3, 2, 0, 1])
        )
        drop_initializers(self.graph, [name])

    def _rename(self, old: str, new: str, at: int) -> None:
        self.nodes[at].output[0] = new
        for node in self.nodes:
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new

    def _width(self, node: onnx.NodeProto, kernels: Collection[str]) -> int:
        """The bits in which a node reads and gives: what only moves numbers leaves them as they are."""
        if node.op_type in MOVING and node.input[0] in self.natural:
            return self.natural[node.input[0]]
        return self.widths.of(node, kernels)

    def _share_scales(self) -> None:
        """Give what is moved the range of what it was before, and the operators with a scale of their own that."""
        for node in self.graph.node:
            for name in node.output:
                if name not in self.ranges:
                    continue
                if node.op_type in MOVING and node.input[0] in self.ranges:
                    self.ranges[name] = self.ranges[node.input[0]]
                elif node.op_type in FIXED and self.widths.others == 16:
                    self.ranges[name] = FIXED[node.op_type]

    def _both(self, name: str, source: str | None = None) -> None:
        """Quantize a value as soon as it is there, and restore it for those that read it in as many bits."""
        self._pair(name, source or name, self.natural[name])

    def _read(self, name: str, width: int) -> str:
        """The value restored from that many bits, converted where it has others."""
        if (name, width) not in self.restored:
            self._pair(name, self.restored[name, self.natural[name]], width)
        return self.restored[name, width]

    def _pair(self, name: str, source: str, width: int) -> None:
        dtype = TYPES[width]
        scale, zero = scale_of(self.ranges[name], dtype)
        key = f"{name}.{width}_bits"
        parameters = [self._stored(f"{key}.scale", scale), self._stored(f"{key}.zero", zero)]
        self.nodes += [
            helper.make_node("QuantizeLinear", [source, *parameters], [key], name=f"{key}.Quantize"),
            helper.make_node("DequantizeLinear", [key, *parameters], [f"{key}.restored"], name=f"{key}.Dequantize"),
        ]
        self.restored[name, width] = f"{key}.restored"
        self.scales[f"{key}.restored"] = scale

    def _constant(
        self, node: onnx.NodeProto, index: int, copy: onnx.NodeProto, width: int, kernels: Collection[str]
    ) -> str:
        """A stored number or array in integers, as the operator takes it."""
        name = node.input[index]
        if index == 1 and is_layer(node, kernels):
            return self._kernel(node, name, copy.input[0])
        if index == 2 and node.op_type in ("Conv", "Gemm"):
            return self._bias(name, self.scales[copy.input[0]] * self.scales[copy.input[1]])
        if node.op_type == "LayerNormalization" and index == 2:
            return self._bias(name, self.scales[copy.input[0]] * self.scales[copy.input[1]])
        values = self.stored[name]
        wide = 8 if node.op_type == "LayerNormalization" else width
        return self._per_tensor(name, values, wide)

    def _per_tensor(self, name: str, values: Array, width: int) -> str:
        dtype, key = TYPES[width], f"{name}.{width}_bits"
        if f"{key}.restored" not in self.scales:
            scale, zero = scale_of((float(values.min()), float(values.max())), dtype)
            limits = np.iinfo(dtype)
            whole = np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(dtype)
            self._dequantize(key, whole, scale, zero)
        return f"{key}.restored"

    def _round_kernels(self, kernels: Collection[str]) -> None:
        """Round by what layers read, before anything of the graph is changed; other kernels are rounded when used."""
        readers = [node for node in self.graph.node if is_layer(node, kernels)]
        for name, squares in self.squares:
            step, _ = scale_of(self.ranges[name], TYPES[self.widths.layers])
            for node in readers:
                if node.input[0] == name and node.input[1] not in self.kernels:
                    self.kernels[node.input[1]] = self._rounded(node, step, squares)

    def _rounded(self, node: onnx.NodeProto, step: Array, squares: NDArray[np.float32] | None) -> tuple[Array, Array]:
        """Scales and integers of a kernel, by the scale of what its layer reads."""
        values, axis = self.stored[node.input[1]], self._outputs_axis(node)
        columns = np.moveaxis(values, axis, -1).reshape(-1, values.shape[axis])
        scale = scales(columns, fitting_pairs=self.widths.fitting_pairs)
        if len(node.input) > 2:  # a bias has to fit its 32 bits
            scale = np.maximum(scale, np.abs(self.stored[node.input[2]]) / (step * BIAS_LIMIT))
        rest = np.delete(values.shape, axis)
        return scale, np.moveaxis(rounded(columns, scale, squares).reshape(*rest, -1), -1, axis)

    def _outputs_axis(self, node: onnx.NodeProto) -> int:
        return 0 if node.op_type == "Conv" else self.stored[node.input[1]].ndim - 1

    def _kernel(self, node: onnx.NodeProto, name: str, read: str) -> str:
        if f"{name}.restored" in self.scales:
            return f"{name}.restored"
        if name not in self.kernels:
            self.kernels[name] = self._rounded(node, self.scales[read], None)
        scale, whole = self.kernels.pop(name)
        zero = np.zeros(scale.shape, np.int8)
        self._dequantize(name, whole, scale, zero, axis=self._outputs_axis(node))
        return f"{name}.restored"

    def _bias(self, name: str, scale: Array) -> str:
        whole = np.clip(
            np.rint(self.stored[name].astype(np.float64) / scale), -2 * BIAS_LIMIT, 2 * BIAS_LIMIT - 1
        ).astype(np.int32)
        self._dequantize(name, whole, scale, np.zeros(scale.shape, np.int32), axis=0)
        return f"{name}.restored"

    def _dequantize(self, key: str, whole: Array, scale: Array, zero: Array, *, axis: int = 0) -> None:
        inputs = [
            self._stored(f"{key}.integers", whole),
            self._stored(f"{key}.scale", np.asarray(scale, np.float32)),
            self._stored(f"{key}.zero", zero),
        ]
        more = {"axis": axis} if np.ndim(scale) else {}
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [f"{key}.restored"], name=f"{key}.Dequantize", **more)
        )
        self.scales[f"{key}.restored"] = np.asarray(scale, np.float32)

    def _stored(self, name: str, values: Any) -> str:
        array = np.ascontiguousarray(values)
        self.graph.initializer.append(numpy_helper.from_array(array.reshape(np.shape(values)), name))
        return name


def scale_of(ends: Range, dtype: type[np.unsignedinteger[Any]]) -> tuple[Array, Array]:
    """Scale and zero point by which zero is exact and both ends are inside."""
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    top = int(np.iinfo(dtype).max)
    scale = np.float32(max((high - low) / top, SMALLEST) if high > low else 1.0)  # what is always zero has no range
    return np.asarray(scale, np.float32), np.asarray(np.clip(np.rint(-low / scale), 0, top), dtype)
