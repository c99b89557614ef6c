"""The tables of TensorFlow Lite's `schema.fbs` that are read here, with a name for each field."""

from __future__ import annotations

import struct
from typing import Any

from vit_deploy.formats.tflite.flatbuffer import Table
from vit_deploy.formats.tflite.names import DTYPES, OPERATORS

CUSTOM = 32  # BuiltinOperator.CUSTOM


class Model(Table):
    """A whole file."""

    VERSION, CODES, GRAPHS, DESCRIPTION, BUFFERS, _, METADATA, SIGNATURES = range(8)
    FIELDS = 10

    @property
    def version(self) -> int:
        """The version of the schema."""
        return self.number(self.VERSION, "I")

    @property
    def codes(self) -> list[OperatorCode]:
        """The kinds of operators that are used."""
        return self.tables(self.CODES, OperatorCode)

    @property
    def graphs(self) -> list[SubGraph]:
        """The graphs; the first is run where no signature says otherwise."""
        return self.tables(self.GRAPHS, SubGraph)

    @property
    def graph(self) -> SubGraph:
        """The only graph, or the first of several that have a signature each.

        Raises:
            ValueError: there are others, or none.
        """
        graphs = self.graphs
        if len(graphs) > 1 and sorted(one.graph for one in self.signatures) == [*range(len(graphs))]:
            return graphs[0]
        (graph,) = graphs
        return graph

    @property
    def description(self) -> str:
        """What made the file."""
        return self.text(self.DESCRIPTION)

    @property
    def buffers(self) -> list[Buffer]:
        """The contents of tensors and of metadata."""
        return self.tables(self.BUFFERS, Buffer)

    @property
    def metadata(self) -> list[Metadata]:
        """Named buffers."""
        return self.tables(self.METADATA, Metadata)

    @property
    def signatures(self) -> list[Signature]:
        """The functions that the file offers."""
        return self.tables(self.SIGNATURES, Signature)


class OperatorCode(Table):
    """A kind of operator."""

    OLD_BUILTIN, CUSTOM_NAME, _, BUILTIN = range(4)

    @property
    def builtin(self) -> int:
        """The number in BuiltinOperator; numbers past 127 have a field of their own."""
        return max(self.number(self.OLD_BUILTIN, "b"), self.number(self.BUILTIN, "i"))

    @property
    def is_custom(self) -> bool:
        """Whether it is none of the builtin ones."""
        return self.builtin == CUSTOM

    @property
    def name(self) -> str:
        """The usual name, such as "FULLY_CONNECTED"; else a custom operator's own, or the number of an unknown one."""
        if self.is_custom:
            return self.text(self.CUSTOM_NAME)
        return OPERATORS[self.builtin] if self.builtin < len(OPERATORS) else str(self.builtin)


class SubGraph(Table):
    """A graph."""

    TENSORS, INPUTS, OUTPUTS, OPERATORS = range(4)

    @property
    def tensors(self) -> list[Tensor]:
        """All values and constants."""
        return self.tables(self.TENSORS, Tensor)

    @property
    def inputs(self) -> list[int]:
        """The indices of the tensors that are given."""
        return self.numbers(self.INPUTS, "i")

    @property
    def outputs(self) -> list[int]:
        """The indices of the tensors that are returned."""
        return self.numbers(self.OUTPUTS, "i")

    @property
    def operators(self) -> list[Operator]:
        """The operators in the order in which they run."""
        return self.tables(self.OPERATORS, Operator)


class Tensor(Table):
    """A value or a constant."""

    SHAPE, TYPE, BUFFER, NAME, QUANTIZATION, _, _, SHAPE_SIGNATURE = range(8)

    @property
    def shape(self) -> list[int]:
        """The sizes; 1 where they are open."""
        return self.numbers(self.SHAPE, "i")

    @property
    def shape_signature(self) -> list[int]:
        """The sizes, -1 where they are open; empty where none is."""
        return self.numbers(self.SHAPE_SIGNATURE, "i")

    @property
    def dtype(self) -> str:
        """The name of the type, such as "int8"; of one that is not known its number."""
        code = self.number(self.TYPE, "b")
        return DTYPES[code] if 0 <= code < len(DTYPES) else f"type {code}"

    @property
    def buffer(self) -> int:
        """The index of the buffer with the content."""
        return self.number(self.BUFFER, "I")

    @property
    def name(self) -> str:
        """The name."""
        return self.text(self.NAME)

    @property
    def quantization(self) -> Quantization | None:
        """How its numbers stand for others."""
        return self.table(self.QUANTIZATION, Quantization)


class Quantization(Table):
    """How the numbers of a tensor stand for others."""

    _, _, SCALES, ZERO_POINTS, DETAILS_TYPE, DETAILS = range(6)
    BLOCKWISE = 2  # of QuantizationDetails

    @property
    def scales(self) -> list[float]:
        """One scale, or one for each channel."""
        return self.floats(self.SCALES)

    @property
    def scales_start(self) -> int:
        """Where the first scale is in the file."""
        return self.target(self.SCALES) + 4

    @property
    def zero_points(self) -> list[int]:
        """What stands for zero, once or for each channel."""
        return self.numbers(self.ZERO_POINTS, "q")

    @property
    def zero_points_start(self) -> int:
        """Where the first zero point is in the file."""
        return self.target(self.ZERO_POINTS) + 4

    @property
    def blockwise(self) -> BlockwiseQuantization | None:
        """The details of scales for blocks of a channel."""
        is_blockwise = self.number(self.DETAILS_TYPE, "B") == self.BLOCKWISE
        return self.table(self.DETAILS, BlockwiseQuantization) if is_blockwise else None


class BlockwiseQuantization(Table):
    """Scales for blocks of a channel."""

    SCALES, _, BLOCK_SIZE = range(3)

    @property
    def scales(self) -> int:
        """The index of the tensor with the scales."""
        return self.number(self.SCALES, "i")

    @property
    def block_size(self) -> int:
        """How many numbers share a scale."""
        return self.number(self.BLOCK_SIZE, "i")


class Buffer(Table):
    """The content of a tensor or of metadata, inside the flatbuffer or behind it."""

    DATA, OFFSET, SIZE = range(3)
    FIELDS = 3

    @property
    def offset(self) -> int:
        """Where in the file a content behind the flatbuffer starts; 0 or 1 where there is none."""
        return self.number(self.OFFSET, "Q")

    @property
    def size(self) -> int:
        """The bytes of a content behind the flatbuffer."""
        return self.number(self.SIZE, "Q")

    @property
    def content(self) -> Any:
        """The bytes, not copied where the file's bytes are a memory view."""
        if self.offset:
            return self.data[self.offset : self.offset + self.size] if self.offset > 1 else b""
        return self.view(self.DATA)

    @property
    def end(self) -> int:
        """Where in the file the content ends, or would end if the file were whole."""
        start = self.target(self.DATA)
        inside = start + 4 + int(struct.unpack_from("<I", self.data, start)[0]) if start else 0
        return max(inside, self.offset + self.size)


class Operator(Table):
    """One operator of a graph."""

    CODE, INPUTS, OUTPUTS, _, OPTIONS = range(5)

    @property
    def code(self) -> int:
        """The index of its kind."""
        return self.number(self.CODE, "I")

    @property
    def inputs(self) -> list[int]:
        """The indices of its input tensors, -1 where an optional one is left out."""
        return self.numbers(self.INPUTS, "i")

    @property
    def outputs(self) -> list[int]:
        """The indices of its output tensors."""
        return self.numbers(self.OUTPUTS, "i")

    @property
    def options(self) -> Table | None:
        """Its options, in the schema's table for its kind."""
        return self.table(self.OPTIONS, Table)


class Conv2DOptions(Table):
    """The options of a CONV_2D."""

    PADDING, STRIDE_WIDTH, STRIDE_HEIGHT, _, DILATION_WIDTH, DILATION_HEIGHT = range(6)
    VALID = 1  # of paddings

    @property
    def is_unpadded(self) -> bool:
        """Whether nothing is put around the images."""
        return self.number(self.PADDING, "b") == self.VALID

    @property
    def dilation(self) -> tuple[int, int]:
        """Steps between the values that a kernel reads, `(height, width)`; the schema's default is 1."""
        found = (self.field(index) for index in (self.DILATION_HEIGHT, self.DILATION_WIDTH))
        height, width = (self._number("i", field) if field else 1 for field in found)
        return height, width

    @property
    def strides(self) -> tuple[int, int]:
        """The strides `(height, width)`."""
        return self.number(self.STRIDE_HEIGHT, "i"), self.number(self.STRIDE_WIDTH, "i")


class StridedSliceOptions(Table):
    """The options of a STRIDED_SLICE."""

    _, _, ELLIPSIS_MASK, NEW_AXIS_MASK = range(4)

    @property
    def ellipsis_mask(self) -> int:
        """The axes that stand for all others, as bits."""
        return self.number(self.ELLIPSIS_MASK, "i")

    @property
    def new_axis_mask(self) -> int:
        """The axes that are made, as bits."""
        return self.number(self.NEW_AXIS_MASK, "i")


class Metadata(Table):
    """A named buffer."""

    NAME, BUFFER = range(2)
    FIELDS = 2

    @property
    def name(self) -> str:
        """The name."""
        return self.text(self.NAME)

    @property
    def buffer(self) -> int:
        """The index of the buffer."""
        return self.number(self.BUFFER, "I")


class Signature(Table):
    """A function that the file offers."""

    INPUTS, OUTPUTS, KEY, _, GRAPH = range(5)

    @property
    def inputs(self) -> list[NamedTensor]:
        """What it takes."""
        return self.tables(self.INPUTS, NamedTensor)

    @property
    def outputs(self) -> list[NamedTensor]:
        """What it returns."""
        return self.tables(self.OUTPUTS, NamedTensor)

    @property
    def key(self) -> str:
        """The name of the function."""
        return self.text(self.KEY)

    @property
    def graph(self) -> int:
        """The index of its graph."""
        return self.number(self.GRAPH, "I")


class NamedTensor(Table):
    """A tensor under the name that a signature has for it."""

    NAME, TENSOR = range(2)

    @property
    def name(self) -> str:
        """The name in the signature."""
        return self.text(self.NAME)

    @property
    def tensor(self) -> int:
        """The index of the tensor in its graph."""
        return self.number(self.TENSOR, "I")
