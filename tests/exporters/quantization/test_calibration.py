"""Calibration images: where they come from, that they are the same again, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest
from PIL import Image

from tests.exporters.variants import exported
from tests.exporters.variants import pixels as pixels_of
from vit_deploy.core.artifact import describe
from vit_deploy.core.input_output import InputSpec
from vit_deploy.errors import DataError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx.export import OnnxExporter
from vit_deploy.exporters.quantization import QUANTIZERS
from vit_deploy.exporters.quantization.calibration import COUNT, FEWEST, SAMPLES, Calibration, batches, read_calibration
from vit_deploy.exporters.quantization.outputs import answers, cosines
from vit_deploy.exporters.quantization.recipes import recipe_for
from vit_deploy.exporters.tflite.export import TFLiteExporter


@pytest.fixture(scope="module")
def artifact(make_checkpoint, tmp_path_factory):
    checkpoint = make_checkpoint()
    spec = InputSpec(shape=(None, *checkpoint.config.image_size, 3))
    return describe(checkpoint, tmp_path_factory.mktemp("x"), format="onnx", precision="fp32", input=spec)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (2, [[0, 1], [2, 3], [4, 0]]),
        (12, [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]]),
        (None, [[0, 1, 2], [3, 4]]),
    ],
)
def test_the_last_batch_begins_again_with_the_first_image_as_often_as_it_takes(batch, expected):
    assert [each.tolist() for each in batches(np.arange(5), batch, 3)] == expected


@pytest.mark.parametrize(
    ("format", "precision"),
    [
        *(("onnx", precision) for precision in ("fp16", "int8-static", "int16x8", "int4")),
        *(("tflite", precision) for precision in ("int8-static", "int8-full", "int4")),
    ],
)
def test_a_batch_may_be_larger_than_twice_the_images(format, precision, of_many, tmp_path):
    source, images = of_many[format]
    recipe = recipe_for(format, precision)
    target = dataclasses.replace(source, directory=tmp_path, precision=precision, options={"recipe": recipe.to_dict()})
    made = QUANTIZERS.load(format)().write(source, target, recipe, Calibration(images, (), 0, "tests"))
    assert cosines(answers(made, images), answers(source, images)).min() > 0.97


@pytest.fixture(scope="module")
def of_many(make_checkpoint, tmp_path_factory):
    """Files for a batch of 40 by their format, and 8 images."""
    checkpoint = make_checkpoint(num_layers=1)
    options = ExportOptions(batch=40)
    images = checkpoint.preprocess.normalize(pixels_of(checkpoint, FEWEST))
    return {
        format: (exported(exporter, checkpoint, tmp_path_factory.mktemp(format), options), images)
        for format, exporter in (("onnx", OnnxExporter()), ("tflite", TFLiteExporter()))
    }


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (FEWEST + 4, 24, 32, 3), dtype=np.uint8)


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_an_npz_of_pixels_is_normalised_and_digested(artifact, pixels, tmp_path):
    found = read_calibration(saved(tmp_path / "a.npz", images=pixels), artifact)
    np.testing.assert_array_equal(found.images, artifact.preprocess.normalize(pixels))
    assert found.digests == tuple(hashlib.sha256(image.tobytes()).hexdigest() for image in pixels)
    said = found.to_dict()
    assert said["images"] == len(pixels) and said["source"].endswith("a.npz") and said["seed"] == 0


def test_an_npz_of_normalised_images_is_taken_as_it_is(artifact, pixels, tmp_path):
    images = artifact.preprocess.normalize(pixels)
    found = read_calibration(saved(tmp_path / "a.npz", images=images), artifact)
    np.testing.assert_array_equal(found.images, images)


def test_a_folder_is_read_with_its_subfolders_and_resized(artifact, pixels, tmp_path):
    for index, image in enumerate(pixels):
        (tmp_path / f"{index % 2}").mkdir(exist_ok=True)
        Image.fromarray(image).resize((40, 50)).save(tmp_path / f"{index % 2}" / f"{index}.png")
    (tmp_path / "notes.txt").write_text("no image")
    found = read_calibration(tmp_path, artifact)
    assert found.images.shape == (len(pixels), 24, 32, 3) and found.images.dtype == np.float32


def test_the_same_seed_chooses_the_same_images_and_another_seed_others(artifact, tmp_path):
    many = np.random.default_rng(0).integers(0, 256, (3 * COUNT, 24, 32, 3), dtype=np.uint8)
    path = saved(tmp_path / "a.npz", images=many)
    first, again, other = (read_calibration(path, artifact, seed=seed).digests for seed in (0, 0, 1))
    assert len(set(first)) == COUNT and first == again and set(first) != set(other)


def test_without_a_path_the_samples_are_drawn_from_the_seed(artifact):
    first, again, other = (read_calibration(None, artifact, seed=seed, count=9) for seed in (0, 0, 1))
    assert first.source == SAMPLES and len(first.images) == 9
    assert first.digests == again.digests and first.digests != other.digests


def change(pixels, kind):
    match kind:
        case "few":
            return pixels[: FEWEST - 1]
        case "constant":
            pixels[3] = 7
        case "size":
            return pixels[:, :, :-1]
        case "dtype":
            return pixels.astype(np.float64)
        case "nan":
            pixels = pixels.astype(np.float32) / 255
            pixels[2, 5, 5, 1] = np.nan
    return pixels


@pytest.mark.parametrize(
    ("kind", "message"),
    {
        "few": r"holds 7 images; .* need at least 8",
        "constant": r"all their values are the same: .*\[3\]",
        "size": r"\[0\] has shape \(24, 31, 3\), expected \(24, 32, 3\)",
        "dtype": r"\[0\] is float64, expected uint8 pixels or normalised float32",
        "nan": r"\[2\] has values that are NaN or infinite",
    }.items(),
)
def test_images_that_cannot_be_calibrated_with_are_refused(artifact, pixels, tmp_path, kind, message):
    with pytest.raises(DataError, match=message):
        read_calibration(saved(tmp_path / "a.npz", images=change(pixels, kind)), artifact)


@pytest.mark.parametrize(
    ("images", "message"),
    {
        "scaled": (lambda pixels: pixels.astype(np.float32) / 255, "as if only scaled to 0..1"),
        "floats": (lambda pixels: pixels.astype(np.float32), "pixels 0..255 as floats"),
        "cut": (lambda pixels: (pixels / 255).astype(np.uint8), "no pixel is above 1"),
        "channels first": (lambda pixels: pixels.transpose(0, 3, 1, 2), r"\(3, 24, 32\).*, its channels last"),
    }.values(),
)
def test_images_that_no_preprocessing_of_the_model_gives_are_refused(artifact, pixels, tmp_path, images, message):
    with pytest.raises(DataError, match=message):
        read_calibration(saved(tmp_path / "a.npz", images=images(pixels)), artifact)


def test_what_is_no_npz_or_has_no_images_is_refused(artifact, pixels, tmp_path):
    (tmp_path / "broken.npz").write_bytes(b"PK nothing")
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        read_calibration(tmp_path / "broken.npz", artifact)
    np.save(tmp_path / "single.npy", pixels)
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        read_calibration(tmp_path / "single.npy", artifact)
    with pytest.raises(DataError, match=r"has images of shape \(\)"):
        read_calibration(saved(tmp_path / "scalar.npz", images=np.float32(3)), artifact)
    with pytest.raises(DataError, match="has no array images"):
        read_calibration(saved(tmp_path / "a.npz", pictures=pixels), artifact)
    with pytest.raises(DataError, match="there is nothing at"):
        read_calibration(tmp_path / "absent", artifact)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds 0 images"):
        read_calibration(tmp_path / "empty", artifact)


def test_of_many_images_only_the_chosen_are_held(artifact, tmp_path, monkeypatch):
    many = np.random.default_rng(0).integers(0, 256, (3 * COUNT, 24, 32, 3), dtype=np.uint8)
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", images=many, labels=np.zeros(len(many)))
        monkeypatch.setattr(np, "load", lambda *args, **kwargs: pytest.fail("the whole array was loaded"))
        found = read_calibration(tmp_path / "a.npz", artifact, seed=4, count=9)
        monkeypatch.undo()
        places = {hashlib.sha256(each.tobytes()).hexdigest(): index for index, each in enumerate(many)}
        chosen = [many[places[digest]] for digest in found.digests]
        np.testing.assert_array_equal(found.images, artifact.preprocess.normalize(np.stack(chosen)))
        assert len(chosen) == 9


def test_an_npz_that_ends_early_or_holds_objects_is_refused(artifact, pixels, tmp_path):
    path = saved(tmp_path / "a.npz", images=pixels)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        read_calibration(path, artifact)
    objects = np.empty((9, 1, 1, 1), object)
    with pytest.raises(DataError, match=r"cannot be read as \.npz|are object"):
        read_calibration(saved(tmp_path / "b.npz", images=objects), artifact)
