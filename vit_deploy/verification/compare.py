"""Differences of two artifacts or checkpoints: config, preprocessing, operators, weights, outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core import documents
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import Size
from vit_deploy.core.format import Format
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.image_sizes import ImageSize
from vit_deploy.core.outputs import LOGITS
from vit_deploy.core.provenance import Step
from vit_deploy.core.reference import forward
from vit_deploy.errors import ArtifactError
from vit_deploy.formats.inspect import BUNDLE, CHECKPOINT, Inspection, inspect
from vit_deploy.formats.stored_weights import Weights, read_weights
from vit_deploy.runtimes import RuntimeOptions, open_session
from vit_deploy.verification import records
from vit_deploy.verification.golden import Golden, read_golden
from vit_deploy.verification.parity import Parity, compare
from vit_deploy.verification.recording import golden_pixels, record
from vit_deploy.verification.tolerances import looser, tolerance_for
from vit_deploy.verification.verifying import SizeParity, named_outputs_of

ONLY_IN_FIRST, ONLY_IN_SECOND = "only in the first", "only in the second"
CANONICAL, CONVERTER = "canonical", "converter"  # whose names weights have
HIDDEN = "hidden"  # weights that a format keeps to itself


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same; a value that is not there is None."""

    aspect: str
    name: str
    first: Any
    second: Any


@dataclass(frozen=True)
class WeightDifference:
    """How far two weights of one name are apart; `max_abs` is None where their shapes differ or one is missing."""

    name: str
    max_abs: float | None
    words: str = ""


@dataclass(frozen=True)
class Comparison:
    """What differs between two models.

    Args:
        differences: differences in what is recorded of them and in their operators.
        weights: those that differ, the furthest apart first.
        weights_compared: the number of compared weights; None where names do not match.
        outputs: the second's against the first's; None where they cannot be compared.
        notes: what was not compared, and why.
        origins: the provenance of each that is a checkpoint, which says what was assumed of it.
        sizes: the outputs at each further size of images that both take.
    """

    differences: tuple[Difference, ...]
    weights: tuple[WeightDifference, ...]
    weights_compared: int | None
    outputs: Parity | None
    notes: tuple[str, ...]
    origins: Mapping[Path, tuple[Step, ...]]
    sizes: tuple[SizeParity, ...] = ()

    @property
    def same(self) -> bool:
        """Whether nothing differs in what was compared."""
        answers = [*([] if self.outputs is None else [self.outputs]), *(one.parity for one in self.sizes)]
        return not self.differences and not self.weights and all(parity.ok for parity in answers)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "same": self.same,
            "differences": [vars(difference) for difference in self.differences],
            "weights_compared": self.weights_compared,
            "weights": [
                {"name": weight.name, "max_abs": documents.finite(weight.max_abs), "message": weight.words}
                for weight in self.weights
            ],
            "outputs": None if self.outputs is None else records.parity(self.outputs),
            "notes": list(self.notes),
            **(
                {"sizes": [one.size.to_dict() | records.parity(one.parity) for one in self.sizes]} if self.sizes else {}
            ),
        }


def compare_models(first: Path, second: Path, stated: Mapping[str, Any] | None = None) -> Comparison:
    """Compare two artifacts, or checkpoints, or one of each.

    Args:
        first: path of one.
        second: path of the other.
        stated: what the user says of those that are checkpoints, as `checkpoints.load` takes it.

    Raises:
        ArtifactError, CheckpointError: one of them is missing or damaged, or a model file without its artifact.
        MissingEngineError, EngineError: an engine that runs one of them is not installed or refuses it.
    """
    one, other = _Model.read(first, stated or {}), _Model.read(second, stated or {})
    notes = []
    differences = [*_recorded(one.artifact, other.artifact), *_fields("labels", *map(_labels, (one, other)))]
    if one.found.graph and other.found.graph and one.artifact.format == other.artifact.format:
        differences += _fields("operators", one.found.graph.operators, other.found.graph.operators)
    else:
        notes.append("operators are compared between files of one format")
    weights: list[WeightDifference] = []
    compared = None
    if HIDDEN in (one.naming, other.naming):
        hidden = next(side.format for side in (one, other) if side.naming == HIDDEN)
        notes.append(f"the weights inside {hidden.noun} cannot be read, so they are compared by their digest alone")
    elif one.naming != other.naming:
        title = next(side.format.title for side in (one, other) if side.naming == CONVERTER)
        notes.append(
            f"the weights of {title} files have the converter's names, so they are compared by their digest alone"
        )
    if one.naming == other.naming != HIDDEN:
        compared, weights = _weights(one.weights, other.weights)
    else:
        digests = (one.artifact.weights_digest, other.artifact.weights_digest)
        differences += _fields("weights_digest", *({"sha256": digest} for digest in digests))
    outputs = None
    sizes = [(side.artifact.config.image_size, side.artifact.config.channels) for side in (one, other)]
    at_sizes: list[SizeParity] = []
    name = _shared_output(one.artifact, other.artifact)
    if not name:
        names = " and ".join(", ".join(side.artifact.output_names) for side in (one, other))
        notes.append(f"outputs of one name are compared, and these give {names}")
    elif sizes[0] == sizes[1]:
        outputs = _outputs(one, other, name)
        for size in _further_sizes(one, other):
            at_sizes.append(SizeParity(ImageSize(size), _outputs(one.at(size), other.at(size), name)))
    else:
        notes.append("outputs are compared between models of one image size and as many channels")
    origins = {side.found.path: side.artifact.provenance for side in (one, other) if side.found.kind == CHECKPOINT}
    return Comparison(
        tuple(differences), tuple(weights), compared, outputs, tuple(notes), origins, sizes=tuple(at_sizes)
    )


@dataclass(frozen=True)
class _Model:
    """One side."""

    found: Inspection
    artifact: Artifact
    stated: Mapping[str, Any]

    @classmethod
    def read(cls, path: Path, stated: Mapping[str, Any]) -> _Model:
        found = inspect(path, stated)
        if found.kind not in (BUNDLE, CHECKPOINT) or found.artifact is None:
            raise ArtifactError(
                f"{path} is a model file without its artifact",
                fix="give the folder with its artifact.json, or a checkpoint",
            )
        return cls(found, found.artifact, stated)

    @property
    def format(self) -> Format:
        """The format of an artifact."""
        return FORMATS[self.artifact.format]

    @property
    def naming(self) -> str:
        """Whose names the weights have."""
        if self.checkpoint is not None:
            return CANONICAL
        if self.format.read_weights is None:
            return HIDDEN
        return CANONICAL if self.format.has_canonical_names else CONVERTER

    @cached_property
    def checkpoint(self) -> Checkpoint | None:
        if self.found.kind != CHECKPOINT:
            return None
        from vit_deploy import checkpoints

        return checkpoints.load(self.found.path, config=self.stated)

    @cached_property
    def weights(self) -> Weights:
        if self.checkpoint is not None:
            return dict(self.checkpoint.weights)
        held = read_weights(self.artifact.model_path, self.artifact.format)
        return {name: array for name, array in held.items() if not _is_made(name)}

    @cached_property
    def golden(self) -> Golden:
        return read_golden(self.artifact) if self.checkpoint is None else record(self.checkpoint)

    def noise_floor(self, name: str) -> float:
        """That of an output."""
        named = self.golden.named.get(name)
        return self.golden.noise_floor if named is None else named.noise_floor

    def at(self, size: Size) -> _Model:
        """An artifact taken for another of its sizes."""
        return dataclasses.replace(self, artifact=self.artifact.at(size))

    def outputs(self, pixels: NDArray[np.uint8], name: str) -> NDArray[Any]:
        """The output of that name to the same pixels, each through its own normalisation."""
        inside = self.artifact.input.preprocessing_inside
        images = pixels if inside else self.artifact.preprocess.normalize(pixels)
        if self.checkpoint is not None:
            return forward(self.checkpoint, images)
        with open_session(self.artifact, self.format.proving_runtime, RuntimeOptions(allow_tf32=False)) as session:
            return named_outputs_of(session, self.artifact, images)[name]


def _is_made(name: str) -> bool:
    """Whether a converter or an exporter made an array, as to compute with sizes of images: it is no weight."""
    return name.rpartition(".")[2].startswith("constant_")


def _further_sizes(one: _Model, other: _Model) -> list[Size]:
    """The sizes of two artifacts besides their own that either is for, or was proven at, and both take."""
    if CHECKPOINT in (one.found.kind, other.found.kind):
        return []
    sizes = dict.fromkeys(size.pixels for side in (one, other) for size in side.artifact.sizes)
    sizes.pop(one.artifact.config.image_size, None)
    return [size for size in sizes if one.artifact.takes(size) and other.artifact.takes(size)]


def _labels(model: _Model) -> dict[str, str]:
    return {str(index): label for index, label in enumerate(model.artifact.labels)}


def _recorded(one: Artifact, other: Artifact) -> list[Difference]:
    found = _fields("precision", {"precision": one.precision}, {"precision": other.precision})
    found += _fields("config", one.config.to_dict(), other.config.to_dict())
    found += _fields("preprocess", one.preprocess.to_dict(), other.preprocess.to_dict())
    if one.sizes and other.sizes:  # where both are for several sizes, how positions are resampled is part of them
        found += _fields("options", *({"like": side.options.get("like")} for side in (one, other)))
    if one.format == other.format:
        found += _fields("input", one.input.to_dict(), other.input.to_dict())
    return found


def _fields(aspect: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> list[Difference]:
    names = dict.fromkeys((*one, *other))
    return [
        Difference(aspect, name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)
    ]


def _weights(one: Weights, other: Weights) -> tuple[int, list[WeightDifference]]:
    found = [
        WeightDifference(name, None, ONLY_IN_FIRST if name in one else ONLY_IN_SECOND)
        for name in sorted(one.keys() ^ other.keys())
    ]
    both = sorted(one.keys() & other.keys())
    for name in both:
        first, second = one[name], other[name]
        if first.shape != second.shape or first.dtype != second.dtype:
            words = f"{first.dtype} {first.shape} and {second.dtype} {second.shape}"
            found.append(WeightDifference(name, None, words))
        elif first.tobytes() != second.tobytes():
            apart = np.abs(first.astype(np.float64) - second.astype(np.float64))
            where = ", ".join(map(str, np.unravel_index(int(apart.argmax()), apart.shape)))
            found.append(WeightDifference(name, float(apart.max()), f"furthest at ({where})"))
    # One that is not finite is the furthest apart, after those that cannot be compared at all.
    found.sort(key=lambda found: (found.max_abs is not None, -np.nan_to_num(found.max_abs or 0.0, nan=np.inf)))
    return len(both), found


def _shared_output(one: Artifact, other: Artifact) -> str:
    """The output by which two models are compared: what both are read by, else the first that both have, or none."""
    names = (one.output_name, other.output_name, *one.output_names)
    return next((name for name in names if name in one.output_names and name in other.output_names), "")


def _outputs(one: _Model, other: _Model, name: str) -> Parity:
    pixels = golden_pixels(one.artifact.config)
    precision = looser(one.artifact.precision, other.artifact.precision)
    tolerance = tolerance_for(precision, max(one.noise_floor(name), other.noise_floor(name)))
    return compare(other.outputs(pixels, name), one.outputs(pixels, name), tolerance, classes=name == LOGITS)
