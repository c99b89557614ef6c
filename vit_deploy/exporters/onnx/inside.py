"""A session of ONNX Runtime on a graph that gives more than its own outputs."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import onnxruntime as ort
from onnx import helper

from vit_deploy.exporters.onnx.file import save


@contextlib.contextmanager
def opened_with(
    model: onnx.ModelProto, outputs: Sequence[str], nodes: Sequence[onnx.NodeProto] = ()
) -> Iterator[ort.InferenceSession]:
    """A session on a model that gives some more values, on the CPU; the model is as before when the context ends.

    Args:
        model: fp32.
        outputs: names of the values, all of float32; those that it gives anyway stay as they are.
        nodes: nodes behind its own that compute some of them.
    """
    graph = model.graph
    before = len(graph.node), len(graph.output)
    there = {value.name for value in graph.output}
    graph.node.extend(nodes)
    graph.output.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs if name not in there
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "inside.onnx"
            save(model, path)
            settings = ort.SessionOptions()
            settings.log_severity_level = 4
            yield ort.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    finally:
        del graph.node[before[0] :], graph.output[before[1] :]
