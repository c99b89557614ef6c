from __future__ import annotations

import numpy as np
import pytest

from vit_deploy.core.reference import forward
from vit_deploy.errors import ConfigError
from vit_deploy.verification.golden import Golden
from vit_deploy.verification.parity import judge
from vit_deploy.verification.recording import record
from vit_deploy.verification.tolerances import DEFAULTS, LIMITS, NOISE_FACTOR, Tolerance, precisions, tolerance_for

LOW = tuple(DEFAULTS)
BITS = {"fp16": 11, "int8": 8, "int8-static": 8, "int8-full": 8, "int16x8": 8, "int4": 4, "tf32": 11, "bf16": 8}


@pytest.fixture(scope="module")
def recorded(make_checkpoint):
    checkpoint = make_checkpoint()
    return checkpoint, record(checkpoint)


def rounded(weights, bits):
    """Weights on a symmetric grid of `bits`, one scale for each output channel."""
    steps = 2 ** (bits - 1) - 1
    result = {}
    for name, value in weights.items():
        scale = np.abs(value.reshape(-1, value.shape[-1])).max(axis=0) / steps
        result[name] = (np.rint(value / scale) * scale).astype(np.float32) if value.ndim > 1 else value
    return result


def answers(checkpoint, weights, images):
    return forward(type(checkpoint)(checkpoint.config, weights, checkpoint.preprocess), images, np.float32)


def test_every_precision_of_the_contract_has_a_tolerance():
    wanted = {"fp32", "fp16", "int8", "int8-static", "int8-full", "int16x8", "int4"}
    assert wanted < set(precisions())
    for precision in precisions():
        assert tolerance_for(precision, 1e-6).held(), precision
    assert tolerance_for("fp32", 1e-6) == Tolerance(max_abs=NOISE_FACTOR * 1e-6)


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError) as caught:
        tolerance_for("int3", 1e-6)
    assert caught.value.message == "precision 'int3' has no tolerance"
    assert "int8-static" in caught.value.fix


def test_every_limit_has_its_words():
    assert set(LIMITS) == set(vars(Tolerance()))


@pytest.mark.parametrize("precision", LOW)
def test_weights_rounded_to_the_precision_pass(recorded, precision):
    checkpoint, golden = recorded
    outputs = answers(checkpoint, rounded(checkpoint.weights, BITS[precision]), golden.images)
    found = judge(outputs, golden, classes=True, precision=precision)
    assert found.ok, found.failures


@pytest.mark.parametrize("precision", LOW)
def test_broken_models_fail_in_every_precision(recorded, precision):
    checkpoint, golden = recorded
    lost = {name: np.zeros_like(value) if value.ndim > 1 else value for name, value in checkpoint.weights.items()}
    right = golden.outputs
    broken = {
        "the mean of all answers": np.broadcast_to(right.mean(axis=0), right.shape),
        "zero": np.zeros_like(right),
        "another image's answer": right[::-1],
        "scaled wrongly": 2.5 * right,
        "negated": -right,
        "all weights lost": answers(checkpoint, lost, golden.images),
    }
    for what, outputs in broken.items():
        found = judge(np.asarray(outputs, np.float32), golden, classes=True, precision=precision)
        assert not found.ok, what
        assert found.verdict == "different" or what == "another image's answer"  # below 6 dB that may be noise


@pytest.mark.parametrize("precision", LOW)
def test_nan_fails_in_every_precision(recorded, precision):
    _, golden = recorded
    outputs = golden.outputs.astype(np.float32)
    outputs[1, 2] = np.nan
    assert not judge(outputs, golden, classes=True, precision=precision).ok


def test_an_8_bit_model_does_not_pass_for_fp16_nor_a_4_bit_one_for_int8(recorded):
    checkpoint, golden = recorded
    for bits, precision in ((8, "fp16"), (4, "int8")):
        outputs = answers(checkpoint, rounded(checkpoint.weights, bits), golden.images)
        assert not judge(outputs, golden, classes=True, precision=precision).ok


def test_a_signal_that_drowns_in_the_allowed_noise_is_inconclusive_and_not_different():
    rng = np.random.default_rng(4)
    common = rng.standard_normal((1, 6))
    truth = common + 1e-3 * rng.standard_normal((8, 6))
    golden = Golden(np.zeros((8, 2, 3, 1), np.float32), truth, 1e-7)
    healthy = (truth + 0.01 * rng.standard_normal(truth.shape)).astype(np.float32)
    found = judge(healthy, golden, classes=True, precision="int8")
    assert found.verdict == "inconclusive" and not found.ok
    assert "cannot tell a right answer from a constant one" in found.failures[0]
    wrong = judge(-healthy, golden, classes=True, precision="int8")
    assert wrong.verdict == "different" and "signal to noise ratio" in wrong.failures[0]
    assert judge(truth.astype(np.float32), golden, classes=True, precision="int8").ok


@pytest.mark.parametrize("precision", LOW)
def test_features_are_held_by_their_worst_token(make_checkpoint, precision):
    checkpoint = make_checkpoint(include_top=False, pooling=None)
    golden = record(checkpoint)
    outputs = answers(checkpoint, rounded(checkpoint.weights, BITS[precision]), golden.images)
    assert judge(outputs, golden, classes=False, precision=precision).ok
    outputs[3, 5] = outputs[3, 5][::-1]  # one token of one image
    found = judge(outputs, golden, classes=False, precision=precision)
    assert not found.ok and any("worst token" in failure for failure in found.failures)
