"""What torchvision's evaluation transforms do to a Pillow image, where torchvision is not installed.

Written after torchvision's documentation of `Resize`, `CenterCrop`, `ToTensor` and `Normalize` for Pillow images: a
single size is the shorter edge, the longer one is cut to whole pixels; the crop starts at the rounded half of what is
left over, and an image smaller than its crop is padded with black; bytes are divided by 255; the mean is subtracted and
the result divided by the standard deviation. The resampling itself is Pillow's own `Image.resize` in both.
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from PIL import Image, ImageOps

from tests import torchvision_stand_in

FILTERS = {
    name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
}


def get_dimensions(image):
    return [len(image.getbands()), image.height, image.width]


def resize(image, size, interpolation):
    sides = [size] if isinstance(size, int) else list(size)
    if len(sides) == 1:
        shorter, longer = sorted((image.height, image.width))
        edges = (sides[0], int(sides[0] * longer / shorter))
        sides = edges if image.height <= image.width else edges[::-1]
    if (image.height, image.width) == tuple(sides):
        return image
    return image.resize((sides[1], sides[0]), FILTERS[interpolation.value])


def center_crop(image, size):
    height, width = (size, size) if isinstance(size, int) else size
    if image.height < height or image.width < width:
        across, down = max(width - image.width, 0), max(height - image.height, 0)
        image = ImageOps.expand(image, (across // 2, down // 2, (across + 1) // 2, (down + 1) // 2), 0)
    top, left = round((image.height - height) / 2.0), round((image.width - width) / 2.0)
    return image.crop((left, top, left + width, top + height))


def to_tensor(image):
    return torch.from_numpy(np.array(image).transpose(2, 0, 1)).to(torch.float32).div(255)


class Compose:
    def __init__(self, transforms):
        self.transforms = transforms

    def __call__(self, image):
        for transform in self.transforms:
            image = transform(image)
        return image


class Resize:
    def __init__(self, size, interpolation):
        self.size, self.interpolation = size, interpolation

    def __call__(self, image):
        return resize(image, self.size, self.interpolation)


class CenterCrop:
    def __init__(self, size):
        self.size = size

    def __call__(self, image):
        return center_crop(image, self.size)


class ToTensor:
    def __call__(self, image):
        return to_tensor(image)


class Normalize:
    def __init__(self, mean, std):
        self.mean, self.std = (
            torch.as_tensor(constants, dtype=torch.float32).view(-1, 1, 1) for constants in (mean, std)
        )

    def __call__(self, tensor):
        return (tensor - self.mean) / self.std


def install() -> None:
    """Put these into the stand-in for torchvision, unless torchvision itself is there; before timm.data is imported."""
    torchvision_stand_in.install()
    transforms = sys.modules["torchvision.transforms"]
    if getattr(sys.modules["torchvision"], "__version__", "") != "0":
        return
    for each in (Compose, Resize, CenterCrop, ToTensor, Normalize):
        setattr(transforms, each.__name__, each)
    transforms.InterpolationMode = torchvision_stand_in.InterpolationMode
    functional = sys.modules["torchvision.transforms.functional"]
    for function in (get_dimensions, resize, center_crop, to_tensor):
        setattr(functional, function.__name__, function)
    functional.InterpolationMode = torchvision_stand_in.InterpolationMode
