from __future__ import annotations

import json
import math
import shutil

import numpy as np
import pytest
from scipy.spatial import distance
from scipy.special import rel_entr, softmax
from scipy.stats import rankdata

from vit_deploy.core.manifest import read_artifact, write_manifest
from vit_deploy.errors import ConfigError
from vit_deploy.verification import records
from vit_deploy.verification.golden import Golden, read_golden
from vit_deploy.verification.parity import compare, judge
from vit_deploy.verification.recording import write_golden
from vit_deploy.verification.tolerances import NOISE_FACTOR, Tolerance
from vit_deploy.verification.verifying import verify

METRICS = ("max_abs", "rms", "cosine", "snr_db", "top1_agreement", "top5_agreement", "kl")


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((6, 11)) * 3
    return (truth + 1.2 * rng.standard_normal(truth.shape)).astype(np.float32), truth


def golden(outputs, noise_floor=1e-6):
    return Golden(np.zeros((len(outputs), 2, 3, 1), np.float32), np.asarray(outputs, np.float64), noise_floor)


def test_every_metric_is_what_its_definition_says(pair):
    outputs, truth = pair
    found = compare(outputs, truth, 10.0, classes=True)
    values = outputs.astype(np.float64)
    assert found.max_abs == pytest.approx(distance.chebyshev(values.ravel(), truth.ravel()))
    assert found.rms == pytest.approx(distance.euclidean(values.ravel(), truth.ravel()) / math.sqrt(truth.size))
    assert found.cosine == pytest.approx(min(1 - distance.cosine(a, b) for a, b in zip(values, truth, strict=True)))
    assert found.snr_db == pytest.approx(10 * np.log10(np.sum(truth**2) / np.sum((values - truth) ** 2)))
    assert found.top1_agreement == np.mean(values.argmax(1) == truth.argmax(1))
    top5 = [
        len(set(np.flatnonzero(rankdata(-a) <= 5)) & set(np.flatnonzero(rankdata(-b) <= 5))) / 5
        for a, b in zip(values, truth, strict=True)
    ]
    assert found.top5_agreement == pytest.approx(np.mean(top5))
    assert 0 < found.top5_agreement < 1 and found.top1_agreement < 1
    kl = rel_entr(softmax(truth, axis=1), softmax(values, axis=1)).sum(axis=1).max()
    assert found.kl == pytest.approx(kl, rel=1e-9)
    assert np.abs(values - truth)[found.worst] == found.max_abs
    assert all(isinstance(index, int) for index in found.worst)
    assert found.tolerance == Tolerance(max_abs=10) and found.ok and found.notes == ()


def test_figures_about_the_references_mean_are_what_their_definitions_say(pair):
    outputs, truth = pair
    found = compare(outputs, truth, 10.0, classes=True)
    values, mean = outputs.astype(np.float64), truth.mean(axis=0)
    assert found.centred_cosine == pytest.approx(1 - distance.cosine((values - mean).ravel(), (truth - mean).ravel()))
    power = np.var(truth, axis=0).mean()
    assert found.centred_snr_db == pytest.approx(10 * np.log10(power / np.mean((values - truth) ** 2)))
    lengths = [distance.euclidean(a, b) / np.linalg.norm(b) for a, b in zip(values, truth, strict=True)]
    assert found.relative == pytest.approx(max(lengths))
    assert found.token_cosine is None


def test_a_constant_has_a_fair_ratio_but_none_about_the_mean():
    rng = np.random.default_rng(2)
    truth = 3 * rng.standard_normal((1, 9)) + 0.1 * rng.standard_normal((8, 9))
    constant = np.broadcast_to(truth.mean(axis=0) + 1e-3, truth.shape)
    found = compare(constant, truth, 10.0, classes=True)
    assert found.cosine > 0.99 and found.snr_db > 20
    assert abs(found.centred_cosine) < 0.1 and found.centred_snr_db < 0.1


def test_a_changed_first_class_counts_only_where_the_reference_leads_by_more_than_the_noise():
    truth = np.array([[1.0, 0.9, 0.0], [1.0, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 5.0]])
    outputs = np.array([[0.9, 1.0, 0.0], [0.5, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 5.0, 0.0]], np.float32)
    flips = [compare(outputs, truth, 10.0, classes=True, noise=noise).flips for noise in (0.0, 0.2, 0.5, 5.0)]
    assert flips == [0.75, 0.5, 0.25, 0.0]
    assert compare(outputs, truth, 10.0, classes=True).top1_agreement == 0.25
    held = compare(outputs, truth, Tolerance(flips=0.25), classes=True, noise=0.2)
    assert held.failures == ("fraction of changed first classes 0.5 is above the tolerance of 0.25",)


def test_one_wrong_token_shows_in_the_worst_tokens_cosine():
    truth = np.random.default_rng(3).standard_normal((4, 7, 12))
    outputs = truth.astype(np.float32)
    outputs[2, 5] = -outputs[2, 5]
    found = compare(outputs, truth, 10.0, classes=False)
    assert found.token_cosine == pytest.approx(-1) and found.cosine > 0.5
    assert records.parity(found)["metrics"]["token_cosine"] == pytest.approx(-1)


def test_every_limit_that_is_held_is_judged_and_named(pair):
    outputs, truth = pair
    strict = Tolerance(cosine=0.9999, snr_db=60, kl=1e-9, top1_agreement=1.0, relative=1e-6)
    found = compare(outputs, truth, strict, classes=True)
    said = " | ".join(found.failures)
    for words in ("cosine", "signal to noise ratio", " dB", "Kullback-Leibler", "top-1 agreement", "relative"):
        assert words in said
    assert len(found.failures) == 5
    assert set(records.parity(found)["tolerance"]) == {"cosine", "snr_db", "kl", "top1_agreement", "relative"}


def test_a_figure_that_is_held_and_cannot_be_taken_fails():
    zero = np.zeros((2, 3))
    found = compare(np.full((2, 3), 0.5, np.float32), zero, Tolerance(cosine=0.9, snr_db=5), classes=True)
    assert found.failures == (
        "there is no cosine, and it is held to 0.9",
        "there is no signal to noise ratio, and it is held to 5 dB",
    )
    assert compare(zero.astype(np.float32), zero, Tolerance(cosine=0.9, snr_db=5), classes=True).ok


def test_the_metrics_survive_logits_that_overflow_an_exponential():
    truth = np.array([[5000.0, 0.0, -5000.0], [0.0, 1.0, 2.0]])
    found = compare((truth + np.array([[0, 1, 0], [0, 0, 0]])).astype(np.float32), truth, 2.0, classes=True)
    assert found.ok and found.kl == 0 and math.isfinite(found.snr_db)


def test_a_difference_above_the_tolerance_fails_and_at_it_passes():
    truth = np.array([[1.0, 2.0], [3.0, 5.0]])
    outputs = np.array([[1.0, 2.0], [3.0, 5.25]], np.float32)
    assert compare(outputs, truth, 0.25, classes=True).ok
    failed = compare(outputs, truth, 0.2, classes=True)
    assert failed.failures == ("largest difference 0.25 is above the tolerance of 0.2",)
    assert failed.worst == (1, 1) and not failed.ok


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_never_pass_whatever_the_tolerance(pair, bad):
    outputs, truth = pair
    outputs[2, 3] = bad
    for tolerance in (1.0, math.inf):
        found = compare(outputs, truth, tolerance, classes=True)
        assert found.failures == ("1 of 66 outputs are NaN or infinite",)
        assert all(getattr(found, name) is None for name in METRICS)
    outputs, truth = pair
    outputs, broken = truth.astype(np.float32), truth.copy()
    broken[0, 0] = bad
    assert not compare(outputs, broken, math.inf, classes=True).ok


def test_a_tolerance_that_is_nan_passes_nothing(pair):
    outputs, truth = pair
    assert not compare(outputs, truth, math.nan, classes=True).ok


@pytest.mark.parametrize("shape", [(6, 10), (5, 11), (66,), (6, 11, 1), (11, 6), (0, 11)])
def test_another_shape_never_passes_not_even_one_that_would_broadcast(pair, shape):
    _, truth = pair
    found = compare(np.resize(truth, shape).astype(np.float32), truth, math.inf, classes=True)
    assert found.failures == (f"the output has shape {shape}, expected (6, 11)",)
    assert not compare(np.zeros((0, 11), np.float32), np.zeros((0, 11)), 1.0, classes=True).ok


def test_equal_outputs_have_no_signal_to_noise_ratio_and_no_failure(pair):
    outputs, _ = pair
    found = compare(outputs, outputs.astype(np.float64), 0.0, classes=True)
    assert found.ok and found.max_abs == found.rms == found.kl == 0
    assert found.cosine == pytest.approx(1) and found.top1_agreement == found.top5_agreement == 1
    said = records.parity(found)
    assert said["metrics"]["snr_db"] is None and said["failures"] == []


@pytest.mark.parametrize("shape", [(4, 12), (4, 7, 12)])
def test_features_have_no_classes_to_compare(shape):
    truth = np.random.default_rng(1).standard_normal(shape)
    outputs = truth.astype(np.float32)
    outputs[2] *= 1.25
    found = compare(outputs, truth, 10.0, classes=False)
    assert found.top1_agreement is found.top5_agreement is found.kl is None
    flat = outputs.reshape(4, -1).astype(np.float64), truth.reshape(4, -1)
    assert found.cosine == pytest.approx(min(1 - distance.cosine(a, b) for a, b in zip(*flat, strict=True)))
    assert len(found.worst) == len(shape) and found.worst[0] == 2
    said = records.parity(found)
    assert said["ok"] and said["failures"] == ["top-1, top-5, flips and KL do not apply to features"]


def test_the_cosine_is_that_of_the_worst_image():
    truth = np.eye(3)
    outputs = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 1]], np.float32)
    assert compare(outputs, truth, 2.0, classes=True).cosine == pytest.approx(math.sqrt(0.5))


def test_fewer_than_five_classes_agree_on_all_of_them():
    truth = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    found = compare(truth[:, ::-1].astype(np.float32), truth, 10.0, classes=True)
    assert found.top1_agreement == 0 and found.top5_agreement == 1
    one = compare(np.array([[1.0], [2.0]], np.float32), np.array([[1.5], [2.0]]), 1.0, classes=True)
    assert one.top1_agreement == one.top5_agreement == 1 and one.kl == 0


def test_figures_that_do_not_apply_are_null_and_said():
    zero = np.zeros((2, 3))
    found = compare(np.full((2, 3), 0.5, np.float32), zero, 1.0, classes=True)
    assert found.ok and found.cosine is None and found.snr_db is None
    said = records.parity(found)
    assert any("no cosine" in failure for failure in said["failures"])
    assert any("no signal to noise ratio" in failure for failure in said["failures"])


def test_every_null_in_the_document_has_an_entry_under_failures(pair):
    outputs, truth = pair
    broken = outputs.copy()
    broken[0, 0] = np.nan
    for found in (
        compare(broken, truth, 1.0, classes=True),
        compare(outputs[:2], truth, 1.0, classes=True),
        compare(outputs, truth, 1.0, classes=False),
        compare(outputs, np.zeros_like(truth), 1.0, classes=True),
    ):
        said = records.parity(found)
        assert None in said["metrics"].values() and said["failures"]
        json.dumps(said, allow_nan=False)
    assert records.parity(compare(outputs, truth, math.inf, classes=True))["tolerance"] == {"max_abs": None}


def test_the_tolerance_is_ten_times_the_models_own_noise(pair):
    outputs, truth = pair
    assert NOISE_FACTOR == 10
    furthest = np.abs(outputs - truth).max()
    assert judge(outputs, golden(truth, furthest / 9.9), classes=True).ok
    failed = judge(outputs, golden(truth, furthest / 10.1), classes=True)
    assert failed.tolerance.max_abs == pytest.approx(furthest / 1.01) and not failed.ok


def test_a_model_that_ignores_its_input_fails(pair):
    _, truth = pair
    constant = np.broadcast_to(truth.mean(axis=0), truth.shape).astype(np.float32)
    assert not judge(constant, golden(truth), classes=True).ok


def test_a_model_whose_outputs_are_all_alike_is_inconclusive_even_when_equal():
    outputs = np.full((8, 5), 3.0)
    outputs[0, 0] += 1e-6
    found = judge(outputs.astype(np.float32), golden(outputs, 1e-6), classes=True)
    assert not found.ok and found.failures[0].startswith("inconclusive: the reference's outputs differ by only")
    assert found.max_abs < 1e-6


def test_a_wrong_collapsed_model_fails_for_what_is_wrong():
    found = judge(np.full((8, 5), 4.0, np.float32), golden(np.full((8, 5), 3.0)), classes=True)
    assert found.failures == ("largest difference 1 is above the tolerance of 1e-05",)


RUNTIME = {"onnx": ("onnxruntime", "cpu"), "tflite": ("litert", "xnnpack"), "savedmodel": ("savedmodel", "cpu")}


@pytest.mark.parametrize("format", RUNTIME)
def test_a_bundle_is_proven_by_its_own_golden_data(bundles, format):
    found = verify(read_artifact(bundles[format]))
    assert found.parity.ok and 0 < found.parity.max_abs <= found.parity.tolerance.max_abs
    assert (found.runtime, found.provider) == RUNTIME[format]
    said = records.verification(found)
    assert said["artifact"] == str(bundles[format]) and said["ok"]
    assert set(METRICS) < set(said["metrics"]) and None not in said["metrics"].values()


@pytest.mark.parametrize("format", RUNTIME)
def test_other_golden_outputs_are_not_met(bundles, format, tmp_path):
    copied = shutil.copytree(bundles[format], tmp_path / format)
    artifact = read_artifact(copied)
    recorded = read_golden(artifact)
    outputs = recorded.outputs.copy()
    outputs[3, 1] += 20 * recorded.noise_floor
    write_golden(Golden(recorded.images, outputs, recorded.noise_floor), copied)
    found = verify(write_manifest(artifact)).parity
    assert not found.ok and found.worst == (3, 1)


def test_a_runtime_that_does_not_take_the_format_is_refused_with_one_that_does(bundles):
    with pytest.raises(ConfigError) as caught:
        verify(read_artifact(bundles["onnx"]), runtime="litert")
    assert caught.value.message == f"litert does not run {bundles['onnx'] / 'model.onnx'}"
    assert caught.value.fix == "take onnxruntime or openvino or qnn or web"
    with pytest.raises(ConfigError, match="unknown runtime 'onnxruntim'") as caught:
        verify(read_artifact(bundles["onnx"]), runtime="onnxruntim")
    assert caught.value.fix == "did you mean 'onnxruntime'?"
