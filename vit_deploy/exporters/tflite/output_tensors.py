"""Outputs of a quantized TFLite file, of which signature and graph have to name the same tensors.

litert-quantizer puts a step behind an output where its numbers change: in the graph's list of outputs, not in the
signature, and also behind one that stays in float and that a product reads in integers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from vit_deploy.errors import ExportError
from vit_deploy.exporters.tflite.layers import operators
from vit_deploy.formats.tflite.file import root


def with_named_outputs(content: Any, names: Sequence[str]) -> Any:
    """The same file with one tensor for each output.

    Args:
        content: a quantized file.
        names: its outputs in the order in which the graph lists them.

    Raises:
        ExportError: an output is neither what the signature says nor a step behind it.
    """
    changed = bytearray(content)
    model = root(changed)
    graph, signature = model.graph, model.signatures[0]
    makers = {index: step for step in operators(graph, model) for index in step.outputs}
    listed = graph.outputs
    start = graph.target(graph.OUTPUTS) + 4
    for place, name in enumerate(names):
        output = next(output for output in signature.outputs if output.name == name)
        given, step = listed[place], makers.get(listed[place])
        if given == output.tensor:
            continue
        if step is None or step.inputs[0] != output.tensor or step.kind not in ("DEQUANTIZE", "QUANTIZE"):
            raise ExportError(
                f"the quantized file gives {graph.tensors[given].name} in the place of {name}",
                fix="report this with the model's config and the names of the outputs",
            )
        if step.kind == "DEQUANTIZE":
            struct.pack_into("<I", changed, output.field(output.TENSOR), given)
        else:
            struct.pack_into("<i", changed, start + 4 * place, output.tensor)
    return changed
