from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from vit_deploy.core.artifact import describe
from vit_deploy.core.images import load_pixels
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.reference import forward
from vit_deploy.errors import ArtifactError
from vit_deploy.verification import adversarial, preprocessing
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.recording import record, write_golden


@pytest.fixture(scope="module")
def model(make_checkpoint):
    checkpoint = make_checkpoint()
    return checkpoint, record(checkpoint)


@pytest.fixture
def artifact(model, tmp_path):
    spec = InputSpec((None, 24, 32, 3))
    return describe(model[0], tmp_path, format="onnx", precision="fp32", input=spec)


def test_the_inputs_are_what_their_names_say(model):
    hard = model[1].adversarial
    by_name = dict(zip(hard.names, hard.images, strict=True))
    assert list(by_name) == ["saturated", "bright pixel", "zero", "one", "very large"]
    assert not by_name["zero"].any() and (by_name["one"] == 1).all()
    assert set(np.unique(by_name["saturated"]).round(6)) == {-1, 1} and by_name["saturated"].std() > 0.9
    assert ((by_name["bright pixel"] > 0).all(axis=-1)).sum() == 1
    assert set(np.unique(by_name["very large"])) == {-1000, 1000}


def test_the_answers_are_the_references_with_a_noise_floor_of_their_own(model):
    checkpoint, golden = model
    hard = golden.adversarial
    np.testing.assert_array_equal(hard.outputs, forward(checkpoint, hard.images))
    rounded = np.abs(forward(checkpoint, hard.images, np.float32) - hard.outputs).max(axis=1)
    assert (hard.floors >= rounded).all() and (hard.floors <= np.maximum(rounded, 1e-5)).all()


def test_a_model_of_pixels_is_asked_what_pixels_can_say(model):
    checkpoint, golden = model
    hard = golden.as_pixels(np.zeros((8, 24, 32, 3), np.uint8)).adversarial
    assert hard.names == ("saturated", "bright pixel") and hard.images.dtype == np.uint8
    np.testing.assert_array_equal(hard.outputs, forward(checkpoint, checkpoint.preprocess.normalize(hard.images)))


def test_they_and_the_photo_survive_the_file(model, artifact):
    _, golden = model
    write_golden(golden, artifact.directory)
    back = read_golden(artifact)
    for name in ("images", "outputs", "floors"):
        np.testing.assert_array_equal(getattr(back.adversarial, name), getattr(golden.adversarial, name))
    assert back.adversarial.names == golden.adversarial.names
    for name in ("file", "pixels", "ends"):
        np.testing.assert_array_equal(getattr(back.photo, name), getattr(golden.photo, name))


def test_the_photo_is_a_small_png_that_reading_turns_into_its_pixels(model, tmp_path):
    checkpoint, golden = model
    content = golden.photo.file.tobytes()
    with Image.open(io.BytesIO(content)) as image:
        assert image.format == "PNG" and (image.height, image.width) == preprocessing.SIZE
    assert len(content) < 100_000
    (tmp_path / "photo.png").write_bytes(content)
    pixels = load_pixels(tmp_path / "photo.png", checkpoint.preprocess, (24, 32))
    np.testing.assert_array_equal(pixels, golden.photo.pixels)
    np.testing.assert_allclose(golden.photo.ends, [[-1] * 3, [1] * 3], atol=1e-6)


WRONG = {
    "adversarial_names": (np.zeros(5), "adversarial inputs are"),
    "adversarial_images": (np.zeros((5, 24, 32, 1), np.float32), "adversarial inputs are"),
    "adversarial_outputs": (np.full((5, 5), np.nan), "NaN or infinite"),
    "adversarial_floors": (np.zeros(5), "NaN or infinite"),
    "photo_pixels": (np.zeros((3, 3, 3), np.uint8), "the photo is uint8"),
    "photo_ends": (np.zeros((2, 4), np.float32), "the photo's normalisation"),
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_do_not_fit_are_refused(model, artifact, name):
    _, golden = model
    arrays = {"images": golden.images, "outputs": golden.outputs, "noise_floor": np.float64(golden.noise_floor)}
    arrays |= adversarial.to_arrays(golden.adversarial) | preprocessing.to_arrays(golden.photo)
    array, said = WRONG[name]
    np.savez(artifact.directory / "golden.npz", **{**arrays, name: array})
    with pytest.raises(ArtifactError, match=said):
        read_golden(artifact)
