"""The classes that a model sees in image files."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.images import SUFFIXES, images_in, load_image, load_pixels
from vit_deploy.core.manifest import MANIFEST, read_artifact
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.errors import ArtifactError, ConfigError, DataError
from vit_deploy.runtimes import RuntimeOptions, open_session, runtime_for

if TYPE_CHECKING:  # no device is asked for it
    from vit_deploy.core.checkpoint import Checkpoint

BATCH = 8  # images held at a time
USUAL = RuntimeOptions()
NUMPY = "numpy"  # what runs a checkpoint that is no artifact yet: the reference, in float32

Infer = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Seen:
    """One class that a model gives an image.

    Args:
        index: the index of the class.
        label: its recorded name; empty where there is none.
        probability: its probability, by the softmax or sigmoid that the model was trained with.
        logit: what the model answered.
    """

    index: int
    label: str
    probability: float
    logit: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"class": self.index, "label": self.label, "probability": self.probability, "logit": self.logit}


@dataclass(frozen=True)
class Prediction:
    """What a model sees in one file, or why it could not be read.

    Args:
        image: the file.
        top: the likeliest classes, best first; empty where it could not be read.
        failure: why it could not be read, in words; empty where it could.
        on: address of the machine that ran the model; None for this one.
    """

    image: Path
    top: tuple[Seen, ...] = ()
    failure: str = ""
    on: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        failures = [self.failure] if self.failure else []
        found = {"image": str(self.image), "top": [seen.to_dict() for seen in self.top], "failures": failures}
        return found if self.on is None else {**found, "on": self.on}


@dataclass(frozen=True)
class Classifier:
    """A model that is ready to classify files.

    Args:
        config: its function.
        preprocess: the preprocessing from file to input.
        labels: name of each class, or empty.
        takes_pixels: whether it normalizes inside.
        infer: outputs `(batch, classes)` for a batch of inputs.
        runtime: what runs it.
        origin: the provenance of a checkpoint, which says what was assumed of it; None for an artifact.
        checkpoint: the checkpoint; None for an artifact.
    """

    config: ViTConfig
    preprocess: Preprocess
    labels: tuple[str, ...]
    takes_pixels: bool
    infer: Infer
    runtime: str
    origin: tuple[Step, ...] | None = None
    checkpoint: Checkpoint | None = None

    def read(self, path: Path) -> NDArray[Any]:
        """One file as the model takes it, `(height, width, channels)`.

        Raises:
            DataError: it is missing, broken, or does not become an input of this model.
        """
        load = load_pixels if self.takes_pixels else load_image
        return load(path, self.preprocess, self.config.image_size)

    def answers(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Outputs `(batch, classes)` for pixels of its size."""
        return self.infer(pixels if self.takes_pixels else self.preprocess.normalize(pixels))

    def top(self, logits: NDArray[Any], count: int) -> tuple[Seen, ...]:
        """The likeliest classes of one image.

        Raises:
            DataError: the model answered NaN or infinity.
        """
        values = logits.astype(np.float64)
        if bad := int((~np.isfinite(values)).sum()):
            raise DataError(
                f"the model answered {bad} {'value that is' if bad == 1 else 'values that are'} NaN or infinite",
                fix="prove the model with vit-deploy verify",
            )
        probabilities = self.config.probabilities.of(values)
        best = np.argsort(-values, kind="stable")[:count]
        return tuple(
            Seen(
                int(index), self.labels[index] if self.labels else "", float(probabilities[index]), float(values[index])
            )
            for index in best
        )


@contextmanager
def open_classifier(
    path: Path,
    runtime: str | None = None,
    options: RuntimeOptions = USUAL,
    stated: Mapping[str, Any] | None = None,
    signature: str | None = None,
    image_size: str | None = None,
) -> Iterator[Classifier]:
    """The model in an artifact, run by its engine, or in a checkpoint, run by the NumPy reference.

    Args:
        path: the path of the artifact or the checkpoint.
        runtime: the requested one; None takes the usual one.
        options: the options to run it with.
        stated: what the user says of a checkpoint, as `checkpoints.load` takes it.
        signature: which one runs, of an artifact with several; None for the first.
        image_size: pixels of the images as "384x512", of an artifact for several sizes or for any; None for its own.

    Raises:
        ArtifactError, CheckpointError: nothing that can be run, or damaged.
        ConfigError: a model without a head, a runtime that does not take it, or options that it does not take, such as
            something stated of an artifact.
        MissingEngineError, EngineError: the engine is not installed or refuses the file.
    """
    if (path / MANIFEST).is_file() or path.name == MANIFEST:
        artifact = read_artifact(path).taken_for(signature, image_size)
        if stated:
            _check_stated(stated, artifact, path)
        with _of_artifact(artifact, runtime, options) as classifier:
            yield classifier
        return
    from vit_deploy import checkpoints

    if (path.parent / MANIFEST).is_file() and path.name in (
        name for format in FORMATS.values() for name in format.model_files
    ):
        raise ArtifactError(f"{path} is the model alone, of an artifact", fix=f"give the artifact, {path.parent}")
    if signature is not None:
        raise ConfigError(f"{path} is a checkpoint, which has no signatures", fix="leave --signature out")
    if image_size is not None:
        raise ConfigError(
            f"{path} is a checkpoint, which is for images of one size",
            fix="leave --image-size out, or export it with --image-size dynamic",
        )
    if runtime not in (None, NUMPY):
        raise ConfigError(f"{runtime} runs artifacts, and {path} is a checkpoint", fix="export it first")
    if options != USUAL:
        raise ConfigError(
            f"{path} is a checkpoint, which NumPy runs: it takes no provider, device or threads", fix="export it first"
        )
    checkpoint = checkpoints.load(path, config=stated)
    check_head(checkpoint.config, path)
    yield checkpoint_classifier(checkpoint)


def checkpoint_classifier(checkpoint: Checkpoint) -> Classifier:
    """A checkpoint with a head, run by the NumPy reference."""
    from vit_deploy.core.reference import forward

    return Classifier(
        checkpoint.config,
        checkpoint.preprocess,
        checkpoint.labels,
        takes_pixels=False,
        infer=lambda images: forward(checkpoint, images, np.float32),
        runtime=NUMPY,
        origin=checkpoint.provenance,
        checkpoint=checkpoint,
    )


def _check_stated(stated: Mapping[str, Any], artifact: Artifact, path: Path) -> None:
    """Refuse what is stated of an artifact, but for the licences of which it has to have one."""
    from vit_deploy.core.origin import REQUIRE_LICENCE, check_licence, licence_in  # a device is told nothing of these

    if others := [name for name in stated if name != REQUIRE_LICENCE]:
        raise ConfigError(
            f"{', '.join(others)} can be stated of a checkpoint, and {path} is an artifact, which has its own",
            fix="export it again with them",
        )
    check_licence(licence_in(artifact.provenance), stated[REQUIRE_LICENCE], str(path))


@contextmanager
def _of_artifact(artifact: Artifact, runtime: str | None, options: RuntimeOptions) -> Iterator[Classifier]:
    check_gives_logits(artifact)
    name = runtime_for(artifact, runtime, options)
    inside = artifact.input.preprocessing_inside
    options = dataclasses.replace(options, largest_batch=options.largest_batch or BATCH)
    with open_session(artifact, name, options) as session:
        yield Classifier(artifact.config, artifact.preprocess, artifact.labels, inside, session.infer, name)


def check_gives_logits(artifact: Artifact) -> None:
    """Refuse an artifact that tells no classes.

    Raises:
        ConfigError: of a model without a head, or made for other outputs.
    """
    if artifact.outputs and not artifact.gives_logits:
        raise ConfigError(
            f"{artifact.path} {artifact.no_classes}, and classes are told by logits",
            fix="export a model with a head, with --output logits as well",
        )
    check_head(artifact.config, artifact.path)


def check_head(config: ViTConfig, path: Path) -> None:
    """Refuse a model that gives no classes.

    Raises:
        ConfigError: one without a head.
    """
    if not config.include_top:
        raise ConfigError(f"{path} has no head: it gives features, no classes", fix="give a model with a head")


def image_files(given: Sequence[Path]) -> list[Path]:
    """The files themselves, and of each folder the images in it, in the order of their names.

    Raises:
        DataError: a folder without images, or nothing but paths that do not exist.
    """
    if given and not any(path.exists() for path in given):
        raise DataError(f"there is nothing at {', '.join(map(str, given))}", fix="check the paths of the images")
    files: list[Path] = []
    for path in given:
        if not path.is_dir():
            files.append(path)
            continue
        found = images_in(path)
        if not found:
            raise DataError(f"{path} holds no images", fix=f"files with the endings {', '.join(SUFFIXES)} count")
        files += found
    return files


def predict(classifier: Classifier, files: Sequence[Path], *, count: int = 5) -> Iterator[Prediction]:
    """What the model sees in each file, in their order; broken ones are named and passed over.

    Args:
        classifier: the result of `open_classifier`.
        files: the files of images.
        count: the number of classes to give for each.
    """
    for start in range(0, len(files), BATCH):
        inputs: dict[int, NDArray[Any]] = {}
        failures: dict[int, str] = {}
        group = files[start : start + BATCH]
        for place, path in enumerate(group):
            try:
                inputs[place] = classifier.read(path)
            except DataError as error:
                failures[place] = error.message
        logits = classifier.infer(np.stack(list(inputs.values()))) if inputs else ()
        outputs = dict(zip(inputs, logits, strict=True))
        for place, path in enumerate(group):
            yield (
                Prediction(path, failure=failures[place])
                if place in failures
                else Prediction(path, classifier.top(outputs[place], count))
            )


def predict_pixels(classifier: Classifier, pixels: NDArray[np.uint8], *, count: int = 5) -> Iterator[tuple[Seen, ...]]:
    """What the model sees in images that have its size already, in their order.

    Args:
        classifier: from `open_classifier`.
        pixels: images `(images, height, width, channels)`, 0..255.
        count: how many classes of each.
    """
    for start in range(0, len(pixels), BATCH):
        group = np.asarray(pixels[start : start + BATCH])
        inputs = group if classifier.takes_pixels else classifier.preprocess.normalize(group)
        for logits in classifier.infer(inputs):
            yield classifier.top(logits, count)


def seen_in(record: Mapping[str, Any]) -> tuple[Seen, ...]:
    """The classes that a record of `predict` tells of."""
    return tuple(Seen(seen["class"], seen["label"], seen["probability"], seen["logit"]) for seen in record["top"])
