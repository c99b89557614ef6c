"""Pixels as the input of a TFLite graph, in operators that XNNPACK takes.

XNNPACK has no cast from uint8, but it takes a quantized tensor apart. Pixels are a quantized tensor of scale 1 and
zero point 0, so the cast is the same function as a dequantization.
"""

from __future__ import annotations

from collections.abc import Collection

import flatbuffers
import numpy as np
from tensorflow.lite.python import schema_py_generated as schema

from vit_deploy.errors import ExportError
from vit_deploy.formats.tflite.file import IDENTIFIER, root
from vit_deploy.formats.tflite.schema import Model


def dequantized_pixels(model: Model, replaced: Collection[int]) -> Model:
    """The same graph with a quantized input in place of a cast.

    Args:
        model: root of the converter's result; its one cast takes the input.
        replaced: buffers whose content does not matter, since the kernels will be written there.

    Raises:
        ExportError: the graph has no cast of its input, or has others.
    """
    unpacked = schema.ModelT.InitFromPackedBuf(model.data, 0)
    (graph,) = unpacked.subgraphs
    cast, dequantize = schema.BuiltinOperator.CAST, schema.BuiltinOperator.DEQUANTIZE
    casts = [
        operator for operator in graph.operators if unpacked.operatorCodes[operator.opcodeIndex].builtinCode == cast
    ]
    if len(casts) != 1 or list(casts[0].inputs) != list(graph.inputs):
        raise ExportError(
            f"the TFLite graph has {len(casts)} casts, expected one, of its input",
            fix="report this with the model's config",
        )
    (code,) = [operatorCode for operatorCode in unpacked.operatorCodes if operatorCode.builtinCode == cast]
    code.builtinCode = code.deprecatedBuiltinCode = dequantize
    code.version = 1
    casts[0].builtinOptionsType = schema.BuiltinOptions.DequantizeOptions
    casts[0].builtinOptions = schema.DequantizeOptionsT()
    quantization = schema.QuantizationParametersT()
    quantization.scale = np.ones(1, np.float32)
    quantization.zeroPoint = np.zeros(1, np.int64)
    graph.tensors[graph.inputs[0]].quantization = quantization
    for index, (buffer, old) in enumerate(zip(unpacked.buffers, model.buffers, strict=True)):
        buffer.offset = buffer.size = 0
        content = b"" if index in replaced else old.content
        buffer.data = np.frombuffer(content, np.uint8) if len(content) else None
    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(unpacked.Pack(builder), IDENTIFIER)
    return root(memoryview(bytes(builder.Output())))
