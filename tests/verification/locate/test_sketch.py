from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from tests.exporters.variants import VARIANTS, trained
from vit_deploy.core.artifact import describe
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.reference import forward
from vit_deploy.errors import ArtifactError
from vit_deploy.verification.activations import (
    ARRAYS,
    IMAGES,
    Sketch,
    activation_names,
    by_token,
    detail_names,
    detail_sketch,
    from_arrays,
    sketch,
    to_arrays,
)
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.recording import Recorder, record, write_golden

SIDES = (2, 7, 12)  # images, tokens, features


@pytest.fixture(scope="module")
def golden():
    return record(trained())


def recorded(checkpoint, images):
    exact, rounded = Recorder(), Recorder()
    forward(checkpoint, images, hook=exact.hook, detail=exact.detail)
    forward(checkpoint, images, np.float32, hook=rounded.hook, detail=rounded.detail)
    return exact.against([rounded], checkpoint)


def test_one_number_anywhere_shows_in_the_sketch_of_a_tap():
    values = np.random.default_rng(0).standard_normal(SIDES)
    before = Sketch(sketch(values), 1e-7)
    for place in np.ndindex(SIDES):
        changed = values.copy()
        changed[place] += 1e-3
        assert before.error(sketch(changed)) > 1e-4
        assert Sketch(detail_sketch(values), 1e-7).error(detail_sketch(changed)) > 1e-6


def test_tokens_in_another_order_are_not_the_same():
    values = np.random.default_rng(0).standard_normal(SIDES)
    swapped = values[:, [0, 1, 3, 2, 4, 5, 6]]
    assert Sketch(sketch(values), 1e-7).error(sketch(swapped)) > 0.1


def test_the_first_token_alone_can_be_compared():
    values = np.random.default_rng(0).standard_normal(SIDES)
    kept = Sketch(sketch(values), 1e-7)
    assert kept.error(sketch(values[:, 0])) == 0
    assert kept.error(sketch(values[:, 1])) > 0.1


def test_what_is_not_finite_is_infinitely_wrong():
    values = np.ones(SIDES)
    broken = values.copy()
    broken[1, 4, 2] = np.nan
    assert Sketch(sketch(values), 1e-7).error(sketch(broken)) == np.inf


def test_heads_lie_side_by_side_in_a_token():
    scores = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
    assert np.array_equal(by_token(scores)[1, 4], np.concatenate([scores[1, head, 4] for head in range(3)]))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_model_is_recorded_by_the_names_and_survives_the_file(name):
    checkpoint = trained(**VARIANTS[name])
    sides = (1, *checkpoint.config.image_size, checkpoint.config.channels)
    activations = recorded(checkpoint, np.random.default_rng(1).standard_normal(sides).astype(np.float32))
    assert tuple(activations.stream) == activation_names(checkpoint.config)
    assert tuple(activations.details) == detail_names(checkpoint.config)
    back = from_arrays(to_arrays(activations), checkpoint.config)
    for before, after in ((activations.stream, back.stream), (activations.details, back.details)):
        for activation, value in before.items():
            assert after[activation].noise_floor == value.noise_floor > 0
            np.testing.assert_allclose(after[activation].values, value.values, rtol=1e-6, atol=1e-30)
    assert {name: bias.tolist() for name, bias in back.biases.items()} == {
        name: bias.tolist() for name, bias in activations.biases.items()
    }


def test_golden_data_hold_the_reference_of_the_first_images(golden):
    checkpoint = trained()
    seen = {}
    forward(checkpoint, golden.images[:IMAGES], hook=seen.__setitem__)
    for name, values in seen.items():
        np.testing.assert_allclose(golden.activations.stream[name].values, sketch(values), rtol=0, atol=1e-12)
    floors = [sketched.noise_floor for sketched in golden.activations.stream.values()]
    assert min(floors) > 1e-8 and max(floors) < 1e-4


def test_two_processes_draw_the_same_sums():
    program = (
        "import numpy as np; from vit_deploy.verification.activations import sketch\n"
        "print(sketch(np.eye(5)[None])[0, 1:].tolist())"
    )
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(sketch(np.eye(5)[None])[0, 1:].tolist())


@pytest.fixture
def artifact(tmp_path):
    checkpoint = trained()
    spec = InputSpec((None, *checkpoint.config.image_size, checkpoint.config.channels))
    return describe(checkpoint, tmp_path, format="onnx", precision="fp32", input=spec)


def test_a_bundle_without_activations_can_still_be_read(golden, artifact):
    write_golden(dataclasses.replace(golden, activations=None), artifact.directory)
    assert read_golden(artifact).activations is None


BROKEN = {
    "a block too few": ("tap_stream", lambda array: array[:-1], "tap_stream are"),
    "other features": ("tap_head", lambda array: array[..., :-1], "tap_head are"),
    "doubles": ("tap_norm", lambda array: array.astype(np.float64), "tap_norm are"),
    "a NaN": ("tap_details", lambda array: array * np.nan, "NaN or infinite"),
    "no image": ("tap_stream", lambda array: array[:, :0], "are"),
    "a number": ("tap_stream", lambda array: np.float32(1), "are"),
    "a floor of zero": ("tap_floors", lambda array: array * 0, "not above zero"),
    "biases of no norm": ("tap_biases", lambda array: np.ones((3, 5), np.float32), "tap_biases are"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_activations_that_do_not_fit_their_model_are_refused(golden, artifact, case):
    name, change, said = BROKEN[case]
    write_golden(golden, artifact.directory)
    with np.load(artifact.directory / "golden.npz") as file:
        arrays = dict(file)
    assert set(ARRAYS) <= set(arrays)
    np.savez(artifact.directory / "golden.npz", **{**arrays, name: np.asarray(change(arrays[name]))})
    with pytest.raises(ArtifactError, match=said):
        read_golden(artifact)
