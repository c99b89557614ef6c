"""A model file's graph in any format: inputs, outputs, operators, metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vit_deploy.core.format import Format
from vit_deploy.errors import ArtifactError


@dataclass(frozen=True)
class TensorInfo:
    """An input or an output.

    Args:
        name: the name by which engines feed or read it.
        dtype: the type, by NumPy's name where it has one.
        shape: a name or None where a side is dynamic; None where not even the rank is known.
    """

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        sides = "of unknown rank" if self.shape is None else f"({', '.join(str(side or '?') for side in self.shape)})"
        return f"{self.name} {self.dtype} {sides}"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, "dtype": self.dtype, "shape": None if self.shape is None else list(self.shape)}


@dataclass(frozen=True)
class Graph:
    """What a model file says.

    Args:
        inputs: without the weights.
        outputs: the outputs of the model, likewise.
        operators: name to how often it is used, the most used first.
        metadata: texts that travel in the file, by key.
        facts: what only this format has, such as ONNX's opset.
    """

    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operators: Mapping[str, int]
    metadata: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str | int] = field(default_factory=dict)


def read_graph(path: Path, format: Format) -> Graph:
    """What a model file of a format says.

    Raises:
        ArtifactError: it is missing or damaged, or files of this format are not read.
    """
    if format.read_graph is None:
        raise ArtifactError(f"{path} is {format.noun}, which cannot be looked into", fix="give a model file")
    graph: Graph = format.read_graph.load()(path)
    return graph


def counted(names: Iterable[str]) -> dict[str, int]:
    """How often each name occurs, the most frequent first, equals by name."""
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))
