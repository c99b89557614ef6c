"""Golden data: inputs and reference outputs that travel in an artifact, so that any device can prove it.

They are read here, on any machine; `recording` makes them.
"""

from __future__ import annotations

import dataclasses
import math
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import GOLDEN, Artifact
from vit_deploy.core.config import Size, in_words
from vit_deploy.errors import ArtifactError
from vit_deploy.verification import adversarial, preprocessing
from vit_deploy.verification.adversarial import Adversarial
from vit_deploy.verification.preprocessing import Photo

if TYPE_CHECKING:  # few artifacts have outputs by name, and nothing is looked into where files are only run
    from vit_deploy.verification.activations import Activations
    from vit_deploy.verification.named_golden import Kept, NamedGolden


@dataclass(frozen=True)
class Sized:
    """Recorded inputs of one more size, and what the reference resized to it answers.

    Args:
        pixels: (height, width) of the images.
        images: `(n, height, width, channels)`, as those of `Golden`.
        outputs: the outputs of the float64 reference, `(n, …)`.
        noise_floor: the noise floor at this size.
        named: as of `Golden`, and
        kept: likewise.
    """

    pixels: Size
    images: NDArray[Any]
    outputs: NDArray[np.float64]
    noise_floor: float
    named: Mapping[str, NamedGolden] = field(default_factory=dict)
    kept: Kept | None = None

    @classmethod
    def of(cls, golden: Golden) -> Sized:
        """What is recorded of images of one size alone."""
        pixels = golden.images.shape[1], golden.images.shape[2]
        return cls(pixels, golden.images, golden.outputs, golden.noise_floor, golden.named, golden.kept)

    @property
    def golden(self) -> Golden:
        """What is recorded of this size alone."""
        return Golden(self.images, self.outputs, self.noise_floor, named=self.named, kept=self.kept)


@dataclass(frozen=True)
class Golden:
    """Recorded inputs and what the float64 reference answers.

    Args:
        images: `(n, height, width, channels)`, normalised float32, or uint8 pixels for a model with
            preprocessing inside.
        outputs: the outputs of the float64 reference, `(n, …)`.
        noise_floor: what rounding to float32 alone does to the outputs; see `noise_floor.noise_floor`.
        activations: the reference's activations on the first images; None in artifacts of versions that recorded none.
        adversarial: inputs that are like no photograph, with the reference's answers; None likewise,
            and for large models.
        photo: an image file with what preprocessing makes of it; None likewise, and without Pillow.
        sizes: inputs of the other sizes that the model is for, or was proven at.
        named: what is recorded of the file's further outputs, by name.
        kept: which part of each output `outputs` are, where it is too large; None for all of it.
    """

    images: NDArray[Any]
    outputs: NDArray[np.float64]
    noise_floor: float
    activations: Activations | None = None
    adversarial: Adversarial | None = None
    photo: Photo | None = None
    sizes: tuple[Sized, ...] = ()
    named: Mapping[str, NamedGolden] = field(default_factory=dict)
    kept: Kept | None = None

    @property
    def spread(self) -> float:
        """Largest distance of an output from the mean over the images; zero if the model ignores its input."""
        return float(np.abs(self.outputs - self.outputs.mean(axis=0)).max())

    def as_pixels(self, pixels: NDArray[np.uint8]) -> Golden:
        """The same outputs for a model that takes the pixels themselves."""
        hard = self.adversarial.as_pixels() if self.adversarial else None
        return dataclasses.replace(self, images=pixels, adversarial=hard)

    def part_of(self, outputs: NDArray[Any]) -> NDArray[Any]:
        """The part of outputs `(n, …)` that is recorded; themselves where all is, or their shape another."""
        if self.kept is None or math.prod(outputs.shape[1:-1]) != self.kept.of_rows:
            return outputs
        return dataclasses.replace(self.kept, images=len(outputs)).of(outputs)

    def at(self, image_size: Size) -> Golden:
        """What is recorded for another size alone; itself where none is of this one."""
        found = next((sized for sized in self.sizes if sized.pixels == image_size), None)
        return self if found is None else found.golden


def read_golden(artifact: Artifact, *, inside: bool = True) -> Golden:
    """The golden data of an artifact.

    Args:
        artifact: the artifact.
        inside: whether the reference's activations are read as well, which only `locate` compares.

    Raises:
        ArtifactError: they are missing, damaged or of another shape than the model.
    """
    if artifact.sizes and artifact.config.image_size != artifact.sizes[0].pixels:  # taken for another of its sizes
        return read_golden(artifact.at(artifact.sizes[0].pixels), inside=inside).at(artifact.config.image_size)
    path = artifact.directory / GOLDEN
    again = "export the model again"
    if not path.is_file():
        raise ArtifactError(f"{artifact.directory} has no {GOLDEN}", fix=again)
    try:
        with zipfile.ZipFile(path) as archive:
            images, outputs, floor = (_member(archive, name) for name in ("images", "outputs", "noise_floor"))
            named, kept = _named(archive, artifact, images, outputs)
            arrays = {part: _members(archive, part.ARRAYS) for part in (adversarial, preprocessing)}
            sketches = _sketches(archive) if inside else {}
            others = [size.pixels for size in artifact.sizes if size.pixels != artifact.config.image_size]
            sized = [_sized(archive, artifact.at(size)) for size in others]
    except (*ZIP_ERRORS, ValueError, KeyError, OSError, EOFError, MemoryError) as error:
        raise ArtifactError(f"{path} is damaged: {error}", fix=again) from error
    problems = _golden_problems(images, outputs, floor, artifact, kept)
    problems += [f"at {in_words(one.pixels)}: {problem}" for one, of_size in sized for problem in of_size]
    if problems:
        raise ArtifactError(f"{path} does not fit its model: {'; '.join(problems)}", fix=again)
    try:
        seen = _activations(sketches, artifact) if sketches else None
        hard = adversarial.from_arrays(arrays[adversarial], images, outputs) if arrays[adversarial] else None
        file = preprocessing.from_arrays(arrays[preprocessing], images) if arrays[preprocessing] else None
    except ValueError as error:
        raise ArtifactError(f"{path} does not fit its model: {error}", fix=again) from error
    return Golden(images, outputs, float(floor), seen, hard, file, tuple(one for one, _ in sized), named, kept)


def _sized(archive: zipfile.ZipFile, artifact: Artifact) -> tuple[Sized, list[str]]:
    """What is recorded of the size that an artifact is taken for, and what does not fit of it."""
    size = artifact.config.image_size
    images, outputs, floor = (_member(archive, name) for name in sized_names(size))
    named, kept = _named(archive, artifact, images, outputs, f"{in_words(size)}.")
    problems = _golden_problems(images, outputs, floor, artifact, kept)
    return Sized(size, images, outputs, float(floor.flat[0]) if floor.size else 0.0, named, kept), problems


def _named(
    archive: zipfile.ZipFile, artifact: Artifact, images: NDArray[Any], outputs: NDArray[Any], prefix: str = ""
) -> tuple[Mapping[str, NamedGolden], Kept | None]:
    """What is recorded of the outputs of an artifact that was made for some by name."""
    if not artifact.outputs:
        return {}, None
    from vit_deploy.verification.named_golden import first_kept, from_archive

    named = from_archive(archive, _member, artifact, len(images) if images.ndim else 0, prefix)
    return named, first_kept(archive, _member, artifact, outputs, prefix)


def _sketches(archive: zipfile.ZipFile) -> dict[str, NDArray[Any]]:
    from vit_deploy.verification.activations import ARRAYS

    return _members(archive, ARRAYS)


def _activations(arrays: Mapping[str, NDArray[Any]], artifact: Artifact) -> Activations:
    from vit_deploy.verification.activations import from_arrays

    return from_arrays(arrays, artifact.config)


def sized_names(size: Size) -> tuple[str, str, str]:
    """What the arrays of one more size are called: images, outputs and noise floor."""
    return (f"{in_words(size)}.images", f"{in_words(size)}.outputs", f"{in_words(size)}.noise_floor")


# The third and fourth: foreign kinds of zip; the last two: the header of an array that is no Python.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, SyntaxError, tokenize.TokenError)


def _member(file: zipfile.ZipFile, name: str) -> NDArray[Any]:
    # np.load would take a pickle or a plain array in place of the zip; this is one array and nothing else.
    with file.open(f"{name}.npy") as stream:
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _members(file: zipfile.ZipFile, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """All of them, or none where the first is not there."""
    return {name: _member(file, name) for name in names} if f"{names[0]}.npy" in file.namelist() else {}


def _golden_problems(
    images: NDArray[Any], outputs: NDArray[Any], floor: NDArray[Any], artifact: Artifact, kept: Kept | None
) -> list[str]:
    config = artifact.config
    kind = "uint8" if artifact.input.preprocessing_inside else "float32"
    recorded = artifact.output_shape if kept is None else outputs.shape[1:]  # a part has been looked at
    expected = {
        "images": (images, kind, (len(images) if images.ndim else 0, *config.image_size, config.channels)),
        "outputs": (outputs, "float64", (len(images) if images.ndim else 0, *recorded)),
        "noise_floor": (floor, "float64", ()),
    }
    problems = [
        f"{name} are {array.dtype} {array.shape}, expected {dtype} {shape}"
        for name, (array, dtype, shape) in expected.items()
        if array.dtype != dtype or array.shape != shape
    ]
    if problems:
        return problems
    if not len(images):
        return ["it holds no images"]
    if not np.isfinite(images).all() or not np.isfinite(outputs).all():
        problems.append("some values are NaN or infinite")
    if not 0 < floor < np.inf:
        problems.append(f"the noise floor is {floor}")
    return problems
