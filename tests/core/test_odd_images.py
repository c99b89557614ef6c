"""Image files that few programs write are read as what they show, or refused by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_deploy.core.images import images_in, load_pixels
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.errors import DataError

SIZE = (24, 32)
RGB = Preprocess.for_channels(3)
GRAY, GRAY_ALPHA, COLOUR, COLOUR_ALPHA = 0, 4, 2, 6  # colour types of a PNG


def write_png(path: Path, values: np.ndarray, kind: int) -> Path:
    """A PNG of 16 bits a channel, `(height, width, channels)`, by its specification; Pillow writes none in colour."""
    height, width, _ = values.shape

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize(("kind", "channels"), [(GRAY, 1), (GRAY_ALPHA, 2), (COLOUR, 3), (COLOUR_ALPHA, 4)])
def test_sixteen_bits_a_channel_are_scaled_with_and_without_transparency(
    tmp_path: Path, kind: int, channels: int
) -> None:
    values = np.random.default_rng(0).integers(0, 1 << 16, (*SIZE, channels))
    path = write_png(tmp_path / "deep.png", values, kind)
    found = load_pixels(path, RGB, SIZE).astype(float)
    seen = values[..., :1] if channels < 3 else values[..., :3]
    assert np.abs(found - seen / 257).max() <= 1


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "I;16", "F"]
)
def test_every_mode_that_a_file_has_is_read_or_refused_by_name(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.tif"
    image = Image.new(mode, (40, 30))
    image.save(path)
    try:
        assert load_pixels(path, RGB, SIZE).shape == (*SIZE, 3)
    except DataError as error:
        assert mode in ("LAB", "F")
        assert "image.tif" in error.message


def test_colours_that_are_not_converted_are_refused(tmp_path: Path) -> None:
    Image.new("LAB", (40, 30)).save(tmp_path / "lab.tif")
    with pytest.raises(DataError, match=r"lab\.tif is an image of mode LAB") as caught:
        load_pixels(tmp_path / "lab.tif", Preprocess.for_channels(1), SIZE)
    assert caught.value.fix == "save it as L"


def test_print_colours_of_a_photograph_are_those_that_are_seen(tmp_path: Path) -> None:
    colours = Image.new("RGB", (40, 30), (200, 60, 20))
    colours.convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    found = load_pixels(tmp_path / "print.jpg", RGB, SIZE).reshape(-1, 3)
    assert np.abs(found.astype(int) - (200, 60, 20)).max() <= 4


@pytest.mark.parametrize("size", [(1, 90_000), (90_000, 1)])
def test_an_image_too_thin_to_be_resized_is_refused_before_memory_is_taken(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    Image.new("RGB", size).save(tmp_path / "thin.png")
    with pytest.raises(DataError, match=r"thin\.png has (1x90000|90000x1) pixels .*would make"):
        load_pixels(tmp_path / "thin.png", Preprocess(resize=256, crop=True), SIZE)
    assert load_pixels(tmp_path / "thin.png", RGB, SIZE).shape == (*SIZE, 3)


@pytest.mark.parametrize("content", [b"", b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"Exif\0\0" + b"\xff" * 40])
def test_a_damaged_orientation_is_no_traceback(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "photo.jpg"
    Image.new("RGB", (40, 30)).save(path, exif=content)
    try:
        assert load_pixels(path, RGB, SIZE).shape == (*SIZE, 3)
    except DataError as error:
        assert "photo.jpg" in error.message


def test_files_that_are_hidden_are_none_of_a_folders_images(tmp_path: Path) -> None:
    for name in ("b.JPG", "a/c.png", "._b.jpg", "a/._c.png", "notes.txt", "d.png/e.avif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [image.relative_to(tmp_path).as_posix() for image in images_in(tmp_path)] == [
        "a/c.png",
        "b.JPG",
        "d.png/e.avif",
    ]
