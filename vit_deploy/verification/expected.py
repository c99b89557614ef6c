"""Expected outputs of an artifact, computed from a checkpoint or by another artifact, on golden images or image files.

Both models read the files each through its own recorded preprocessing, so that one that differs shows as well.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import Size, ViTConfig, in_words
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.images import SUFFIXES, images_in, load_pixels
from vit_deploy.core.manifest import MANIFEST
from vit_deploy.core.outputs import Output, outputs_of_model
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.core.reduced import reduced
from vit_deploy.core.resize import as_convention, resize
from vit_deploy.errors import ConfigError, DataError
from vit_deploy.formats.bare import Known
from vit_deploy.runtimes import RuntimeOptions, open_session
from vit_deploy.verification.golden import Golden, Sized
from vit_deploy.verification.named_golden import NamedGolden, kept_of
from vit_deploy.verification.recording import (
    answers,
    golden_pixels,
    record,
    record_adversarial,
    record_sizes,
    sized_pixels,
)
from vit_deploy.verification.targets import load_source, open_artifact, open_with_golden
from vit_deploy.verification.tolerances import looser
from vit_deploy.verification.verifying import GROUP, named_outputs_of, outputs_of

SIZES = ("image_size", "patch_size")


@dataclass
class Reference:
    """A model to compare with; the answers of one size are computed once for all artifacts of it.

    Args:
        path: the path of an artifact or a checkpoint.
        files: image files, or none for the golden images.
        stated: what the user says of a checkpoint, as `checkpoints.load` takes it.
        origin: the provenance of a checkpoint once it has been read, which says what was assumed of it.
    """

    path: Path
    files: Sequence[Path] = ()
    stated: Mapping[str, Any] = field(default_factory=dict)
    origin: tuple[Step, ...] | None = None
    _done: dict[Any, Golden] = field(default_factory=dict)
    _known: list[Known] = field(default_factory=list)

    @property
    def is_artifact(self) -> bool:
        """Whether it is an artifact; else it is a checkpoint."""
        return self.path.name == MANIFEST or (self.path / MANIFEST).is_file()

    @property
    def known(self) -> Known:
        """What a bare file is matched to.

        Raises:
            ArtifactError, CheckpointError: it cannot be read.
        """
        if not self._known:
            said: Artifact | Checkpoint
            if self.is_artifact:
                said = open_artifact(self.path)
            else:
                read = load_source(str(self.path), {}, None, stated=self.stated)
                said, self.origin = read.checkpoint, read.origin
            self._known.append(Known(str(self.path), said.config, said.preprocess, said.labels))
        return self._known[0]

    def golden(self, artifact: Artifact, own: Golden | None) -> tuple[Golden, str]:
        """Inputs for `artifact` and what this model answers to them, and the precision to hold it to.

        Args:
            artifact: the artifact to prove.
            own: its golden data, of which the image file is kept; None of a bare file, which has none.

        Raises:
            ConfigError: two artifacts that take images of different sizes, or models of different channels.
            ArtifactError, CheckpointError, DataError: what cannot be read.
        """
        config = artifact.config
        key = (config.image_size, config.patch_size, config.channels, artifact.output_names, _convention(artifact))
        if key not in self._done:
            of_size = {name: getattr(config, name) for name in SIZES}
            self._done[key] = (
                self._by_artifact(artifact) if self.is_artifact else self._by_checkpoint(artifact, of_size)
            )
        found = self._done[key]
        precision = artifact.precision
        if self.is_artifact:
            precision = looser(precision, open_with_golden(self.path)[0].precision)
        pixels = self._pixels(artifact.preprocess, artifact)
        images = pixels if artifact.input.preprocessing_inside else artifact.preprocess.normalize(pixels)
        golden = found.as_pixels(pixels) if artifact.input.preprocessing_inside else found
        return dataclasses.replace(golden, images=images, photo=own.photo if own is not None else None), precision

    def at_further_sizes(self, artifact: Artifact) -> tuple[Sized, ...]:
        """What this model answers to seeded images of the other sizes that an artifact is for, or was proven at.

        A checkpoint is resized by the convention that `artifact` records; an artifact answers to those that it takes.

        Raises:
            ConfigError, CheckpointError: the checkpoint cannot be resized, or read.
        """
        pixels = [one.pixels for one in artifact.sizes if one.pixels != artifact.config.image_size]
        if not pixels:
            return ()
        if self.is_artifact:
            return self._sizes_by_artifact(artifact, pixels)
        like = _convention(artifact)
        convention = None if like is None else as_convention(like)
        checkpoint = load_source(str(self.path), {}, None, stated=self.stated).checkpoint
        names = artifact.outputs
        resized = [resize(checkpoint, size, artifact.config.patch_size, convention) for size in pixels]
        resized = [reduced(model, outputs_of_model(names, model.config)) for model in resized]
        found = record_sizes(resized, names=tuple(names))
        if not artifact.input.preprocessing_inside:
            return found
        return tuple(
            dataclasses.replace(sized, images=sized_pixels(model.config, tuple(names), len(resized)))
            for sized, model in zip(found, resized, strict=True)
        )

    def _pixels(self, preprocess: Preprocess, artifact: Artifact) -> NDArray[np.uint8]:
        if not self.files:
            return golden_pixels(artifact.config, artifact.named_outputs)
        return np.stack([load_pixels(file, preprocess, artifact.config.image_size) for file in self.files])

    def _same_channels(self, artifact: Artifact, config: ViTConfig) -> None:
        if artifact.config.channels != config.channels:
            counts = artifact.config.channels, config.channels
            raise ConfigError(
                f"{artifact.path} takes images of {counts[0]} channels, and {self.path} of {counts[1]}",
                fix="compare models of the same channels",
            )

    def checkpoint_for(self, artifact: Artifact) -> Checkpoint:
        """The checkpoint, at the size of an artifact.

        Raises:
            ConfigError: it is an artifact, or cannot be resized.
            CheckpointError: it cannot be read.
        """
        if self.is_artifact:
            raise ConfigError(
                f"{self.path} is an artifact, and what is simulated is the reference of a checkpoint",
                fix="give --against the checkpoint that the artifact was made from",
            )
        config = artifact.config
        return self._at_size(artifact, {name: getattr(config, name) for name in SIZES})

    def _by_checkpoint(self, artifact: Artifact, of_size: dict[str, Any]) -> Golden:
        checkpoint = self._at_size(artifact, of_size)
        outputs = outputs_of_model(artifact.outputs, checkpoint.config)
        checkpoint = reduced(checkpoint, outputs)
        if not self.files:
            return record(checkpoint, outputs=outputs)
        size = checkpoint.config.image_size
        images = checkpoint.preprocess.normalize(
            np.stack([load_pixels(file, checkpoint.preprocess, size) for file in self.files])
        )
        hard = record_adversarial(checkpoint, outputs=outputs)
        return dataclasses.replace(_reference(checkpoint, images, outputs), adversarial=hard)

    def _at_size(self, artifact: Artifact, of_size: dict[str, Any]) -> Checkpoint:
        read = load_source(str(self.path), {}, None, stated=self.stated)
        loaded, self.origin = read.checkpoint, read.origin
        changes = {name: size for name, size in of_size.items() if getattr(loaded.config, name) != size}
        if changes:
            like = _convention(artifact)
            checkpoint = load_source(str(self.path), changes, None, like, stated=self.stated).checkpoint
        else:
            checkpoint = loaded
        self._same_channels(artifact, checkpoint.config)
        return checkpoint

    def _by_artifact(self, candidate: Artifact) -> Golden:
        artifact, own = open_with_golden(self.path)
        size = candidate.config.image_size
        if not artifact.takes(size):
            sizes = " and ".join(in_words(one.config.image_size) for one in (candidate, artifact))
            raise ConfigError(
                f"{candidate.path} and {self.path} take images of {sizes} pixels (height x width)",
                fix="compare artifacts of one size, or give the checkpoint",
            )
        self._same_channels(candidate, artifact.config)
        artifact = artifact.at(size)
        return self._answered(artifact, own.at(size), candidate, self._pixels(artifact.preprocess, artifact))

    def _sizes_by_artifact(self, candidate: Artifact, sizes: Sequence[Size]) -> tuple[Sized, ...]:
        """What an artifact answers to seeded images of those of the sizes that it takes."""
        artifact, own = open_with_golden(self.path)
        found = []
        for size in filter(artifact.takes, sizes):
            here, there = artifact.at(size), candidate.at(size)
            pixels = sized_pixels(there.config, tuple(candidate.outputs), len(sizes))
            golden = self._answered(here, own.at(size), there, pixels)
            images = pixels if there.input.preprocessing_inside else there.preprocess.normalize(pixels)
            found.append(Sized.of(dataclasses.replace(golden, images=images)))
        return tuple(found)

    def _answered(self, artifact: Artifact, own: Golden, candidate: Artifact, pixels: NDArray[np.uint8]) -> Golden:
        """What an artifact answers to pixels of its size, of the outputs that another one has.

        Args:
            artifact: that is run.
            own: its golden data, whose noise floors count.
            candidate: the other one.
            pixels: `(n, height, width, channels)`.
        """
        images = pixels if artifact.input.preprocessing_inside else artifact.preprocess.normalize(pixels)
        runtime = FORMATS[artifact.format].proving_runtime
        with open_session(artifact, runtime, RuntimeOptions(allow_tf32=False)) as session:
            if not candidate.outputs and not artifact.outputs:
                return Golden(images, outputs_of(session, images).astype(np.float64), own.noise_floor)
            every = named_outputs_of(session, artifact, images)
        if missing := [name for name in candidate.output_names if name not in every]:
            raise ConfigError(
                f"{self.path} has no output {', '.join(missing)}, which {candidate.path} has",
                fix="compare files of the same outputs, or give the checkpoint",
            )
        first = candidate.output_name
        floors = {name: golden.noise_floor for name, golden in own.named.items()}
        named = {}
        for output in candidate.named_outputs:
            if output.name != first:
                kept = kept_of(output, candidate.config, len(images), len(candidate.outputs) - 1)
                values = kept.of(every[output.name].astype(np.float64), output.name)
                named[output.name] = NamedGolden(kept, values, floors.get(output.name, own.noise_floor))
        return Golden(images, every[first].astype(np.float64), floors.get(first, own.noise_floor), named=named)


def _convention(artifact: Artifact) -> str | None:
    """The name of the convention that an artifact was resized by; None where it was not, or says nothing of it."""
    resized = [step.facts.get("convention") for step in artifact.provenance if step.action == "resize"]
    like = artifact.options.get("like", resized[-1] if resized else None)
    return None if like is None else str(like)


def image_files(directory: Path, most: int) -> list[Path]:
    """Image files in a folder and its subfolders, by name; the first `most` of them.

    Raises:
        DataError: there are none.
    """
    if not directory.is_dir():
        raise DataError(f"{directory} is no folder", fix="give --images a folder with image files")
    found = images_in(directory)
    if not found:
        raise DataError(f"{directory} holds no images", fix=f"files with the endings {', '.join(SUFFIXES)} count")
    return found[:most]


def _reference(checkpoint: Checkpoint, images: NDArray[np.float32], outputs: Sequence[Output]) -> Golden:
    """What the reference gives; of further outputs for the first images alone."""
    parts = [answers(checkpoint, images[start : start + GROUP], outputs) for start in range(0, len(images), GROUP)]
    exact = np.concatenate([part.outputs for part in parts])
    return Golden(images, exact, max(part.noise_floor for part in parts), named=parts[0].named)
