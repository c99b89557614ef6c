"""The operators of a TFLite file with the types, shapes and options they compute with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vit_deploy.formats.tflite_file import Table, buffer_view, operator_name
from vit_deploy.formats.tflite_graph import (
    BUFFER_DATA,
    BUFFER_OFFSET,
    DTYPES,
    GRAPH_OPERATORS,
    GRAPH_TENSORS,
    MODEL_BUFFERS,
    MODEL_CODES,
    MODEL_GRAPHS,
    OPERATOR_CODE,
    OPERATORS,
    TENSOR_SHAPE,
    TENSOR_SHAPE_SIGNATURE,
    TENSOR_TYPE,
)

# Field positions of schema.fbs, by table.
OPERATOR_INPUTS, OPERATOR_OUTPUTS, OPERATOR_OPTIONS = 1, 2, 4
TENSOR_BUFFER, TENSOR_QUANTIZATION = 2, 4
QUANTIZATION_ZERO_POINT = 3


@dataclass(frozen=True)
class Tensor:
    """What an operator reads or writes; its content is looked up when it is asked for, in the open file.

    Args:
        table: the tensor's table in the schema.
        buffer: the number of the buffer with its content.
    """

    table: Table
    buffer: Table

    @property
    def dtype(self) -> str:
        """Name of the type, such as "int8"."""
        return DTYPES[self.table.number(TENSOR_TYPE, "b")]

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes; 1 where they are open."""
        return tuple(self.table.numbers(TENSOR_SHAPE, "i"))

    @property
    def is_open(self) -> bool:
        """Whether a size is known only when the file runs."""
        return any(side < 0 for side in self.table.numbers(TENSOR_SHAPE_SIGNATURE, "i"))

    @property
    def is_constant(self) -> bool:
        """Whether its content is in the file."""
        return self.buffer.number(BUFFER_OFFSET, "Q") > 1 or len(self.buffer.view(BUFFER_DATA)) > 0

    @property
    def zero_point(self) -> int:
        """What stands for zero, of the first channel."""
        quantization = self.table.table(TENSOR_QUANTIZATION)
        return next(iter(quantization.numbers(QUANTIZATION_ZERO_POINT, "q")), 0) if quantization else 0

    def values(self) -> NDArray[np.generic]:
        """The content of a constant of whole bytes, flat."""
        return np.frombuffer(bytes(buffer_view(self.buffer)), np.dtype(self.dtype))


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


def read_steps(model: Table) -> Iterator[Step]:
    """The operators of all graphs of an open file, in their order."""
    names = [operator_name(code) for code in model.tables(MODEL_CODES)]
    kinds = [OPERATORS[int(each)] if each.isdecimal() and int(each) < len(OPERATORS) else each for each in names]
    buffers = model.tables(MODEL_BUFFERS)
    for graph in model.tables(MODEL_GRAPHS):
        tensors = [Tensor(each, buffers[each.number(TENSOR_BUFFER, "I")]) for each in graph.tables(GRAPH_TENSORS)]
        for each in graph.tables(GRAPH_OPERATORS):
            inputs, outputs = (
                tuple(tensors[index] for index in each.numbers(side, "i") if index >= 0)
                for side in (OPERATOR_INPUTS, OPERATOR_OUTPUTS)
            )
            yield Step(kinds[each.number(OPERATOR_CODE, "I")], inputs, outputs, each.table(OPERATOR_OPTIONS))
