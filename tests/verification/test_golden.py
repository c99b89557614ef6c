from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from vit_deploy.core.artifact import describe
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.reference import forward
from vit_deploy.errors import ArtifactError
from vit_deploy.verification.golden import Golden, read_golden
from vit_deploy.verification.noise_floor import EPSILON
from vit_deploy.verification.recording import golden_count, golden_pixels, record, write_golden

WRITE = """
import sys
from pathlib import Path
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.verification.recording import record, write_golden
config = ViTConfig((24, 32), (8, 4), 3, 12, 3, 2, 20, 5)
write_golden(record(Checkpoint.random(config, 7)), Path(sys.argv[1]))
"""


@pytest.fixture
def artifact(checkpoint, tmp_path):
    spec = InputSpec((None, *checkpoint.config.image_size, checkpoint.config.channels))
    return describe(checkpoint, tmp_path, format="onnx", precision="fp32", input=spec)


@pytest.fixture(scope="module")
def golden():
    return record(Checkpoint.random(ViTConfig((24, 32), (8, 4), 3, 12, 3, 2, 20, 5), 7))


def test_what_is_recorded_is_the_reference_on_normalised_photographs(checkpoint, golden):
    pixels = golden_pixels(checkpoint.config)
    assert golden.images.dtype == np.float32
    np.testing.assert_allclose(golden.images, pixels / 127.5 - 1, atol=1e-6)  # mean and std 0.5
    assert golden.outputs.dtype == np.float64
    assert np.array_equal(golden.outputs, forward(checkpoint, golden.images))


def test_the_noise_floor_is_what_rounding_to_float32_does(checkpoint, golden):
    rounded = forward(checkpoint, golden.images, np.float32)
    assert rounded.dtype == np.float32
    distance = np.abs(rounded - golden.outputs).max()
    assert golden.noise_floor == max(distance, EPSILON * np.abs(golden.outputs).max())
    assert 0 < golden.noise_floor < 1e-4 * golden.spread


def test_a_model_that_float32_computes_exactly_has_a_floor_all_the_same(checkpoint):
    weights = {name: np.zeros_like(weight) for name, weight in checkpoint.weights.items()}
    weights["head.bias"] = np.full(5, 3, np.float32)
    golden = record(dataclasses.replace(checkpoint, weights=weights))
    assert golden.noise_floor == EPSILON * 3
    assert golden.spread == 0


def test_golden_data_of_a_model_that_answers_zero_can_be_read_back(checkpoint, artifact):
    weights = {name: np.zeros_like(weight) for name, weight in checkpoint.weights.items()}
    write_golden(record(dataclasses.replace(checkpoint, weights=weights)), artifact.directory)
    assert read_golden(artifact).noise_floor > 0


def test_it_survives_the_file(golden, artifact):
    write_golden(golden, artifact.directory)
    back = read_golden(artifact)
    assert np.array_equal(back.images, golden.images) and back.images.dtype == golden.images.dtype
    assert np.array_equal(back.outputs, golden.outputs) and back.outputs.dtype == golden.outputs.dtype
    assert back.noise_floor == golden.noise_floor


def test_two_processes_write_the_same_bytes(tmp_path):
    digests = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        subprocess.run([sys.executable, "-c", WRITE, tmp_path / name], check=True)
        digests.add(hashlib.sha256((tmp_path / name / "golden.npz").read_bytes()).hexdigest())
    assert len(digests) == 1


@pytest.mark.parametrize(("scale", "count"), [("pico", 8), ("tiny", 8), ("small", 8), ("base", 2), ("huge", 2)])
def test_large_models_are_proven_by_fewer_images(scale, count):
    assert golden_count(ViTConfig.from_scale(scale, patch_size=14 if scale == "huge" else 16)) == count


def test_the_count_goes_by_the_work_for_an_image_and_not_by_the_weights():
    small = ViTConfig.from_scale("small")  # 4.6 GMAC: 9.2 GFLOP
    assert golden_count(small) == 8
    assert golden_count(small.replace(image_size=(240, 240))) == 2  # 10.7 GFLOP, hardly more weights


def test_pixels_go_with_the_same_outputs(golden):
    pixels = np.zeros((8, 24, 32, 3), np.uint8)
    swapped = golden.as_pixels(pixels)
    assert swapped.images is pixels and swapped.outputs is golden.outputs
    assert swapped.noise_floor == golden.noise_floor


def test_missing_golden_data_are_an_error(artifact):
    with pytest.raises(ArtifactError, match=r"has no golden\.npz"):
        read_golden(artifact)


def test_a_damaged_byte_anywhere_is_an_error_or_changes_nothing(golden, artifact):
    write_golden(golden, artifact.directory)
    path = artifact.directory / "golden.npz"
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), len(whole) // 150):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            back = read_golden(artifact)
        except ArtifactError as error:
            refused += 1
            assert "golden.npz" in error.message and error.fix == "export the model again"
        else:
            assert np.array_equal(back.images, golden.images) and np.array_equal(back.outputs, golden.outputs)
    assert refused > 130
    for length in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(ArtifactError, match="damaged"):
            read_golden(artifact)


def test_other_files_in_its_place_are_refused(golden, artifact, tmp_path):
    path = artifact.directory / "golden.npz"
    plain = io.BytesIO()
    np.save(plain, golden.images)
    for content in (b"", b"PK\x03\x04", plain.getvalue(), pickle.dumps({"images": 1})):
        path.write_bytes(content)
        with pytest.raises(ArtifactError, match="damaged"):
            read_golden(artifact)


def test_a_pickle_inside_is_never_run(golden, artifact, tmp_path):
    marker = tmp_path / "ran"

    class Attack:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    array = np.array([Attack()], dtype=object)
    np.savez(artifact.directory / "golden.npz", images=array, outputs=golden.outputs, noise_floor=golden.noise_floor)
    with pytest.raises(ArtifactError, match="damaged"):
        read_golden(artifact)
    with zipfile.ZipFile(artifact.directory / "golden.npz", "w") as file:
        file.writestr("images.npy", pickle.dumps(Attack()))
    with pytest.raises(ArtifactError, match="damaged"):
        read_golden(artifact)
    assert not marker.exists()


CHANGES = {
    "images of another size": (
        {"images": np.zeros((8, 32, 24, 3), np.float32)},
        r"images are float32 \(8, 32, 24, 3\)",
    ),
    "pixels for a model of floats": ({"images": np.zeros((8, 24, 32, 3), np.uint8)}, "images are uint8"),
    "one image as a number": ({"images": np.float32(1)}, r"images are float32 \(\)"),
    "other classes": ({"outputs": np.zeros((8, 6))}, r"outputs are float64 \(8, 6\), expected float64 \(8, 5\)"),
    "fewer outputs than images": ({"outputs": np.zeros((7, 5))}, r"outputs are float64 \(7, 5\)"),
    "outputs in float32": ({"outputs": np.zeros((8, 5), np.float32)}, "outputs are float32"),
    "an output that is NaN": ({"outputs": np.full((8, 5), np.nan)}, "NaN or infinite"),
    "no image": ({"images": np.zeros((0, 24, 32, 3), np.float32), "outputs": np.zeros((0, 5))}, "no images"),
    "a floor that is NaN": ({"noise_floor": np.float64("nan")}, "noise floor is nan"),
    "an infinite floor": ({"noise_floor": np.float64("inf")}, "noise floor is inf"),
    "no floor at all": ({"noise_floor": np.float64(0)}, r"noise floor is 0\.0"),
    "two floors": ({"noise_floor": np.ones(2)}, r"noise_floor are float64 \(2,\)"),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_does_not_fit_the_model_is_refused(golden, artifact, case):
    changes, said = CHANGES[case]
    values = {"images": golden.images, "outputs": golden.outputs, "noise_floor": np.float64(golden.noise_floor)}
    np.savez(artifact.directory / "golden.npz", **{**values, **changes})
    with pytest.raises(ArtifactError, match=said):
        read_golden(artifact)


@pytest.mark.parametrize("name", ["images", "outputs", "noise_floor"])
def test_a_missing_array_is_named(golden, artifact, name):
    values = {"images": golden.images, "outputs": golden.outputs, "noise_floor": np.float64(golden.noise_floor)}
    np.savez(artifact.directory / "golden.npz", **{key: value for key, value in values.items() if key != name})
    with pytest.raises(ArtifactError, match=name):
        read_golden(artifact)


def test_a_header_that_claims_more_than_there_is_is_refused(golden, artifact):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000000,)}"
    header += b" " * (63 - (len(header) + 10) % 64) + b"\n"
    lying = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with zipfile.ZipFile(artifact.directory / "golden.npz", "w") as file:
        file.writestr("images.npy", lying)
    with pytest.raises(ArtifactError, match="damaged"):
        read_golden(artifact)


def test_spread_is_the_largest_distance_from_the_mean():
    outputs = np.array([[1.0, 5.0], [3.0, 5.0], [2.0, 5.0]])
    assert Golden(np.zeros((3, 1, 1, 1)), outputs, 1e-6).spread == 1


def test_the_reference_reports_how_much_of_it_is_done(checkpoint):
    said = []
    record(checkpoint, said.append)
    figures = [int(text.removeprefix("computing the reference: ").removesuffix("%")) for text in said]
    assert len(figures) > 2 * checkpoint.config.num_layers
    assert figures == sorted(figures) and figures[0] > 0 and figures[-1] == 100
    assert figures.count(100) == 1  # nothing of it comes after what is said to be all
