"""Files of every kind become the pixels that Pillow's own operations give, in the model's channels."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_deploy.core.images import load_image, load_pixels, resized_size
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.errors import DataError, MissingEngineError

SIZE = (24, 32)
MEAN, STD = (0.1, 0.5, 0.8), (0.2, 0.25, 0.4)
RGB = Preprocess(MEAN, STD)
GRAY = Preprocess.for_channels(1)


def picture(height: int = 40, width: int = 56) -> Image.Image:
    """Smooth colours that differ in every corner and every channel."""
    rows, columns = np.mgrid[0:height, 0:width]
    bands = [255 * rows / height, 255 * columns / width, 255 * (rows + columns) / (height + width)]
    return Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8))


@pytest.fixture
def saved(tmp_path):
    def save(image: Image.Image, name: str = "image.png", **options) -> Path:
        image.save(tmp_path / name, **options)
        return tmp_path / name

    return save


def test_an_image_is_resized_to_the_input_and_normalised(saved):
    image = load_image(saved(picture()), RGB, SIZE)
    pixels = np.asarray(picture().resize((32, 24), Image.Resampling.BILINEAR), np.float64)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, (pixels / 255 - MEAN) / STD, rtol=0, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_every_filter_is_pillows(saved, interpolation):
    noisy = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
    pixels = load_pixels(saved(noisy), Preprocess(interpolation=interpolation), SIZE)
    expected = noisy.resize((32, 24), Image.Resampling[interpolation.upper()])
    np.testing.assert_array_equal(pixels, np.asarray(expected))


@pytest.mark.parametrize(("height", "width"), [(40, 57), (57, 40)])
def test_one_number_resizes_the_shorter_edge_and_the_middle_is_cut_out(saved, height, width):
    image = picture(height, width)
    pixels = load_pixels(saved(image), Preprocess(resize=36, crop=True), SIZE)
    tall, wide = (36, 51) if height < width else (51, 36)  # 36 * 57 / 40 = 51.3
    top, left = round((tall - 24) / 2), round((wide - 32) / 2)
    expected = np.asarray(image.resize((wide, tall), Image.Resampling.BILINEAR))[top : top + 24, left : left + 32]
    np.testing.assert_array_equal(pixels, expected)


def test_two_numbers_are_height_and_width(saved):
    pixels = load_pixels(saved(picture()), Preprocess(resize=(28, 50), crop=True), SIZE)
    expected = np.asarray(picture().resize((50, 28), Image.Resampling.BILINEAR))[2:26, 9:41]
    np.testing.assert_array_equal(pixels, expected)


def test_a_crop_larger_than_its_image_is_black_around_it(saved):
    white = Image.new("RGB", (56, 40), (255, 255, 255))
    pixels = load_pixels(saved(white), Preprocess(resize=(20, 28), crop=True), SIZE)
    assert (pixels[2:22, 2:30] == 255).all()
    assert pixels.sum(dtype=int) == 255 * 20 * 28 * 3


def test_a_resize_that_misses_the_input_is_an_error_that_names_both_sizes(saved):
    with pytest.raises(DataError, match=r"resize to 28 gives 28x39 pixels \(height x width\), the model takes 24x32"):
        load_image(saved(picture()), Preprocess(resize=28), SIZE)


def test_the_longer_edge_is_cut_to_whole_pixels():
    assert resized_size((333, 500), 256, (1, 1)) == (256, int(256 * 500 / 333))
    assert resized_size((500, 333), 256, (1, 1)) == (int(256 * 500 / 333), 256)


@pytest.mark.parametrize(("size", "covering"), [((61, 83), (27, 37)), ((100, 40), (90, 36)), ((30, 100), (27, 90))])
def test_a_kept_aspect_covers_both_sides_of_the_resize_and_no_more(size, covering):
    assert resized_size(size, (27, 36), (24, 32), keep_aspect=True) == covering


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photograph_is_turned_upright(saved, orientation):
    upright = np.asarray(picture())
    turned = {1: 0, 3: 2, 6: 1, 8: 3, 2: 0, 4: 2, 5: 3, 7: 1}[orientation]
    stored = np.rot90(upright, turned)
    if orientation in (2, 4, 5, 7):
        stored = np.fliplr(stored)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(Image.fromarray(np.ascontiguousarray(stored)), exif=exif)
    np.testing.assert_array_equal(load_pixels(path, RGB, (40, 56)), upright)


def test_colours_become_gray_and_gray_becomes_colours(saved):
    path = saved(picture())
    np.testing.assert_array_equal(load_pixels(path, GRAY, (40, 56))[..., 0], np.asarray(picture().convert("L")))
    gray = saved(picture().convert("L"), "gray.png")
    pixels = load_pixels(gray, RGB, (40, 56))
    assert pixels.shape == (40, 56, 3)
    assert (pixels == np.asarray(picture().convert("L"))[..., None]).all()


def test_a_palette_gives_its_colours_also_with_transparency(saved):
    palette = picture().quantize(16)
    expected = np.asarray(palette.convert("RGB"))
    np.testing.assert_array_equal(load_pixels(saved(palette), RGB, (40, 56)), expected)
    through = saved(palette, "through.png", transparency=bytes([0, 128] * 8))
    np.testing.assert_array_equal(load_pixels(through, RGB, (40, 56)), expected)


def test_transparency_is_left_out(saved):
    image = picture()
    image.putalpha(Image.fromarray(np.arange(40 * 56, dtype=np.uint16).reshape(40, 56).astype(np.uint8)))
    np.testing.assert_array_equal(load_pixels(saved(image), RGB, (40, 56)), np.asarray(picture()))


def test_print_colours_become_rgb(saved):
    path = saved(Image.new("CMYK", (56, 40), (255, 0, 0, 0)), "image.tif")
    assert (load_pixels(path, RGB, SIZE) == (0, 255, 255)).all()


def test_black_and_white_is_0_and_255(saved):
    bits = picture().convert("1")
    pixels = load_pixels(saved(bits), GRAY, (40, 56))
    np.testing.assert_array_equal(pixels[..., 0], 255 * np.asarray(bits).astype(np.uint8))


@pytest.mark.parametrize("name", ["deep.png", "deep.tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(saved, name):
    values = np.linspace(0, 65535, 40 * 56).reshape(40, 56).astype(np.uint16)
    path = saved(Image.fromarray(values), name)
    for preprocess in (GRAY, RGB):
        pixels = load_pixels(path, preprocess, (40, 56)).astype(float)
        assert np.abs(pixels - values[..., None] / 257).max() <= 1


def test_values_without_a_known_range_are_refused(saved):
    path = saved(Image.fromarray(np.linspace(-1, 9, 12, dtype=np.float32).reshape(3, 4)), "float.tif")
    with pytest.raises(DataError, match=r"float\.tif has values from -1\.0 to 9\.0; expected 8 or 16 bits"):
        load_pixels(path, GRAY, SIZE)


def test_other_numbers_of_channels_take_files_of_as_many_bands_each_for_itself(saved):
    bands = np.random.default_rng(1).integers(0, 256, (40, 56, 4), dtype=np.uint8)
    pixels = load_pixels(saved(Image.fromarray(bands)), Preprocess.for_channels(4), SIZE)
    for index in range(4):
        expected = Image.fromarray(bands[..., index]).resize((32, 24), Image.Resampling.BILINEAR)
        np.testing.assert_array_equal(pixels[..., index], np.asarray(expected))
    with pytest.raises(DataError, match=r"has 3 bands \(RGB\), the model takes 4 channels"):
        load_pixels(saved(picture()), Preprocess.for_channels(4), SIZE)


@pytest.mark.parametrize("suffix", ["png", "jpeg", "bmp", "gif", "tiff", "webp"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, suffix):
    whole = io.BytesIO()
    picture(200, 300).save(whole, suffix)
    for part in (0.02, 0.5, 0.9):
        path = tmp_path / f"cut.{suffix}"
        path.write_bytes(whole.getvalue()[: int(part * len(whole.getvalue()))])
        with pytest.raises(DataError, match=rf"cut\.{suffix} is no image that can be read"):
            load_pixels(path, RGB, SIZE)


def test_what_is_no_image_is_an_error_that_names_it(tmp_path):
    (tmp_path / "notes.png").write_text("not a picture")
    with pytest.raises(DataError, match=r"notes\.png is no image"):
        load_image(tmp_path / "notes.png", RGB, SIZE)
    with pytest.raises(DataError, match=r"there is no image .*absent\.png"):
        load_image(tmp_path / "absent.png", RGB, SIZE)
    with pytest.raises(DataError, match="is no image"):
        load_image(tmp_path, RGB, SIZE)


def test_too_many_pixels_are_refused_before_they_are_unpacked(saved, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(DataError, match="too large an image"):
        load_image(saved(picture()), RGB, SIZE)


def test_without_pillow_the_error_names_an_extra(saved, monkeypatch):
    path = saved(picture())
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingEngineError, match=r"needs Pillow.*\n.*vit-deploy\[onnx\]"):
        load_image(path, RGB, SIZE)
