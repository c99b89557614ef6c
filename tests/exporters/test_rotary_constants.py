"""Rotary positions in exported files: tables alone, in every convention and format."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import onnx
import pytest

from tests.exporters.variants import exported, trained
from vit_deploy.core.rotary import RotaryConvention
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx.export import OnnxExporter

COMPUTED = {"Sin", "Cos", "Range", "Tile", "If", "Loop", "While", "Where"}
"""Operators of positions that are computed as the file runs, by the names of ONNX and TensorFlow."""


def model(convention: str) -> dict[str, object]:
    """Options of a ViT whose class token some conventions turn."""
    return {"num_layers": 1, "register_tokens": 2, "rotary": convention}


@pytest.mark.parametrize("convention", RotaryConvention)
def test_an_onnx_file_holds_sines_as_constants_and_standard_operators_alone(convention: str, tmp_path: Path) -> None:
    counts = []
    for changes in (model(convention), {**model(convention), "rotary": None}):
        artifact = exported(OnnxExporter(), trained(**changes), tmp_path, ExportOptions())
        read = onnx.load(artifact.model_path)
        assert {node.domain for node in read.graph.node} == {""}
        counts.append(Counter(node.op_type for node in read.graph.node))
    rotary, table = counts
    assert not COMPUTED & set(rotary)
    assert rotary["Shape"] == table["Shape"]
    assert set(rotary - table) <= {"Slice", "Concat", "Mul", "Add"}


@pytest.mark.slow
@pytest.mark.parametrize("convention", RotaryConvention)
def test_a_tflite_file_holds_sines_as_constants_and_xnnpack_takes_all_of_it(convention: str, tmp_path: Path) -> None:
    from tests.exporters.tflite_files import left_out, opened
    from vit_deploy.exporters.tflite.export import TFLiteExporter

    artifact = exported(TFLiteExporter(), trained(**model(convention)), tmp_path, ExportOptions(batch=1))
    interpreter = opened(artifact.model_path)
    operators = {operator["op_name"] for operator in interpreter._get_ops_details()}
    assert not {"SIN", "COS", "RANGE", "TILE", "IF", "WHILE", "SHAPE", "SELECT_V2"} & operators
    assert left_out(interpreter) == []


@pytest.mark.slow
@pytest.mark.parametrize("convention", RotaryConvention)
def test_a_savedmodel_holds_sines_as_constants(convention: str, tmp_path: Path) -> None:
    import tensorflow as tf

    from vit_deploy.exporters.savedmodel.export import SavedModelExporter

    artifact = exported(SavedModelExporter(), trained(**model(convention)), tmp_path, ExportOptions())
    served = tf.saved_model.load(str(artifact.model_path)).signatures["serving_default"]
    graph = served.graph.as_graph_def()
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    assert not COMPUTED & {node.op for node in nodes}
