"""GELU of integers as a look-up in a table of 256 values, for TensorFlow Lite Micro, which has no GELU.

An int8 tensor has 256 values, and GELU maps each to one: the table is exact. Micro's QUANTIZE turns int8 into int32,
with a zero point that makes the values positions from 0, and its GATHER reads the table. LiteRT has no such QUANTIZE,
so files with tables are for Micro alone.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from vit_deploy.core.activation_functions import ACTIVATIONS
from vit_deploy.core.choices import Activation
from vit_deploy.errors import ExportError
from vit_deploy.formats.tflite.file import IDENTIFIER

LOWEST, HIGHEST = -128, 127
FIX = "quantize with the recipe of int8-full, or give the model an activation that it has: relu, silu, quick_gelu"


def write_with_tables(source: Path, target: Path) -> int:
    """Write a TFLite file with tables in place of GELU.

    Args:
        source: a file whose GELUs take and give int8.
        target: the file to write.

    Returns:
        The number of operators of the new file.

    Raises:
        ExportError: a GELU of other numbers.
        OSError: the disk is full.
    """
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(source.read_bytes(), 0))
    for graph in model.subgraphs:
        steps = []
        for step in graph.operators:
            is_gelu = _kind(model, step) == schema.BuiltinOperator.GELU
            steps += _looked_up(model, graph, step) if is_gelu else [step]
        graph.operators = steps
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    target.write_bytes(builder.Output())
    return sum(len(graph.operators) for graph in model.subgraphs)


def gelu_table(given: tuple[float, int], gives: tuple[float, int], *, approximate: bool = False) -> NDArray[np.int8]:
    """What GELU makes of each int8 value, from the lowest.

    Args:
        given: scale and zero point of what it takes.
        gives: scale and zero point of what it gives.
        approximate: whether it is the one of tanh.
    """
    scale, zero_point = given
    real = np.float32(scale) * (np.arange(LOWEST, HIGHEST + 1) - zero_point).astype(np.float32)
    steps = ACTIVATIONS[Activation.GELU_TANH if approximate else Activation.GELU](real.astype(np.float64)) / np.float32(
        gives[0]
    )
    rounded = np.sign(steps) * np.floor(np.abs(steps) + 0.5) + gives[1]  # halves away from zero, as LiteRT has them
    table: NDArray[np.int8] = np.clip(rounded, LOWEST, HIGHEST).astype(np.int8)
    return table


def _looked_up(model: Any, graph: Any, step: Any) -> list[Any]:
    """The operators in place of a GELU."""
    given, gives = graph.tensors[step.inputs[0]], graph.tensors[step.outputs[0]]
    if {given.type, gives.type} != {schema.TensorType.INT8}:
        raise ExportError(
            "a GELU of the file computes in other numbers than int8, for which there is no table", fix=FIX
        )
    table = gelu_table(_steps(given), _steps(gives), approximate=bool(step.builtinOptions.approximate))
    places = copy.deepcopy(given)
    places.type, places.buffer, places.name = schema.TensorType.INT32, 0, gives.name + b"_places"
    places.quantization.zeroPoint = np.array([_steps(given)[1] - LOWEST], np.int64)
    looked_in = copy.deepcopy(gives)
    looked_in.shape, looked_in.shapeSignature = np.array(table.shape, np.int32), None
    looked_in.name = gives.name + b"_table"
    looked_in.buffer = len(model.buffers)
    buffer = schema.BufferT()
    buffer.data = table.view(np.uint8)
    model.buffers.append(buffer)
    graph.tensors += [places, looked_in]
    at = len(graph.tensors) - 2
    read = _operator(model, schema.BuiltinOperator.GATHER, [at + 1, at], list(step.outputs))
    read.builtinOptionsType, read.builtinOptions = schema.BuiltinOptions.GatherOptions, schema.GatherOptionsT()
    return [_operator(model, schema.BuiltinOperator.QUANTIZE, [step.inputs[0]], [at]), read]


def _operator(model: Any, kind: int, inputs: list[int], outputs: list[int]) -> Any:
    codes = [code.builtinCode for code in model.operatorCodes]
    if kind not in codes:
        code = schema.OperatorCodeT()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = kind, kind, 2
        model.operatorCodes.append(code)
        codes.append(kind)
    made = schema.OperatorT()
    made.opcodeIndex, made.inputs, made.outputs = codes.index(kind), inputs, outputs
    return made


def _kind(model: Any, step: Any) -> int:
    return int(model.operatorCodes[step.opcodeIndex].builtinCode)


def _steps(tensor: Any) -> tuple[float, int]:
    return float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0])
