from __future__ import annotations

import numpy as np
import pytest

from vit_deploy.core.input_output import InputSpec
from vit_deploy.errors import DataError, EngineError
from vit_deploy.runtimes.batching import in_batches
from vit_deploy.runtimes.values import as_stored, checked_images, dequantized, quantized, refuse_other_input


def test_quantizing_rounds_to_the_nearest_and_clips_at_both_ends():
    values = np.array([-1000, -2.6, -2.5, 0, 1.6, 3.5, 1000], np.float32) / 8
    stored = quantized(values, 0.125, 5, np.dtype(np.int8))
    assert stored.tolist() == [-128, 2, 3, 5, 7, 9, 127]
    assert stored.dtype == np.int8


def test_what_is_quantized_comes_back_within_half_a_step():
    values = np.random.default_rng(0).uniform(-2, 2, 1000).astype(np.float32)
    for dtype, scale, zero_point in ((np.int8, 4.2 / 255, -3), (np.uint8, 4.2 / 255, 127), (np.int16, 1e-4, 0)):
        back = dequantized(quantized(values, scale, zero_point, np.dtype(dtype)), scale, zero_point)
        assert np.abs(back - values).max() <= scale / 2 * 1.001


def test_pixels_can_be_stored_in_int8():
    pixels = np.array([[[[0], [128], [255]]]], np.uint8)
    spec = InputSpec((1, 1, 3, 1), dtype="int8", scale=1.0, zero_point=-128, preprocessing_inside=True)
    assert as_stored(pixels, spec).ravel().tolist() == [-128, 0, 127]


def test_channels_come_first_where_the_file_wants_them_so():
    images = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    stored = as_stored(images, InputSpec((None, 5, 3, 4), layout="nchw"))
    assert stored.shape == (2, 5, 3, 4)
    assert stored[1, 4, 2, 3] == images[1, 2, 3, 4]
    assert stored.flags.c_contiguous


def test_images_that_fit_are_not_copied():
    images = np.zeros((2, 3, 4, 5), np.float32)
    assert as_stored(images, InputSpec((None, 3, 4, 5))) is images


@pytest.mark.parametrize(
    ("shape", "dtype", "found"),
    [
        ((2, 5, 6, 3), np.float32, "(2, 5, 6, 3)"),
        ((6, 5, 3), np.float32, "(6, 5, 3)"),
        ((0, 6, 5, 3), np.float32, "(0, 6, 5, 3)"),
        ((2, 6, 5, 3), np.uint8, "uint8"),
        ((2, 6, 5, 3), np.float64, "float64"),
    ],
)
def test_images_that_do_not_fit_are_refused(make_artifact, shape, dtype, found):
    with pytest.raises(DataError, match=r"expected normalised float32 images of shape \(batch, 6, 5, 3\)") as error:
        checked_images(np.zeros(shape, dtype), make_artifact("onnx"))
    assert found in str(error.value)


def test_a_model_with_preprocessing_inside_takes_pixels_only(make_artifact):
    artifact = make_artifact("onnx", dtype="uint8", preprocessing_inside=True)
    assert checked_images(np.zeros((1, 6, 5, 3), np.uint8), artifact).dtype == np.uint8
    with pytest.raises(DataError, match="expected uint8 pixels"):
        checked_images(np.zeros((1, 6, 5, 3), np.float32), artifact)


def test_a_file_with_another_input_than_recorded_is_refused(make_artifact):
    artifact = make_artifact("onnx")
    refuse_other_input(artifact, "images", ["batch", 6, 5, 3])
    refuse_other_input(artifact, "images", [-1, 6, 5, 3])
    for name, shape in (("x", [-1, 6, 5, 3]), ("images", [1, 6, 5, 3]), ("images", [-1, 5, 6, 3])):
        with pytest.raises(EngineError, match=r"its manifest says images \(None, 6, 5, 3\)"):
            refuse_other_input(artifact, name, shape)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_fixed_batch_is_filled_up_and_the_filling_dropped(count):
    seen = []

    def infer(images):
        seen.append(len(images))
        return images * 2

    images = np.arange(count, dtype=np.float32)[:, None]
    assert np.array_equal(in_batches(infer, images, 3), images * 2)
    assert set(seen) == {3}
    assert len(seen) == -(-count // 3)
