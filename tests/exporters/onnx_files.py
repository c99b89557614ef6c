"""ONNX files without the stage around the exporter: written from a checkpoint, run, and looked into."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from tests.exporters.variants import exported, trained
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx.export import OnnxExporter


def run(path: Path, images: Any) -> Any:
    """What plain ONNX Runtime answers."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {"images": images})
    return outputs


def operators(model: onnx.ModelProto) -> Counter[str]:
    """How often each operator is there."""
    return Counter(node.op_type for node in model.graph.node)


def write(directory: Path, *, exporter: OnnxExporter | None = None, options: Any = None, **changes: Any) -> Any:
    """The checkpoint, the file's path and its model."""
    checkpoint = trained(**changes)
    artifact = exported(exporter or OnnxExporter(), checkpoint, directory, options or ExportOptions())
    return checkpoint, artifact.model_path, onnx.load(str(artifact.model_path))


def sides(value: onnx.ValueInfoProto) -> list[int | str]:
    """Of an input or output; names where they are open."""
    return [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
