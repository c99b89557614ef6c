"""The recording of golden data where an artifact is made: the reference on seeded images, and on hard ones."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from vit_deploy.core import cost
from vit_deploy.core.artifact import GOLDEN
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig, in_words
from vit_deploy.core.outputs import Output, outputs_of_model
from vit_deploy.core.reference import Array, Hook, forward
from vit_deploy.core.reference_outputs import forward_outputs
from vit_deploy.core.summation import ORDERS
from vit_deploy.core.synthetic_images import SEED, natural_pixels
from vit_deploy.verification import activations, adversarial, named_golden, preprocessing
from vit_deploy.verification.activations import (
    IMAGES,
    Activations,
    Sketch,
    by_token,
    detail_sketch,
    moving_norms,
    sketch,
)
from vit_deploy.verification.adversarial import Adversarial, adversarial_images
from vit_deploy.verification.golden import Golden, Sized, sized_names
from vit_deploy.verification.named_golden import FIRST, NUMBERS, Kept, NamedGolden, kept_of, rows_name
from vit_deploy.verification.noise_floor import forward_float32, noise_floor

COUNT = 8
COUNT_LARGE = 2
COUNT_SIZED = 4  # of each further size
LARGE_FLOP = 10e9  # an image; above it the reference takes seconds for each


def golden_count(config: ViTConfig, outputs: Sequence[Output] = ()) -> int:
    """How many images prove a model of this size, with these outputs by name."""
    few = bool(outputs) and COUNT * math.prod(first_output(outputs, config).shape(config)) > NUMBERS
    return COUNT_LARGE if few or _is_large(config) else COUNT


def first_output(outputs: Sequence[Output], config: ViTConfig) -> Output:
    """The one that is read first, as `Artifact.output_name` says."""
    return next((output for output in outputs if output.name == config.output_name), outputs[0])


def _is_large(config: ViTConfig) -> bool:
    return 2 * cost.macs(config) > LARGE_FLOP


def golden_pixels(config: ViTConfig, outputs: Sequence[Output] = ()) -> NDArray[np.uint8]:
    """The seeded images of this config and these outputs as pixels `(n, height, width, channels)`."""
    return natural_pixels(golden_count(config, outputs), *config.image_size, config.channels)


def record(
    checkpoint: Checkpoint, progress: Callable[[str], object] = lambda doing: None, outputs: Sequence[Output] = ()
) -> Golden:
    """Run the reference on the seeded images, in float64, and in float32 in every order that engines sum in.

    Args:
        checkpoint: the model.
        progress: called with what is being done and how much of it is done.
        outputs: the outputs of the files by name; none for the one that the config says.
    """
    images = checkpoint.preprocess.normalize(golden_pixels(checkpoint.config, outputs))
    exact, rounded = Recorder(), [Recorder() for _ in ORDERS]
    large = _is_large(checkpoint.config)
    runs = (1 + len(ORDERS)) * (1 if large else 2)  # of the seeded images, and of those unlike any photograph
    counted = _counted(len(activations.activation_names(checkpoint.config)) * runs, progress)
    recorders = [(counted(recorder.hook), recorder.detail) for recorder in (exact, *rounded)]
    found = answers(checkpoint, images, outputs, recorders, sizes=1)
    hard = None if large else record_adversarial(checkpoint, counted(_nothing), outputs, found.kept)
    picture = natural_pixels(1, *preprocessing.SIZE, 3, seed=SEED + 1)[0]
    file = preprocessing.record_photo(checkpoint.preprocess, checkpoint.config.image_size, picture)
    seen = exact.against(rounded, checkpoint)
    return dataclasses.replace(found, activations=seen, adversarial=hard, photo=file)


def answers(
    checkpoint: Checkpoint,
    images: Array,
    outputs: Sequence[Output] = (),
    hooks: Sequence[tuple[Hook | None, Hook | None]] = ((None, None),) * (1 + len(ORDERS)),
    *,
    sizes: int = 0,
) -> Golden:
    """What the reference gives for images, its noise floor, and both of every further output.

    Args:
        checkpoint: the model.
        images: `(n, height, width, channels)`, normalised.
        outputs: the outputs by name; none for the one that the config says.
        hooks: `hook` and `detail` of `reference.forward`, first in float64, then in float32 in each order.
        sizes: of images, among how many a file shares the room for them; 0 where no file keeps them, and of the output
            that is read first there is all.
    """
    if not outputs:
        exact = forward(checkpoint, images, hook=hooks[0][0], detail=hooks[0][1])
        return Golden(images, exact, float(noise_floor(exact, forward_float32(checkpoint, images, hooks[1:]))))
    config = checkpoint.config
    first = first_output(outputs, config)
    others = [output for output in outputs if output is not first]
    kept = {output.name: kept_of(output, config, len(images), len(others) * max(1, sizes)) for output in others}
    whole = sizes == 0 or len(images) * math.prod(first.shape(config)) * sizes <= NUMBERS
    part = None if whole else dataclasses.replace(kept_of(first, config, len(images), sizes), images=len(images))

    def run(dtype: DTypeLike, hook: Hook | None, detail: Hook | None) -> dict[str, Array]:
        found = forward_outputs(checkpoint, images, outputs, dtype, hook=hook, detail=detail)
        found = {name: kept[name].of(values, name) if name in kept else values for name, values in found.items()}
        return found if part is None else {**found, first.name: part.of(found[first.name], FIRST)}

    exactly = run(np.float64, *hooks[0])
    rounded = []
    for order, (hook, detail) in zip(ORDERS, hooks[1:], strict=True):
        with order():
            rounded.append(run(np.float32, hook, detail))
    floors = {name: float(noise_floor(exactly[name], [one[name] for one in rounded])) for name in (first.name, *kept)}
    named = {name: NamedGolden(which, exactly[name], floors[name]) for name, which in kept.items()}
    return Golden(images, exactly[first.name], floors[first.name], named=named, kept=part)


def record_sizes(
    resized: Sequence[Checkpoint],
    progress: Callable[[str], object] = lambda doing: None,
    names: Sequence[str] = (),
) -> tuple[Sized, ...]:
    """What a model, resized to several sizes, answers to a few seeded images of each.

    Args:
        resized: the model, once for each size.
        progress: called with what is being done.
        names: of the outputs of the files; none for the one that the config says.
    """
    found = []
    for checkpoint in resized:
        size = checkpoint.config.image_size
        progress(f"computing the reference for images of {in_words(size)}")
        images = checkpoint.preprocess.normalize(sized_pixels(checkpoint.config, names, len(resized)))
        outputs = outputs_of_model(names, checkpoint.config)
        found.append(Sized.of(answers(checkpoint, images, outputs, sizes=len(resized))))
    return tuple(found)


def sized_pixels(config: ViTConfig, names: Sequence[str] = (), sizes: int = 1) -> NDArray[np.uint8]:
    """The seeded images of one more size, that of the config, as pixels `(n, height, width, channels)`.

    Args:
        config: of the model at that size.
        names: of the outputs of the files; none for the one that the config says.
        sizes: how many further sizes there are.
    """
    outputs = outputs_of_model(names, config)
    room = NUMBERS // sizes
    few = bool(outputs) and COUNT_SIZED * math.prod(first_output(outputs, config).shape(config)) > room
    return natural_pixels(COUNT_LARGE if few or _is_large(config) else COUNT_SIZED, *config.image_size, config.channels)


def _counted(steps: int, progress: Callable[[str], object]) -> Callable[[Hook], Hook]:
    """Hooks that also report how many of all steps of the reference are done."""
    done = itertools.count(1)

    def counted(hook: Hook) -> Hook:
        def reporting(name: str, values: Array) -> None:
            hook(name, values)
            progress(f"computing the reference: {next(done) / steps:.0%}")

        return reporting

    return counted


def _nothing(name: str, values: Array) -> None:
    """A hook that keeps nothing."""


def record_adversarial(
    checkpoint: Checkpoint, hook: Hook | None = None, outputs: Sequence[Output] = (), kept: Kept | None = None
) -> Adversarial:
    """What the reference answers to each of the adversarial images.

    Args:
        checkpoint: the model.
        hook: called with every activation of each run of the reference.
        outputs: the outputs by name, of which the first is recorded; none for the one that the config says.
        kept: which part of it; None for all.
    """
    config = checkpoint.config
    images = adversarial_images((*config.image_size, config.channels), checkpoint.preprocess)
    stacked = np.stack(list(images.values()))
    first = [first_output(outputs, config)] if outputs else []
    part = None if kept is None else dataclasses.replace(kept, images=len(stacked))

    def run(dtype: DTypeLike) -> Array:
        values = list(forward_outputs(checkpoint, stacked, first, dtype, hook=hook).values())[-1]
        return values if part is None else part.of(values, FIRST)

    exact = run(np.float64)
    rounded = []
    for order in ORDERS:
        with order():
            rounded.append(run(np.float32))
    floors = noise_floor(exact, rounded, axis=tuple(range(1, exact.ndim)))
    return Adversarial(tuple(images), stacked, exact, floors)


def write_golden(golden: Golden, directory: Path) -> None:
    """Write `golden.npz` into an artifact."""
    arrays: dict[str, Any] = {
        "images": golden.images,
        "outputs": golden.outputs,
        "noise_floor": np.float64(golden.noise_floor),
    }
    if golden.activations is not None:
        arrays |= activations.to_arrays(golden.activations)
    if golden.adversarial is not None:
        arrays |= adversarial.to_arrays(golden.adversarial)
    if golden.photo is not None:
        arrays |= preprocessing.to_arrays(golden.photo)
    for sized in golden.sizes:
        values = (sized.images, sized.outputs, np.float64(sized.noise_floor))
        arrays |= dict(zip(sized_names(sized.pixels), values, strict=True))
        arrays |= _parts(sized, f"{in_words(sized.pixels)}.")
    arrays |= _parts(golden)
    np.savez_compressed(directory / GOLDEN, **arrays)


def _parts(recorded: Golden | Sized, prefix: str = "") -> dict[str, Any]:
    """The arrays of outputs by name, and which part of the first is kept."""
    arrays: dict[str, Any] = named_golden.to_arrays(recorded.named, prefix) if recorded.named else {}
    if recorded.kept is not None and recorded.kept.rows is not None:
        arrays[f"{prefix}{rows_name()}"] = recorded.kept.rows
    return arrays


@dataclass
class Recorder:
    """Collects sketches while the reference runs; its methods are the hooks of `reference.forward`."""

    stream: dict[str, Array] = field(default_factory=dict)
    details: dict[str, Array] = field(default_factory=dict)

    def hook(self, name: str, values: Array) -> None:
        """Keep the sketch of an activation."""
        self.stream[name] = sketch(values[:IMAGES])

    def detail(self, name: str, values: Array) -> None:
        """Keep the sketch of what lies between two of these."""
        self.details[name] = detail_sketch(by_token(values[:IMAGES]))

    def against(self, rounded: Sequence[Recorder], checkpoint: Checkpoint) -> Activations:
        """What was recorded in float64, with its largest distance from recordings of the same model in float32."""
        stream = {name: _floored(exact, [one.stream[name] for one in rounded]) for name, exact in self.stream.items()}
        details = {
            name: _floored(exact, [one.details[name] for one in rounded]) for name, exact in self.details.items()
        }
        weights = {
            name: checkpoint.weights.get(f"{norm}.bias") for name, norm in moving_norms(checkpoint.config).items()
        }
        return Activations(stream, details, {name: bias for name, bias in weights.items() if bias is not None})


def _floored(exact: Array, rounded: Sequence[Array]) -> Sketch:
    return Sketch(exact, float(noise_floor(exact, rounded)))
