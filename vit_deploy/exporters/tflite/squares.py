"""Squares of layer norms as products, which have 16-bit integers where a squared difference has 8 bits alone."""

from __future__ import annotations

import struct
from typing import Any

from vit_deploy.exporters.tflite.layers import operators
from vit_deploy.formats.tflite.file import root
from vit_deploy.formats.tflite.schema import Model, OperatorCode

SQUARED_DIFFERENCE, SUB, MUL = "SQUARED_DIFFERENCE", "SUB", 18  # the last by its number in the schema


def with_products_for_squares(content: Any) -> bytearray:
    """The same function: each squared difference becomes the product of that difference with itself.

    The difference is computed in front of it anyway. Files in which one is not are left as they are.

    Args:
        content: a float file.
    """
    changed = bytearray(content)
    model = root(changed)
    graph = model.graph
    differences = {step.inputs: step.outputs[0] for step in operators(graph, model) if step.kind == SUB}
    squares = [
        (operator, step)
        for operator, step in zip(graph.operators, operators(graph, model), strict=True)
        if step.kind == SQUARED_DIFFERENCE
    ]
    if not squares or any(step.inputs not in differences for _, step in squares):
        return bytearray(content)
    for operator, step in squares:
        start = operator.target(operator.INPUTS) + 4
        struct.pack_into("<2i", changed, start, *(2 * [differences[step.inputs]]))
    for code in {operator.code for operator, _ in squares}:
        _become_product(changed, model.codes[code])
    return changed


def _become_product(content: bytearray, code: OperatorCode) -> None:
    """Both fields of an operator's number, of which older files and readers know the first."""
    struct.pack_into("<b", content, code.field(code.OLD_BUILTIN), MUL)
    if place := code.field(code.BUILTIN):
        struct.pack_into("<i", content, place, MUL)


def has_squared_differences(model: Model) -> bool:
    """Whether any is left, which has 8 bits."""
    return any(step.kind == SQUARED_DIFFERENCE for step in operators(model.graph, model))
