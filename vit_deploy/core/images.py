"""Image files as the normalised input of a model.

Files are read with Pillow, which is imported only when one is read. What is done to the pixels is what torchvision,
timm and Hugging Face do, so that a recorded preprocessing means the same here: transparency is left out rather than
blended, the longer edge is cut to whole pixels, the middle of an odd remainder is rounded to even, and a crop that is
larger than its image is black around it.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.preprocess import Interpolation, Preprocess
from vit_deploy.errors import DataError, MissingEngineError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
MODES = {1: "L", 3: "RGB"}  # of the model's channels; other numbers of channels take files of as many bands
WHITE_16 = 0xFFFF
MOST_PIXELS = 1 << 28  # of an image that is resized before its middle is cut out; 800 MB in colour

Size = tuple[int, int]


def images_in(folder: Path) -> list[Path]:
    """Image files in a folder and its subfolders, in the order of their names; none that is hidden.

    macOS leaves hidden files with the names of images beside those that it copies.
    """
    found = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def load_image(path: Path, preprocess: Preprocess, image_size: Size) -> NDArray[np.float32]:
    """The model's input for one file: `(height, width, channels)`, normalised.

    Args:
        path: the path of an image in any format that Pillow reads; of several frames the first counts.
        preprocess: resize, crop, mean and standard deviation; says how many channels there are.
        image_size: (height, width) that the model takes.

    Raises:
        DataError: as `load_pixels`.
        MissingEngineError: Pillow is not installed.
    """
    return preprocess.normalize(load_pixels(path, preprocess, image_size))


def load_pixels(path: Path, preprocess: Preprocess, image_size: Size) -> NDArray[np.uint8]:
    """One file as pixels `(height, width, channels)`, 0..255: upright, resized and cropped, not yet normalised.

    Raises:
        DataError: no file, no image, a broken one, one of other bands than the model's channels, or a recorded
            resize that leads to another size than the model's.
        MissingEngineError: Pillow is not installed.
    """
    return _pixels(path, path, preprocess, image_size)


def decode_pixels(content: bytes, name: str, preprocess: Preprocess, image_size: Size) -> NDArray[np.uint8]:
    """The same of a file whose content is at hand.

    Args:
        content: of the file.
        name: what errors call it.
        preprocess: resize, crop, mean and standard deviation.
        image_size: (height, width) that the model takes.

    Raises:
        DataError, MissingEngineError: as `load_pixels`.
    """
    return _pixels(_Content(content, name), Path(name), preprocess, image_size)


class _Content(io.BytesIO):
    """A file in memory that Pillow's messages call by its name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self._name = name

    def __repr__(self) -> str:
        return repr(self._name)


def _pixels(file: Path | _Content, path: Path, preprocess: Preprocess, image_size: Size) -> NDArray[np.uint8]:
    bands = _bands(_read(file, path), preprocess.channels, path)
    whole = preprocess.input_size or image_size
    _check_shape(bands[0], preprocess, whole, path)
    resized = [_resized(band, preprocess, whole) for band in bands]
    found = (resized[0].height, resized[0].width)
    if found != whole:
        raise DataError(
            f"{path}: the recorded resize to {preprocess.resize} gives {found[0]}x{found[1]} pixels (height x width), "
            f"the model takes {whole[0]}x{whole[1]}",
            fix="record a resize to the model's size, or a crop, with the model",
        )
    pixels = [np.asarray(band, np.uint8).reshape(*whole, -1) for band in resized]
    return np.concatenate(pixels, axis=-1)[: image_size[0], : image_size[1]]


def resized_size(size: Size, resize: int | Size | None, image_size: Size, *, keep_aspect: bool = False) -> Size:
    """The (height, width) that an image of `size` is resized to, before any crop."""
    if resize is None:
        return image_size
    if isinstance(resize, tuple):
        if not keep_aspect:
            return resize
        ratio = min(side / wanted for side, wanted in zip(size, resize, strict=True))
        return (round(size[0] / ratio), round(size[1] / ratio))
    shorter = min(size)
    return (resize * size[0] // shorter, resize * size[1] // shorter)


def crop_start(size: int, wanted: int) -> int:
    """Where the middle `wanted` pixels of an edge begin; negative where the edge is shorter."""
    return round((size - wanted) / 2)


def _read(file: Path | _Content, path: Path) -> Image.Image:
    pil = _pillow()
    # Pillow's readers say that a file is broken in all these ways.
    broken = (OSError, SyntaxError, ValueError, EOFError, IndexError, struct.error, zlib.error)
    try:
        with pil.open(file) as image:
            image.load()
            return _upright(image)
    except FileNotFoundError as error:
        raise DataError(f"there is no image {path}", fix="check the path") from error
    except pil.DecompressionBombError as error:
        raise DataError(f"{path} is too large an image: {error}", fix="scale it down first") from error
    except broken as error:
        raise DataError(f"{path} is no image that can be read: {error}", fix="remove it or get it again") from error


def _upright(image: Image.Image) -> Image.Image:
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _bands(image: Image.Image, channels: int, path: Path) -> list[Image.Image]:
    """The image in the model's channels: one picture where Pillow has a mode for them, else one for each band."""
    if channels in MODES:
        try:
            return [_eight_bits(image, path).convert(MODES[channels])]
        except ValueError as error:  # colours that Pillow holds and does not convert, such as LAB
            raise DataError(
                f"{path} is an image of mode {image.mode}: {error}", fix=f"save it as {MODES[channels]}"
            ) from error
    if len(image.getbands()) != channels:
        raise DataError(
            f"{path} has {len(image.getbands())} bands ({image.mode}), the model takes {channels} channels",
            fix=f"give images of {channels} bands",
        )
    # Apart, since Pillow would blend the last of four with the others when it resizes them together.
    return list(image.split())


def _eight_bits(image: Image.Image, path: Path) -> Image.Image:
    """An image of one band of more than 8 bits by its high byte, which Pillow would clip; palettes with their colours.

    Colour images of 16 bits are read by their high byte by Pillow itself.
    """
    if image.mode == "P":
        return image.convert("RGBA")
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > WHITE_16:
        raise DataError(
            f"{path} has values from {values.min()} to {values.max()}; expected 8 or 16 bits a channel",
            fix="save it as PNG, JPEG or TIFF of 8 or 16 bits",
        )
    high: Image.Image = _pillow().fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))
    return high


def _check_shape(image: Image.Image, preprocess: Preprocess, image_size: Size, path: Path) -> None:
    """Refuse an image so long and thin that its shorter edge cannot be resized to what is recorded."""
    size = (image.height, image.width)
    height, width = resized_size(size, preprocess.resize, image_size, keep_aspect=preprocess.keep_aspect)
    if height * width > MOST_PIXELS:
        raise DataError(
            f"{path} has {size[0]}x{size[1]} pixels (height x width), and the recorded resize to {preprocess.resize} "
            f"would make {height}x{width} of them",
            fix="cut out what is to be seen first",
        )


def _resized(image: Image.Image, preprocess: Preprocess, image_size: Size) -> Image.Image:
    found = (image.height, image.width)
    height, width = resized_size(found, preprocess.resize, image_size, keep_aspect=preprocess.keep_aspect)
    if (image.height, image.width) != (height, width):
        image = image.resize((width, height), _filter(preprocess.interpolation))
    if preprocess.crop:
        top, left = crop_start(height, image_size[0]), crop_start(width, image_size[1])
        image = image.crop((left, top, left + image_size[1], top + image_size[0]))
    return image


def _filter(interpolation: Interpolation) -> Any:
    return _pillow().Resampling[interpolation.name]


def _pillow() -> Any:
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingEngineError(
            "reading image files needs Pillow, which is not installed", fix='pip install "vit-deploy[onnx]"'
        ) from error
    return Image


def channels_first(shape: Sequence[int], expected: Sequence[int]) -> bool:
    """Whether an image's shape is the expected `(height, width, channels)` with its channels in front."""
    height, width, channels = expected
    return tuple(shape) == (channels, height, width) and tuple(shape) != tuple(expected)
