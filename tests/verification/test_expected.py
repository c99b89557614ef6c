from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from vit_deploy import checkpoints
from vit_deploy.core.images import load_image
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.reference import forward
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.errors import ConfigError, DataError
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export
from vit_deploy.verification import checks
from vit_deploy.verification.expected import Reference, image_files
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.verifying import verify


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("photos")
    (path / "inner").mkdir()
    for index, pixels in enumerate(natural_pixels(3, 40, 50, 3, seed=9)):
        Image.fromarray(pixels).save(path / ("inner" if index == 2 else ".") / f"{index}.png")
    (path / "notes.txt").write_text("no image")
    return path


@pytest.fixture(scope="module")
def checkpoint_file(make_checkpoint, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "small.safetensors"
    checkpoints.save(make_checkpoint(), path)
    return path


def test_images_of_subfolders_count_and_come_by_name(folder):
    assert [file.name for file in image_files(folder, 10)] == ["0.png", "1.png", "2.png"]
    assert [file.name for file in image_files(folder, 2)] == ["0.png", "1.png"]


def test_a_folder_without_images_is_an_error(tmp_path):
    with pytest.raises(DataError, match="holds no images") as caught:
        image_files(tmp_path, 3)
    assert ".png" in caught.value.fix
    with pytest.raises(DataError, match="is no folder"):
        image_files(tmp_path / "absent", 3)


def test_a_checkpoint_answers_image_files_as_the_reference_does(bundles, folder, checkpoint_file, make_checkpoint):
    artifact = read_artifact(bundles["onnx"])
    files = image_files(folder, 10)
    golden, precision = Reference(checkpoint_file, files).golden(artifact, read_golden(artifact))
    checkpoint = make_checkpoint()
    images = np.stack([load_image(file, checkpoint.preprocess, checkpoint.config.image_size) for file in files])
    np.testing.assert_array_equal(golden.images, images)
    np.testing.assert_array_equal(golden.outputs, forward(checkpoint, images))
    rounded = np.abs(forward(checkpoint, images, np.float32) - golden.outputs).max()
    assert precision == "fp32" and golden.noise_floor == pytest.approx(rounded)
    assert golden.photo is not None and golden.adversarial is not None
    assert verify(artifact, golden=golden).ok


def test_a_checkpoint_answers_the_golden_images_as_they_are_recorded(bundles, checkpoint_file):
    artifact = read_artifact(bundles["tflite"])
    own = read_golden(artifact)
    golden, _ = Reference(checkpoint_file).golden(artifact, own)
    np.testing.assert_array_equal(golden.images, own.images)
    np.testing.assert_array_equal(golden.outputs, own.outputs)


def test_another_checkpoint_is_not_met(bundles, make_checkpoint, tmp_path):
    other = make_checkpoint()
    weights = dict(other.weights)
    weights["head.bias"] = weights["head.bias"] + np.float32(1e-3)
    path = tmp_path / "other.safetensors"
    checkpoints.save(dataclasses.replace(other, weights=weights), path)
    artifact = read_artifact(bundles["onnx"])
    golden, precision = Reference(path).golden(artifact, read_golden(artifact))
    assert not verify(artifact, golden=golden, precision=precision).ok


def test_a_checkpoint_of_another_preprocessing_is_not_met_though_its_weights_are_the_same(
    bundles, make_checkpoint, tmp_path, folder
):
    other = make_checkpoint()
    changed = dataclasses.replace(other, preprocess=dataclasses.replace(other.preprocess, std=(0.5, 0.5, 0.4)))
    path = tmp_path / "other.safetensors"
    checkpoints.save(changed, path)
    artifact = read_artifact(bundles["onnx"])
    for files in ((), image_files(folder, 3)):
        golden, _ = Reference(path, files).golden(artifact, read_golden(artifact))
        assert verify(artifact, golden=golden).verdict == "different"


@pytest.mark.parametrize("reference", ["savedmodel", "tflite"])
def test_an_artifact_can_be_the_reference(bundles, folder, reference):
    artifact = read_artifact(bundles["onnx"])
    for files in ((), image_files(folder, 3)):
        golden, precision = Reference(bundles[reference], files).golden(artifact, read_golden(artifact))
        assert precision == "fp32" and golden.outputs.dtype == np.float64
        assert verify(artifact, golden=golden, precision=precision).ok


def test_an_artifact_of_another_size_is_refused(bundles):
    artifact = read_artifact(bundles["onnx"])
    other = dataclasses.replace(artifact, config=artifact.config.replace(image_size=(32, 40)))
    with pytest.raises(ConfigError, match=r"take images of 32x40 and 24x32 pixels"):
        Reference(bundles["tflite"]).golden(other, read_golden(artifact))


def test_a_model_of_pixels_is_compared_on_files_and_asked_what_pixels_can_say(
    make_checkpoint, checkpoint_file, folder, tmp_path
):
    jobs, _ = plan(["onnx"], ["fp32"], include_preprocessing=True)
    [made] = export(make_checkpoint(), tmp_path, jobs)
    artifact = made.artifact
    for files in ((), image_files(folder, 3)):
        golden, precision = Reference(checkpoint_file, files).golden(artifact, read_golden(artifact))
        assert golden.images.dtype == np.uint8
        found = verify(artifact, golden=golden, precision=precision, checks=checks.ALWAYS)
        assert found.ok, found.failures
        assert [check.name for check in found.checks if "input" in check.name] == [
            "saturated input",
            "bright pixel input",
        ]
