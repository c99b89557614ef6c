"""Seeded images with the statistics of photographs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SEED = 20201022  # the day arXiv 2010.11929 appeared


def natural_pixels(count: int, height: int, width: int, channels: int, seed: int = SEED) -> NDArray[np.uint8]:
    """Images with the statistics of photographs, each unlike the others.

    Photographs have a power spectrum that falls with the square of the frequency (Field 1987), edges, and
    channels that mostly agree. So each image is 1/f noise, a shading, two shapes with hard edges, a colour cast
    and a contrast and brightness of its own.
    """
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    falloff = 1 / np.maximum(frequency, 1)
    result = np.empty((count, height, width, channels), np.uint8)
    for index in range(count):
        spectrum = np.fft.rfft2(rng.standard_normal((height, width))) * falloff
        scene = np.fft.irfft2(spectrum, s=(height, width))
        scene /= scene.std() + 1e-9
        angle = rng.uniform(0, 2 * np.pi)
        scene += rng.uniform(0.5, 2) * (np.cos(angle) * columns + np.sin(angle) * rows)
        centre, radius = rng.uniform(0.2, 0.8, 2), rng.uniform(0.1, 0.35)
        scene += rng.choice([-1.5, 1.5]) * (np.hypot(rows - centre[0], columns - centre[1]) < radius)
        scene += rng.uniform(-1, 1) * (np.cos(angle) * rows - np.sin(angle) * columns > rng.uniform(-0.5, 0.5))
        tint = rng.uniform(0.6, 1.2, channels)
        cast = rng.uniform(-0.5, 0.5, channels)
        colour = (scene - scene.mean())[..., None] * tint + cast
        brightness, contrast = rng.uniform(70, 185), rng.uniform(25, 70)
        result[index] = np.clip(np.rint(brightness + contrast * colour), 0, 255).astype(np.uint8)
    return result
