"""The recording of golden data where an artifact is made: the reference on seeded images, and on hard ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core import cost
from vit_deploy.core.artifact import GOLDEN
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.image_sizes import in_words
from vit_deploy.core.reference import Array, Tap, forward
from vit_deploy.core.summation import ORDERS
from vit_deploy.core.synthetic_images import SEED, natural_pixels
from vit_deploy.verification import activations, adversarial, preprocessing
from vit_deploy.verification.activations import IMAGES, Sketch, Taps, by_token, detail_sketch, moving_norms, sketch
from vit_deploy.verification.adversarial import Adversarial, adversarial_images
from vit_deploy.verification.golden import Golden, Sized, sized_names
from vit_deploy.verification.noise_floor import forward_float32, noise_floor

COUNT = 8
COUNT_LARGE = 2
COUNT_SIZED = 4  # of each further size
LARGE_FLOP = 10e9  # an image; above it the reference takes seconds for each


def golden_count(config: ViTConfig) -> int:
    """How many images prove a model of this size."""
    return COUNT_LARGE if _is_large(config) else COUNT


def _is_large(config: ViTConfig) -> bool:
    return 2 * cost.macs(config) > LARGE_FLOP


def golden_pixels(config: ViTConfig) -> NDArray[np.uint8]:
    """The seeded images of this config as pixels `(n, height, width, channels)`."""
    return natural_pixels(golden_count(config), *config.image_size, config.channels)


def record(checkpoint: Checkpoint, progress: Callable[[str], object] = lambda doing: None) -> Golden:
    """Run the reference on the seeded images, in float64, and in float32 in every order that engines sum in.

    Args:
        checkpoint: the model.
        progress: called with what is being done and how much of it is done.
    """
    images = checkpoint.preprocess.normalize(golden_pixels(checkpoint.config))
    taps, rounded_taps = Recorder(), [Recorder() for _ in ORDERS]
    large = _is_large(checkpoint.config)
    runs = (1 + len(ORDERS)) * (1 if large else 2)  # of the seeded images, and of those unlike any photograph
    counted = _counted(len(activations.tap_names(checkpoint.config)) * runs, progress)
    outputs = forward(checkpoint, images, tap=counted(taps.tap), detail=taps.detail)
    recorders = [(counted(recorder.tap), recorder.detail) for recorder in rounded_taps]
    rounded = forward_float32(checkpoint, images, recorders)
    floor = float(noise_floor(outputs, rounded))
    hard = None if large else record_adversarial(checkpoint, counted(_nothing))
    picture = natural_pixels(1, *preprocessing.SIZE, 3, seed=SEED + 1)[0]
    file = preprocessing.record_photo(checkpoint.preprocess, checkpoint.config.image_size, picture)
    return Golden(images, outputs, floor, taps.against(rounded_taps, checkpoint), hard, file)


def record_sizes(
    resized: Sequence[Checkpoint], progress: Callable[[str], object] = lambda doing: None
) -> tuple[Sized, ...]:
    """What a model, resized to several sizes, answers to a few seeded images of each.

    Args:
        resized: the model, once for each size.
        progress: called with what is being done.
    """
    found = []
    for checkpoint in resized:
        size = checkpoint.config.image_size
        progress(f"computing the reference for images of {in_words(size)}")
        images = checkpoint.preprocess.normalize(sized_pixels(checkpoint.config))
        outputs = forward(checkpoint, images)
        floor = float(noise_floor(outputs, forward_float32(checkpoint, images)))
        found.append(Sized(size, images, outputs, floor))
    return tuple(found)


def sized_pixels(config: ViTConfig) -> NDArray[np.uint8]:
    """The seeded images of one more size, that of the config, as pixels `(n, height, width, channels)`."""
    return natural_pixels(COUNT_LARGE if _is_large(config) else COUNT_SIZED, *config.image_size, config.channels)


def _counted(steps: int, progress: Callable[[str], object]) -> Callable[[Tap], Tap]:
    """Taps that also report how many of all steps of the reference are done."""
    done = itertools.count(1)

    def counted(tap: Tap) -> Tap:
        def reporting(name: str, values: Array) -> None:
            tap(name, values)
            progress(f"computing the reference: {next(done) / steps:.0%}")

        return reporting

    return counted


def _nothing(name: str, values: Array) -> None:
    """A tap that keeps nothing."""


def record_adversarial(checkpoint: Checkpoint, tap: Tap | None = None) -> Adversarial:
    """What the reference answers to each of the adversarial images.

    Args:
        checkpoint: the model.
        tap: called with every tap of each run of the reference.
    """
    config = checkpoint.config
    images = adversarial_images((*config.image_size, config.channels), checkpoint.preprocess)
    stacked = np.stack(list(images.values()))
    outputs = forward(checkpoint, stacked, tap=tap)
    rounded = forward_float32(checkpoint, stacked, [(tap, None)] * len(ORDERS))
    floors = noise_floor(outputs, rounded, axis=tuple(range(1, outputs.ndim)))
    return Adversarial(tuple(images), stacked, outputs, floors)


def write_golden(golden: Golden, directory: Path) -> None:
    """Write `golden.npz` into an artifact."""
    arrays: dict[str, Any] = {
        "images": golden.images,
        "outputs": golden.outputs,
        "noise_floor": np.float64(golden.noise_floor),
    }
    if golden.taps is not None:
        arrays |= activations.to_arrays(golden.taps)
    if golden.adversarial is not None:
        arrays |= adversarial.to_arrays(golden.adversarial)
    if golden.photo is not None:
        arrays |= preprocessing.to_arrays(golden.photo)
    for sized in golden.sizes:
        values = (sized.images, sized.outputs, np.float64(sized.noise_floor))
        arrays |= dict(zip(sized_names(sized.pixels), values, strict=True))
    np.savez_compressed(directory / GOLDEN, **arrays)


@dataclass
class Recorder:
    """Collects sketches while the reference runs; its methods are the taps of `reference.forward`."""

    stream: dict[str, Array] = field(default_factory=dict)
    details: dict[str, Array] = field(default_factory=dict)

    def tap(self, name: str, values: Array) -> None:
        """Keep a tap's sketch."""
        self.stream[name] = sketch(values[:IMAGES])

    def detail(self, name: str, values: Array) -> None:
        """Keep the sketch of what lies between two taps."""
        self.details[name] = detail_sketch(by_token(values[:IMAGES]))

    def against(self, rounded: Sequence[Recorder], checkpoint: Checkpoint) -> Taps:
        """What was recorded in float64, with its largest distance from recordings of the same model in float32."""
        stream = {name: _floored(exact, [one.stream[name] for one in rounded]) for name, exact in self.stream.items()}
        details = {
            name: _floored(exact, [one.details[name] for one in rounded]) for name, exact in self.details.items()
        }
        weights = {
            name: checkpoint.weights.get(f"{norm}.bias") for name, norm in moving_norms(checkpoint.config).items()
        }
        return Taps(stream, details, {name: bias for name, bias in weights.items() if bias is not None})


def _floored(exact: Array, rounded: Sequence[Array]) -> Sketch:
    return Sketch(exact, float(noise_floor(exact, rounded)))
