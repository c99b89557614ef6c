"""Axes of means as compilers want them: counted from the first."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from vit_deploy.exporters.tflite.layers import operators
from vit_deploy.exporters.tflite.repack import Content
from vit_deploy.formats.tflite.schema import Model

MEAN, AXES = "MEAN", 1  # the operator, and which of its inputs they are


def positive_axes(model: Model) -> dict[int, tuple[int, Content]]:
    """New content of the buffers that hold axes of means counted from the last, as `repack.write_model` takes it.

    A buffer that something else reads too, or tensors with other numbers of axes, stays as it is: any engine reads
    both.

    Args:
        model: root of a float file.
    """
    graph, buffers = model.graph, model.buffers
    tensors = graph.tensors
    ranks, others = defaultdict[int, set[int]](set), set[int]()
    for step in operators(graph, model):
        for place, index in enumerate(step.inputs):
            if index < 0:  # one that is left out
                continue
            buffer = tensors[index].buffer
            if step.kind == MEAN and place == AXES:
                ranks[buffer].add(len(tensors[step.inputs[0]].shape))
            else:
                others.add(buffer)
    found = {}
    for buffer, seen in ranks.items():
        axes = np.frombuffer(buffers[buffer].content, "<i4")
        if buffer not in others and len(seen) == 1 and (axes < 0).any():
            content = (axes % next(iter(seen))).astype("<i4").tobytes()
            found[buffer] = (len(content), _constant(content))
    return found


def _constant(content: bytes) -> Content:
    return lambda: content
