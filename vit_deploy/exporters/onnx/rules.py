"""Rewrite rules from tf2onnx's spelling to the operators that ONNX has and the patterns that engines recognise.

Each rule is a pair: the formula that is looked for, and what stands in its place. Where an opset has no operator of
its own the formula is the one that ONNX Runtime's fusions know.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern, rewrite

from vit_deploy.core.config import ViTConfig
from vit_deploy.exporters.onnx.constants import constant

GELU_OPSET = 20  # the first that has Gelu


def apply_rules(model: ir.Model, config: ViTConfig, opset: int, batch: int | None) -> None:
    """Rewrite the norms, activations, patch embedding and class token of a graph whose constants are folded.

    Args:
        model: changed in place.
        config: the config of the ViT it computes.
        opset: that the result is for.
        batch: images a call, None where any number will do.
    """
    gelu = _gelu_operator if opset >= GELU_OPSET else _gelu_by_erf
    patches = functools.partial(_patches_with_bias, config=config)
    class_token = functools.partial(_class_token_of, config=config, batch=batch)
    rules = [
        pattern.RewriteRule(_unsqueezed_kernel, _kernel),
        pattern.RewriteRule(_layer_norm, _layer_norm_operator, _is_norm),
        pattern.RewriteRule(_hard_silu, _hard_silu_operator),
        pattern.RewriteRule(_gelu, gelu),
        pattern.RewriteRule(_patches, patches),
        pattern.RewriteRule(_class_token, class_token),
    ]
    if opset >= GELU_OPSET:
        rules.append(pattern.RewriteRule(_gelu_tanh, _gelu_tanh_operator))
    rewrite(model, pattern.RewriteRuleSet(rules))
    # Afterwards, because a layer norm has this in it as well.
    rewrite(model, pattern.RewriteRuleSet([pattern.RewriteRule(_unit, _unit_by_division, _is_norm)]))


def _is_norm(context: Any, epsilon: ir.Value, **others: ir.Value) -> bool:
    axes = [constant(value) for name, value in others.items() if name.startswith("axes")]
    small = constant(epsilon)
    # Every norm is over the features of `(batch, tokens, features)`.
    return (
        all(axis is not None and axis.tolist() in ([-1], [2]) for axis in axes)
        and small is not None
        and small.size == 1
    )


def _unsqueezed_kernel(op: Any, x: Any, kernel: Any) -> Any:
    return op.MatMul(x, op.Unsqueeze(kernel, [0]))


def _kernel(op: Any, x: Any, kernel: Any) -> Any:
    return op.MatMul(x, kernel)


def _layer_norm(op: Any, x: Any, axes: Any, axes_again: Any, epsilon: Any, scale: Any, bias: Any) -> Any:
    centred = op.Sub(x, op.ReduceMean(x, axes))
    variance = op.ReduceMean(op.Mul(centred, centred), axes_again)
    return op.Add(op.Mul(op.Mul(centred, op.Reciprocal(op.Sqrt(op.Add(variance, epsilon)))), scale), bias)


def _layer_norm_operator(op: Any, x: Any, epsilon: ir.Value, scale: Any, bias: Any, **_: Any) -> Any:
    return op.LayerNormalization(x, scale, bias, axis=-1, epsilon=_number(epsilon))


def _unit(op: Any, x: Any, axes: Any, epsilon: Any) -> Any:
    return op.Mul(x, op.Reciprocal(op.Sqrt(op.Add(op.ReduceMean(op.Mul(x, x), axes), epsilon))))


def _unit_by_division(op: Any, x: Any, axes: Any, epsilon: Any) -> Any:
    square = op.Pow(x, _scalar(op, 2.0))
    mean = op.ReduceMean(square, op.initializer(ir.tensor(np.array([-1])), name="last_axis"), keepdims=1)
    return op.Div(x, op.Sqrt(op.Add(mean, epsilon)))


def _hard_silu(op: Any, x: Any) -> Any:
    return op.Mul(x, op.Div(op.Clip(op.Add(x, 3.0), 0.0, 6.0), 6.0))


def _hard_silu_operator(op: Any, x: Any) -> Any:
    return op.HardSwish(x)


def _gelu(op: Any, x: Any) -> Any:
    upper_tail = op.Sub(1.0, op.Erf(op.Mul(op.Neg(x), math.sqrt(0.5))))
    return op.Mul(op.Mul(0.5, x), upper_tail)


def _gelu_operator(op: Any, x: Any) -> Any:
    return op.Gelu(x)


def _gelu_by_erf(op: Any, x: Any) -> Any:
    distribution = op.Add(op.Erf(op.Div(x, _scalar(op, math.sqrt(2)))), _scalar(op, 1.0))
    return op.Mul(op.Mul(x, distribution), _scalar(op, 0.5))


def _gelu_tanh(op: Any, x: Any) -> Any:
    cubic = op.Add(x, op.Mul(0.044715, op.Pow(x, 3.0)))
    return op.Mul(op.Mul(0.5, x), op.Add(1.0, op.Tanh(op.Mul(math.sqrt(2 / math.pi), cubic))))


def _gelu_tanh_operator(op: Any, x: Any) -> Any:
    return op.Gelu(x, approximate="tanh")


def _patches(op: Any, images: Any, kernel: Any, bias: Any, shape: Any) -> Any:
    maps = op.Conv(op.Transpose(images, perm=[0, 3, 1, 2]), op.Transpose(kernel, perm=[3, 2, 0, 1]))
    return op.Reshape(op.Add(op.Transpose(maps, perm=[0, 2, 3, 1]), bias), shape)


def _patches_with_bias(op: Any, images: ir.Value, kernel: Any, bias: Any, shape: Any, config: ViTConfig) -> Any:
    # The kernel stays as the checkpoint has it: engines transpose it once, when they load the file.
    size = list(config.patch_size)
    before = images.producer()
    if before is not None and before.op_type == "Transpose" and before.attributes["perm"].as_ints() == (0, 2, 3, 1):
        channels_first = before.inputs[0]
    else:
        channels_first = op.Transpose(images, perm=[0, 3, 1, 2])
    maps = op.Conv(channels_first, op.Transpose(kernel, perm=[3, 2, 0, 1]), bias, kernel_shape=size, strides=size)
    return op.Transpose(op.Reshape(maps, _shape(op, 0, config.embed_dim, -1)), perm=[0, 2, 1])


def _class_token(op: Any, patches: Any, token: Any, starts: Any, ends: Any, ones: Any, dim: Any) -> Any:
    batch = op.Unsqueeze(op.Squeeze(op.Slice(op.Cast(op.Shape(patches)), starts, ends, [0]), [0]), [0])
    tokens = op.Expand(op.Unsqueeze(token, [0]), op.Cast(op.Concat(batch, ones, dim, axis=0)))
    return op.Concat(tokens, patches, axis=1)


def _class_token_of(op: Any, patches: Any, token: Any, config: ViTConfig, batch: int | None, **_: Any) -> Any:
    if batch is None:
        shape = op.Concat(op.Shape(patches, start=0, end=1), _shape(op, 1, config.embed_dim), axis=0)
    else:
        shape = _shape(op, batch, 1, config.embed_dim)
    return op.Concat(op.Expand(token, shape), patches, axis=1)


def _number(value: ir.Value) -> float:
    known = constant(value)
    assert known is not None  # the rule's check has seen to it
    return float(known.item())


def _scalar(op: Any, value: float) -> Any:
    return op.initializer(ir.tensor(np.float32(value)), name=f"number_{value:g}")


def _shape(op: Any, *sides: int) -> Any:
    return op.initializer(ir.tensor(np.array(sides, np.int64)), name="shape_" + "x".join(map(str, sides)))
