from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.preprocess import Interpolation, Preprocess
from vit_deploy.core.reference import forward
from vit_deploy.errors import MissingEngineError
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.verification import checks, preprocessing
from vit_deploy.verification.adversarial import VERY_LARGE
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.recording import record
from vit_deploy.verification.tolerances import DEFAULTS, Limits, Tolerance
from vit_deploy.verification.verifying import CheckContext, verify

INPUTS = ["saturated", "bright pixel", "zero", "one", VERY_LARGE]


@pytest.fixture(scope="module")
def model(make_checkpoint):
    checkpoint = make_checkpoint()
    return checkpoint, record(checkpoint)


class Perturbed:
    """A session that computes the model, but for what is done to it."""

    provider = "cpu"

    def __init__(self, checkpoint, change=lambda outputs, images, runs: outputs):
        self.checkpoint, self.change, self.runs = checkpoint, change, 0

    def infer(self, images):
        self.runs += 1
        outputs = forward(self.checkpoint, images, np.float32).astype(np.float32)
        return self.change(outputs, images, self.runs)


@pytest.fixture
def ask(model, bundles):
    def build(change=lambda outputs, images, runs: outputs, *, tolerance=None, format="onnx", **golden):
        checkpoint, recorded = model
        session = Perturbed(checkpoint, change)
        recorded = dataclasses.replace(recorded, **golden)
        held = tolerance or Tolerance(max_abs=10 * recorded.noise_floor)
        options = RuntimeOptions(allow_tf32=False)
        outputs = forward(checkpoint, recorded.images, np.float32).astype(np.float32)
        return CheckContext(read_artifact(bundles[format]), "onnxruntime", options, session, recorded, outputs, held)

    return build


def test_a_good_model_passes_every_trial(ask):
    found = [check for function in checks.ALWAYS for check in function(ask())]
    assert [check.name for check in found] == [
        "repeated run",
        *(f"batch of {size}" for size in (1, 2, 7)),
        *(f"{name} input" for name in INPUTS),
        "preprocessing",
    ]
    assert all(check.ok and not check.words for check in found)


def test_a_second_run_that_differs_is_found(ask):
    [check] = checks.repeats(ask(lambda outputs, images, runs: outputs + 1e-3 * (runs > 1)))
    assert not check.ok and check.words.startswith("largest difference 0.001 is above")


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda outputs, images, runs: outputs + 1e-3 * (len(images) == 7), ["batch of 7"]),
        (lambda outputs, images, runs: outputs + 1e-3 * (len(images) > 1), ["batch of 2", "batch of 7"]),
        (lambda outputs, images, runs: outputs[::-1], ["batch of 2", "batch of 7"]),
        (lambda outputs, images, runs: np.concatenate([outputs[:1]] * len(images)), ["batch of 2", "batch of 7"]),
        (lambda outputs, images, runs: outputs[:6], ["batch of 7"]),
    ],
)
def test_a_batch_that_gives_other_answers_than_its_images_one_by_one_is_found(ask, change, wrong):
    assert [check.name for check in checks.batches(ask(change)) if not check.ok] == wrong


def test_two_golden_images_are_enough_for_a_batch_of_seven(ask, model):
    _, golden = model
    few = {"images": golden.images[:2], "outputs": golden.outputs[:2]}
    context = dataclasses.replace(ask(**few), outputs=ask().outputs[:2])
    assert [check.ok for check in checks.batches(context)] == [True, True, True]


def test_a_file_of_a_fixed_batch_is_not_asked_for_others(ask):
    assert checks.batches(ask(format="tflite")) == []


@pytest.mark.parametrize("position", range(len(INPUTS)))
def test_a_wrong_answer_to_any_adversarial_input_is_found(ask, model, position):
    hard = model[1].adversarial

    def change(outputs, images, runs):
        same = (images == hard.images[position]).all()
        return outputs + (30 * hard.floors[position] if same else 0)

    assert [check.name for check in checks.adversarial(ask(change)) if not check.ok] == [f"{INPUTS[position]} input"]


def test_inputs_without_a_recorded_answer_have_to_be_answered_finitely(ask):
    def overflow(outputs, images, runs):
        return outputs * (np.inf if np.abs(images).max() > 100 else 1)

    found = checks.adversarial(ask(overflow, adversarial=None))
    assert [(check.name, check.ok) for check in found] == [(f"{name} input", name != VERY_LARGE) for name in INPUTS]
    assert "NaN or infinite" in found[-1].words


def test_low_precisions_are_held_to_finite_answers_and_not_asked_beyond_their_range(ask):
    noisy = ask(lambda outputs, images, runs: outputs * 1.02, tolerance=DEFAULTS["int8"])
    found = checks.adversarial(noisy)
    assert all(check.ok for check in found)
    assert found[-1].words == "left out: beyond the range that such a precision holds"
    broken = ask(lambda outputs, images, runs: outputs * np.nan, tolerance=DEFAULTS["int8"])
    assert [check.ok for check in checks.adversarial(broken)] == [False] * 4 + [True]


def test_low_precisions_may_scale_by_the_batch_within_their_noise(ask):
    def scaled(factor):
        return lambda outputs, images, runs: outputs * (factor if len(images) > 1 else 1)

    held = DEFAULTS["int8"]
    assert all(check.ok for check in checks.batches(ask(scaled(1.02), tolerance=held)))
    assert not all(check.ok for check in checks.batches(ask(scaled(1.5), tolerance=held)))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"mean": (0.485, 0.456, 0.406)}, "mean or deviation"),
        ({"std": (0.5, 0.5, 0.51)}, "mean or deviation"),
        ({"interpolation": Interpolation.BICUBIC}, "resize, crop or filter"),
        ({"resize": 40, "crop": True}, "resize, crop or filter"),
    ],
)
def test_another_preprocessing_than_at_the_export_is_found(ask, change, said):
    context = ask()
    other = dataclasses.replace(context.artifact, preprocess=dataclasses.replace(context.artifact.preprocess, **change))
    [check] = checks.preprocessing(dataclasses.replace(context, artifact=other))
    assert not check.ok and said in check.words


def test_without_pillow_preprocessing_is_left_out_and_said(ask, monkeypatch):
    def missing(*arguments):
        raise MissingEngineError("reading image files needs Pillow, which is not installed")

    monkeypatch.setattr(preprocessing, "load_pixels", missing)
    [check] = checks.preprocessing(ask())
    assert check.ok and check.words.startswith("left out: reading image files needs Pillow")


def test_a_photo_of_other_channels_than_files_have_is_not_recorded():
    assert preprocessing.record_photo(Preprocess.for_channels(5), (4, 6), np.zeros((3, 3, 3), np.uint8)) is None


@pytest.mark.parametrize("format", ["onnx", "tflite", "savedmodel"])
def test_real_bundles_pass_every_trial(bundles, format):
    found = verify(read_artifact(bundles[format]), checks=checks.ALWAYS)
    assert found.ok, found.failures
    assert len(found.checks) == (7 if format == "tflite" else 10)


def test_other_numbers_of_threads_agree(bundles):
    for format in ("onnx", "tflite"):
        found = verify(read_artifact(bundles[format]), checks=[checks.threads([1, 2])])
        assert [(check.name, check.ok) for check in found.checks] == [("1 thread", True), ("2 threads", True)]


@pytest.mark.slow
def test_tensorflow_takes_its_threads_in_a_process_of_its_own(bundles):
    found = verify(read_artifact(bundles["savedmodel"]), checks=[checks.threads([1, 2])])
    assert [(check.name, check.ok) for check in found.checks] == [("1 thread", True), ("2 threads", True)]


def test_a_tolerance_that_was_asked_for_scales_with_the_floor_of_each_input(bundles):
    artifact = read_artifact(bundles["onnx"])
    floor = read_golden(artifact).noise_floor
    strict = Limits(asked={"max_abs": 1e-3 * floor})
    found = verify(artifact, limits=strict, checks=[checks.adversarial])
    assert not found.parity.ok and not found.ok and found.verdict == "different"
    assert any(failure.startswith("very large input: ") for failure in found.failures)
