"""The reference in 16 bits: that it rounds as such an engine, and names the first operator that overflows there."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import vit_deploy
from tests.exporters.variants import trained
from vit_deploy import checkpoints
from vit_deploy.core.artifact import describe
from vit_deploy.core.narrow_floats import NARROW, Rounded, Trace, as_rounded
from vit_deploy.core.reference import forward
from vit_deploy.errors import ConfigError, UsageError
from vit_deploy.exporters import ExportOptions
from vit_deploy.verification.narrow_reference import NarrowReference

BY = 1e6
# What is multiplied, and what overflows first then: in the order of the network, by the operator.
PLANTED = {
    "scores": (("block_1.attention.query", "block_1.attention.key"), "block_1.attention.scores", "matmul"),
    "values": (("block_0.attention.value",), "block_0.attention.value", "add"),
    "mlp": (("block_0.ffn.up",), "block_0.ffn.up", "matmul"),
    "norm": (("block_0.ffn.down",), "block_1.attention.norm", "square"),
    "logits": (("head",), "head", "matmul"),
}
SIZES = {"scores": 400, "values": 5e4, "mlp": 5e4, "norm": 1e3, "logits": 5e4}


def planted(case, by):
    checkpoint = trained()
    weights = dict(checkpoint.weights)
    for layer in PLANTED[case][0]:
        for part in ("kernel", "bias"):
            weights[f"{layer}.{part}"] = weights[f"{layer}.{part}"] * np.float32(by)
    if case == "logits" and by < 65504:  # as large as weights can be that fit themselves
        weights["head.kernel"] = np.float32(6e4) * np.sign(weights["head.kernel"])
    return dataclasses.replace(checkpoint, weights=weights)


def simulated(checkpoint, kind, images=None):
    artifact = describe(
        checkpoint, Path(), format="tflite", precision="fp32", input=ExportOptions().input_spec(checkpoint.config)
    )
    engine = NarrowReference(checkpoint, kind)
    if images is None:
        images = np.random.default_rng(0).standard_normal((2, *checkpoint.config.image_size, 3)).astype(np.float32)
    with engine.open(artifact) as session:
        return engine, session.infer(images), forward(checkpoint, images)


@pytest.mark.parametrize(("kind", "bits"), [("fp16", 11), ("bf16", 8)])
def test_a_tame_model_loses_as_many_bits_as_its_floats_have_less(kind, bits):
    engine, outputs, exact = simulated(trained(), kind)
    assert engine.overflow is None and engine.words == "" and type(outputs) is np.ndarray
    error = np.abs(outputs - exact).max() / np.abs(exact).max()
    assert 2.0 ** -(bits + 4) < error < 2.0 ** -(bits - 5)


@pytest.mark.parametrize("case", PLANTED)
def test_the_first_operator_that_overflows_is_named_with_its_place(case):
    _, place, operator = PLANTED[case]
    engine, *_ = simulated(planted(case, SIZES[case]), "fp16")
    found = engine.overflow
    assert found.place == place and found.operator in (operator, "matmul", "add")
    if case == "norm":
        assert found.operator == "square"
    assert found.largest > 65504 and f"{found.operator} of {place}" in engine.words and "passes 65504" in engine.words


def test_bf16_has_the_range_that_fp16_has_not():
    engine, outputs, exact = simulated(planted("logits", BY), "bf16")
    assert engine.overflow is None
    np.testing.assert_allclose(outputs, exact, atol=0.1 * np.abs(exact).max())


def test_a_weight_that_is_too_large_itself_is_named():
    engine, *_ = simulated(planted("logits", 1e9), "fp16")
    assert (engine.overflow.place, engine.overflow.operator) == ("head.kernel", "weights")
    assert engine.words.startswith("the weights head.kernel is the first to overflow")


@pytest.mark.parametrize("kind", NARROW)
def test_operators_round_and_sums_stay_wide(kind):
    trace = Trace(NARROW[kind])
    ones = as_rounded(np.full(5000, 1 + 2.0**-12, np.float32), trace)
    assert isinstance(ones * 1, Rounded) and float((ones * np.float32(1))[0]) == 1.0
    assert float(as_rounded(np.ones(5000, np.float32), trace).sum()) == 5000
    assert trace.found() is None
    half = NARROW["fp16"].rounded(np.array([1e5, 2.0**-25], np.float32))
    assert np.isinf(half[0]) and half[1] == 0
    bfloat = NARROW["bf16"].rounded(np.array([1 + 2.0**-8, 1 + 3 * 2.0**-8, np.inf, np.nan], np.float32))
    np.testing.assert_array_equal(bfloat, np.array([1, 1 + 4 * 2.0**-8, np.inf, np.nan], np.float32))


def test_integers_and_outputs_by_name_are_refused():
    checkpoint = trained()
    artifact = describe(
        checkpoint, Path(), format="onnx", precision="int8", input=ExportOptions().input_spec(checkpoint.config)
    )
    with pytest.raises(ConfigError, match="is int8; fp16 is simulated for files of floats"):
        NarrowReference(checkpoint, "fp16").open(artifact).__enter__()
    scaled = {"recipe": {"protected": {"float32": {}, "rescaled": {"block_0.attention.query": 5}}}}
    half = dataclasses.replace(artifact, precision="fp16", options=scaled)
    with pytest.raises(ConfigError, match=r"protected from overflow by what it scales .* of the model as it was"):
        NarrowReference(checkpoint, "fp16").open(half).__enter__()


@pytest.mark.slow
def test_verify_names_the_operator_though_the_file_is_right_in_float32(tmp_path):
    checkpoint = planted("norm", 1e3)
    path = tmp_path / "model.safetensors"
    checkpoints.save(checkpoint, path)
    [artifact] = vit_deploy.export(path, tmp_path / "out", formats="onnx")
    assert vit_deploy.verify(artifact, quick=True).ok
    with pytest.raises(UsageError, match="--simulate fp16 computes the reference itself: add --against CHECKPOINT"):
        vit_deploy.verify(artifact, simulate="fp16")
    found = vit_deploy.verify(artifact, against=path, simulate="fp16", quick=True)
    assert not found.ok and found.result.provider == "fp16"
    assert any(
        "the square of block_1.attention.norm is the first to overflow" in failure for failure in found.result.failures
    )
    fine = vit_deploy.verify(artifact, against=path, simulate="bf16", quick=True)
    assert not any("overflow" in failure for failure in fine.result.failures)
    with pytest.raises(ConfigError, match="is an artifact, and what is simulated is the reference of a checkpoint"):
        vit_deploy.verify(artifact, against=artifact.path, simulate="fp16")
