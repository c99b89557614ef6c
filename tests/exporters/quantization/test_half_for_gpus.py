"""Files in 16-bit floats for NVIDIA GPUs, of models whose activations these do not hold: each value where it fits."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from tests.exporters.quantization.test_half_protection import DOWN, HEAD, UP
from tests.exporters.variants import pixels, trained
from vit_deploy.core.format import Target
from vit_deploy.core.reference import forward
from vit_deploy.exporters.onnx.fused_attention import FUSED, inside_attention
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.half_protection import notes_on_protection
from vit_deploy.exporters.quantization.pipeline import export
from vit_deploy.formats.onnx.graph import CONTRIB

QUERY, KEY, VALUE, OUT = (f"block_0.attention.{role}.kernel" for role in ("query", "key", "value", "out"))
LAST_QUERY, LAST_KEY = (f"block_1.attention.{role}.kernel" for role in ("query", "key"))
REGISTERS = "class_token.registers"

# The activation, what is multiplied and divided, and the nodes of a file for CUDA that have to compute in float32.
PLANTED = {
    "tame": ("gelu", (), (), ()),
    "scores": ("gelu", (QUERY,), (), ("block_0.attention.Attention",)),
    "query against key": ("gelu", (QUERY,), (KEY,), ("block_0.attention.Attention",)),
    "value against out": ("gelu", (VALUE,), (OUT,), ("block_0.attention.Attention", "block_0.attention.out.Gemm")),
    "scores that the class token alone reads": ("gelu", (LAST_QUERY,), (), ("block_1.attention.Attention",)),
    "query against key that the class token alone reads": ("gelu", (LAST_QUERY,), (LAST_KEY,), ()),
    "relu mlp": ("relu", (UP,), (DOWN,), ()),
    "gelu mlp": ("gelu", (UP,), (DOWN,), ("block_0.ffn.Gelu", "block_0.ffn.down.Gemm")),
    "residual stream": ("gelu", (DOWN,), (), ("block_0.ffn.down.Gemm", "block_1.norm1.LayerNormalization")),
    "registers": ("gelu", (REGISTERS,), (), ("class_token.Concat", "block_0.norm1.LayerNormalization")),
    "logits": ("gelu", (HEAD,), (), ("head.Gemm",)),
}


def planted(case, factor):
    activation, multiplied, divided, _ = PLANTED[case]
    checkpoint = trained(activation=activation, register_tokens=2 if case == "registers" else 0)
    weights = dict(checkpoint.weights)
    for names, by in ((multiplied, factor), (divided, 1 / factor)):
        for name in names:
            for part in {name, name.replace("kernel", "bias")} if name not in (DOWN, OUT) else {name}:
                weights[part] = (weights[part] * np.float64(by)).astype(np.float32)
    return dataclasses.replace(checkpoint, weights=weights)


def in_float32(model):
    """The nodes that read what is in float32."""
    wide = {one.name for one in model.graph.initializer if one.data_type == TensorProto.FLOAT}
    wide |= {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT
    }
    return {node.name for node in model.graph.node if wide & {*node.input} and node.op_type != "Cast"}


def halves(model, images):
    """Every value that a file keeps in 16 bits, as it is computed, by its name."""
    shaped = onnx.shape_inference.infer_shapes(model)
    known = {value.name: value.type.tensor_type.elem_type for value in shaped.graph.value_info}
    inputs = {name for node in model.graph.node for name in node.input}
    names = [
        name
        for node in model.graph.node
        for name in node.output
        if name in inputs and known.get(name, TensorProto.FLOAT16) == TensorProto.FLOAT16 and node.op_type != "Constant"
    ]
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT16, None) for name in names)
    session = onnxruntime.InferenceSession(copy.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(names, {"images": images}), strict=True))


@pytest.mark.parametrize("target", [Target.CUDA, Target.TENSORRT])
@pytest.mark.parametrize("case", PLANTED)
def test_no_value_in_16_bits_overflows(case, target, tmp_path):
    checkpoint = planted(case, 1e6)
    jobs = plan(["onnx"], ["fp16"], target=target)[0]
    [result] = export(checkpoint, tmp_path, jobs, QuantizeOptions(measure_speed=False)).results
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 4))
    expected = forward(checkpoint, images)
    model = onnx.load(str(result.artifact.model_path))
    for name, values in halves(model, images).items():
        assert np.isfinite(values).all(), name
    session = onnxruntime.InferenceSession(str(result.artifact.model_path), providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"images": images})
    assert np.abs(found - expected).max() <= 0.02 * np.abs(expected).max()
    anyway = {Target.CUDA: ("tame",), Target.TENSORRT: ("tame", "registers")}[target]  # fit, or are in float32
    assert bool(notes_on_protection(result.artifact)) == (case not in anyway)
    if target is Target.CUDA:
        assert set(PLANTED[case][3]) <= in_float32(model)
        assert bool(PLANTED[case][3]) == bool(in_float32(model))


def test_a_bias_that_leaves_no_room_for_what_it_is_added_to_is_in_float32(tmp_path):
    plain = trained()
    name = UP.replace("kernel", "bias")
    weights = {**plain.weights, name: plain.weights[name].copy()}
    weights[name][0] = -6e4  # its GELU is zero, and a product of as much beside it would overflow inside of the kernel
    jobs = plan(["onnx"], ["fp16"], target=Target.CUDA)[0]
    checkpoint = dataclasses.replace(plain, weights=weights)
    [result] = export(checkpoint, tmp_path, jobs, QuantizeOptions(measure_speed=False)).results
    assert in_float32(onnx.load(str(result.artifact.model_path))) == {"block_0.ffn.Gelu"}


@pytest.mark.parametrize("operator", FUSED)
def test_the_inside_of_a_fused_attention_is_computed_as_the_kernel_does(operator):
    rng = np.random.default_rng(3)
    batch, tokens, heads, width = 2, 5, 3, 4
    dim = heads * width
    kernel = rng.standard_normal((dim, 3 * dim)).astype(np.float32)
    bias = rng.standard_normal(3 * dim).astype(np.float32)
    given = rng.standard_normal((batch, tokens, dim)).astype(np.float32)
    parts = np.split(given @ kernel + bias, 3, axis=-1)
    names = ["x", "kernel", "bias"] if operator == "Attention" else ["query", "key", "value"]
    values = dict(zip(names, [given, kernel, bias] if operator == "Attention" else parts, strict=True))
    node = helper.make_node(operator, names, ["out"], name="attention", domain=CONTRIB, num_heads=heads, scale=0.25)
    graph = helper.make_graph(
        [node, *inside_attention(node, "inside")],
        "one",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in values.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("out", "inside")],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(CONTRIB, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    out, inside = onnxruntime.InferenceSession(model.SerializeToString()).run(None, values)
    query, key, value = (part.reshape(batch, tokens, heads, width).transpose(0, 2, 1, 3) for part in parts)
    scores = 0.25 * query @ key.swapaxes(-1, -2)
    expected = np.concatenate([*(part.reshape(-1) for part in parts), scores.reshape(-1)])
    np.testing.assert_allclose(inside, expected, rtol=1e-4, atol=1e-5)
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = (shares / shares.sum(axis=-1, keepdims=True)) @ value
    np.testing.assert_allclose(out, mixed.transpose(0, 2, 1, 3).reshape(batch, tokens, dim), rtol=1e-3, atol=1e-4)
