"""Synthetic images have the statistics of photographs, and each is unlike the others."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vit_deploy.core.synthetic_images import natural_pixels


@pytest.mark.parametrize("size", [(24, 32, 3), (8, 4, 1), (3, 5, 5), (1, 1, 3), (160, 224, 3)])
def test_there_are_images_of_any_size_each_unlike_the_others(size):
    pixels = natural_pixels(8, *size)
    assert pixels.shape == (8, *size) and pixels.dtype == np.uint8
    assert np.array_equal(pixels, natural_pixels(8, *size))
    assert not np.array_equal(pixels, natural_pixels(8, *size, seed=1))
    flat = pixels.reshape(8, -1).astype(int)
    for one in range(8):
        for other in range(one):
            assert np.abs(flat[one] - flat[other]).mean() > 5


def test_the_images_are_spread_over_the_range_of_a_pixel():
    pixels = natural_pixels(8, 96, 128, 3)
    assert pixels.min() < 10 and pixels.max() > 245
    assert pixels.reshape(8, -1).std(axis=1).min() > 15
    means = pixels.reshape(8, -1).mean(axis=1)
    assert means.max() - means.min() > 40
    clipped = ((pixels == 0) | (pixels == 255)).mean()
    assert clipped < 0.2


def test_the_images_power_falls_with_the_frequency_like_a_photographs():
    height, width = 128, 192
    for image in natural_pixels(8, height, width, 3):
        window = np.hanning(height)[:, None] * np.hanning(width)
        gray = image.mean(axis=-1) - image.mean()
        power = np.abs(np.fft.fft2(gray * window)) ** 2
        radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
        bands = [(0.02, 0.04), (0.04, 0.08), (0.08, 0.16), (0.16, 0.32)]
        energy = [power[(radius >= low) & (radius < high)].mean() for low, high in bands]
        assert all(low > 1.5 * high for low, high in itertools.pairwise(energy))
        slope = np.polyfit(np.log([low for low, _ in bands]), np.log(energy), 1)[0]
        assert -3.5 < slope < -1.2  # noise has 0, Field's photographs about -2
        neighbours = np.corrcoef(gray[:, 1:].ravel(), gray[:, :-1].ravel())[0, 1]
        assert neighbours > 0.7


def test_the_channels_of_an_image_mostly_agree_and_are_not_equal():
    for image in natural_pixels(8, 96, 128, 3):
        flat = image.reshape(-1, 3).astype(float)
        assert np.corrcoef(flat.T).min() > 0.5
        assert np.abs(flat[:, 0] - flat[:, 1]).mean() > 0.5
