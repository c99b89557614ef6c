"""An ONNX file of the smallest model there is."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper, numpy_helper


def write_model(
    artifact,
    weight,
    *,
    dtype=TensorProto.FLOAT,
    output="logits",
    location=None,
    before=(),
    output_dtype=TensorProto.FLOAT,
):
    kernel = numpy_helper.from_array(weight, "kernel")
    if location:
        (artifact.directory / location).write_bytes(kernel.raw_data)
        kernel.ClearField("raw_data")
        kernel.data_location = TensorProto.EXTERNAL
        kernel.external_data.add(key="location", value=location)
    shape = ["batch" if side is None else side for side in artifact.input.shape]
    nodes = [
        *before,
        helper.make_node("Flatten", ["nhwc" if before else "images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "kernel"], [output]),
    ]
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info("images", dtype, shape)],
        [helper.make_tensor_value_info(output, output_dtype, [shape[0], weight.shape[1]])],
        [kernel],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    artifact.model_path.write_bytes(model.SerializeToString())
    return artifact


def write_channels_first(make_artifact, weight):
    turn = helper.make_node("Transpose", ["images"], ["nhwc"], perm=[0, 2, 3, 1])
    return write_model(make_artifact("onnx", layout="nchw"), weight, before=[turn])


def write_for_pixels(make_artifact, weight):
    cast = helper.make_node("Cast", ["images"], ["nhwc"], to=TensorProto.FLOAT)
    artifact = make_artifact("onnx", dtype="uint8", preprocessing_inside=True)
    return write_model(artifact, weight, before=[cast], dtype=TensorProto.UINT8)


def expected(images, weight):
    return images.reshape(len(images), -1).astype(np.float64) @ weight
