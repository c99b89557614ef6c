"""The operators of a TFLite file with the types, shapes and options they compute with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vit_deploy.formats.tflite import schema
from vit_deploy.formats.tflite.flatbuffer import Table


@dataclass(frozen=True)
class Tensor:
    """What an operator reads or writes; its content is looked up in the open file when it is used.

    Args:
        table: the tensor's table in the schema.
        buffer: the buffer with its content.
    """

    table: schema.Tensor
    buffer: schema.Buffer

    @property
    def dtype(self) -> str:
        """Name of the type, such as "int8"."""
        return self.table.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes; 1 where they are open."""
        return tuple(self.table.shape)

    @property
    def is_open(self) -> bool:
        """Whether a size is known only when the file runs."""
        return any(side < 0 for side in self.table.shape_signature)

    @property
    def is_constant(self) -> bool:
        """Whether its content is in the file."""
        return len(self.buffer.content) > 0

    @property
    def zero_point(self) -> int:
        """What stands for zero, of the first channel."""
        quantization = self.table.quantization
        return next(iter(quantization.zero_points), 0) if quantization else 0

    def values(self) -> NDArray[np.generic]:
        """The content of a constant of whole bytes, flat."""
        return np.frombuffer(bytes(self.buffer.content), np.dtype(self.dtype))


@dataclass(frozen=True)
class Step:
    """One operator.

    Args:
        kind: its name, such as "FULLY_CONNECTED"; of a custom one its own.
        inputs: tensors; those that are left out are not among them.
        outputs: the tensors that it writes, likewise.
        options: the options of the operator, by the schema's table for its kind; None where there are none.
    """

    kind: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    options: Table | None


def read_steps(model: schema.Model) -> Iterator[Step]:
    """The operators of all graphs of an open file, in their order."""
    kinds, buffers = [code.name for code in model.codes], model.buffers
    for graph in model.graphs:
        tensors = [Tensor(tensor, buffers[tensor.buffer]) for tensor in graph.tensors]
        for operator in graph.operators:
            inputs, outputs = (
                tuple(tensors[index] for index in side if index >= 0) for side in (operator.inputs, operator.outputs)
            )
            yield Step(kinds[operator.code], inputs, outputs, operator.options)
