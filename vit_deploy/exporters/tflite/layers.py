"""The operators of a TFLite file that are the layers of its ViT, and the names of their tensors."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from vit_deploy.core.checkpoint import module_names
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import layer_names
from vit_deploy.errors import ExportError
from vit_deploy.formats.tflite.schema import Model, SubGraph

QUERIES, MAP_POOL = ".attention.query.output", "map_pool."
PROBED = "map_pool.attention.query"  # its output is the same for all images, and a constant of the file
WITH_KERNELS = ("CONV_2D", "FULLY_CONNECTED")


@dataclass(frozen=True)
class Operator:
    """One step of the graph.

    Args:
        kind: its name, such as "FULLY_CONNECTED".
        inputs: tensors by their index, -1 where an optional one is left out.
        outputs: its output tensors, likewise.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Layer:
    """An operator with a kernel.

    Args:
        name: canonical, such as `block_0.attention.query`.
        kind: "CONV_2D" or "FULLY_CONNECTED".
        input: name of the tensor that it multiplies with its kernel.
        output: name of the tensor that it computes.
        kernel: buffer of its kernel, (outputs, …, inputs).
        bias: buffer of its bias; None where it has none.
        inputs: features that each output is summed over.
    """

    name: str
    kind: str
    input: str
    output: str
    kernel: int
    bias: int | None
    inputs: int


def operators(graph: SubGraph, model: Model) -> Iterator[Operator]:
    """The steps of a graph in their order."""
    kinds = [code.name for code in model.codes]
    for operator in graph.operators:
        yield Operator(kinds[operator.code], tuple(operator.inputs), tuple(operator.outputs))


def find_layers(model: Model, config: ViTConfig) -> dict[str, Layer]:
    """The layers of a ViT by their canonical names, in the order in which the file computes them.

    The converter names a kernel after the Keras layers around it, each with a number that keeps names apart.

    Raises:
        ExportError: a layer is not there exactly once, but for the query of a probe, which is not computed.
    """
    graph = model.graph
    tensors = graph.tensors
    patterns = {name: _pattern(name) for name in layer_names(config)}
    found: dict[str, Layer] = {}
    problems = []
    for operator in operators(graph, model):
        if operator.kind not in WITH_KERNELS:
            continue
        source, kernel, bias = operator.inputs
        label = tensors[kernel].name
        names = [name for name, pattern in patterns.items() if pattern.search(label)]
        if len(names) != 1 or names[0] in found:
            problems.append(f"{label!r} is the kernel of {', '.join(names) or 'no layer'}")
            continue
        found[names[0]] = Layer(
            name=names[0],
            kind=operator.kind,
            input=tensors[source].name,
            output=tensors[operator.outputs[0]].name,
            kernel=tensors[kernel].buffer,
            bias=tensors[bias].buffer if bias >= 0 else None,
            inputs=math.prod(tensors[kernel].shape[1:]),
        )
    problems += [f"{name} is not there" for name in patterns if name not in found and name != PROBED]
    if problems:
        raise ExportError(
            f"the layers of this TFLite file cannot be told: {'; '.join(problems[:3])}",
            fix="export the fp32 file again with this version",
        )
    return found


def output_factor(name: str, config: ViTConfig) -> float:
    """What a range, such as that of `block_0.attention.query.output`, is multiplied by in a TFLite file.

    The converter puts the division by the root of the head's width into the query's kernel, unless a norm or rotary
    positions are between.
    """
    block = re.match(r"block_(\d+)\.", name)
    between = config.qk_norm or (block is not None and config.turns_queries(int(block[1])))
    divided = name.endswith(QUERIES) and (not between or name.startswith(MAP_POOL))
    width = config.pooled_dim // config.probe_heads if name.startswith(MAP_POOL) else config.head_dim
    return 1 / math.sqrt(width) if divided else 1.0


def find_tensors(model: Model, config: ViTConfig) -> dict[str, str]:
    """The names of the tensors that a ViT's operators compute, by what `Checkpoint.ranges` calls them.

    Operators with kernels are left out: `find_layers` knows them. The others are counted by module and kind.
    """
    graph = model.graph
    tensors, modules = graph.tensors, module_names(config)
    counts: Counter[str] = Counter()
    found = {}
    for operator in operators(graph, model):
        label = tensors[operator.outputs[0]].name
        kind = f"{_module(label, modules)}.{operator.kind.lower()}"
        if operator.kind not in WITH_KERNELS:
            found[f"{kind}.{counts[kind]}"] = label
        counts[kind] += 1
    return found


def _module(label: str, modules: Collection[str]) -> str:
    """The module that a tensor is of by the first of its labels, `block_0_1/norm1_1/Mean_1;…`; else the whole model."""
    module = ""
    for part in label.split(";", maxsplit=1)[0].split("/"):
        # Keras tells layers of one name apart by a number behind it.
        names = [f"{module}.{name}".lstrip(".") for name in (part, re.sub(r"_\d+$", "", part))]
        inner = next((name for name in names if name in modules), None)
        if inner is None:
            break
        module = inner
    return module or "model"


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile("(?:^|[/;])" + "".join(rf"{re.escape(part)}(?:_\d+)?/" for part in name.split(".")))
