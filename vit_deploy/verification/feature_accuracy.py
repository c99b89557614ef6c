"""Accuracy of models without a head: what the classes of nearest neighbours and a linear probe are worth."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.datasets import Dataset, Pixels
from vit_deploy.core.outputs import Kind
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.errors import DataError
from vit_deploy.runtimes import RuntimeOptions, Session, infer_outputs, open_session, runtime_for
from vit_deploy.verification.accuracy import ALONE, BATCH, FP32, Answers
from vit_deploy.verification.probes import NEIGHBOURS, Neighbours, interval_95, linear_probe, nearest

Progress = Callable[[str], object]
Array = NDArray[Any]


@dataclass(frozen=True)
class FeatureEvaluation:
    """What the features of one artifact tell of the classes.

    Args:
        artifact: that was run.
        runtime: that ran it.
        provider: what really executed the graph.
        images: how many images were told.
        train: how many images they were told by; None where it was all others of the same.
        output: the vector that was taken of the artifact's output.
        knn: fraction whose class is that of their nearest neighbours.
        knn_interval: its 95 % interval.
        linear_probe: fraction whose class the linear probe tells.
        linear_probe_interval: its 95 % interval.
        agreement: fraction that have the same class by their neighbours as with `reference`; None where nothing was
            compared.
        shared_neighbours: mean fraction of the neighbours that `reference` finds as well; None likewise.
        reference: the artifact agreed with.
        failures: what is wrong, or does not apply, in words.
        finite: whether every output was a number.
        broken: how many images could not be read.
    """

    artifact: Artifact
    runtime: str
    provider: str
    images: int
    train: int | None
    output: str
    knn: float
    knn_interval: tuple[float, float]
    linear_probe: float
    linear_probe_interval: tuple[float, float]
    agreement: float | None
    shared_neighbours: float | None
    reference: Artifact
    failures: tuple[str, ...] = ()
    finite: bool = True
    broken: int = 0


class LabelledImages(Protocol):
    """Images whose classes are known, which are read once; see `data.labelled`."""

    @property
    def dataset(self) -> Dataset:
        """What is known of them."""

    @property
    def broken(self) -> Mapping[int, str]:
        """Why images could not be read, by their places; of those that were asked for so far."""

    def batches(self, preprocess: Preprocess, image_size: tuple[int, int], size: int) -> Iterator[Pixels]:
        """All images in order, at most `size` at a time, without those that are broken."""


Images = Callable[[], AbstractContextManager[LabelledImages]]
"""Opens images, once for each artifact."""
OpenAnswers = Callable[[LabelledImages], Answers]
"""Vectors of all artifacts for images, of which it says which are broken."""


@dataclass(frozen=True)
class _Told:
    """Vectors `(images, dim)` with the name of each image's class, and how many images were broken."""

    vectors: Array
    names: tuple[str, ...]
    broken: int


def gives_features(artifact: Artifact) -> bool:
    """Whether features are what an artifact is evaluated by."""
    return not artifact.gives_classes


def evaluate_features(
    artifacts: Sequence[Artifact],
    images: Images,
    train: Images | None = None,
    *,
    batch: int = BATCH,
    runtime: str | None = None,
    options: RuntimeOptions = RuntimeOptions(),
    answers: OpenAnswers | None = None,
    progress: Progress = lambda doing: None,
) -> list[FeatureEvaluation]:
    """Run all artifacts over labelled images, and tell the classes of the images by their features.

    Args:
        artifacts: artifacts that give no classes.
        images: the images.
        train: images that they are told by; None for all others of the same.
        batch: images a call.
        runtime: that runs all of them; None takes the usual one of each.
        options: the options to run with.
        answers: the vectors of all artifacts where they run elsewhere, as `vectors` takes them; None runs them here.
        progress: called with what is being done.

    Raises:
        DataError: images that an artifact cannot take, too few of them, or classes that the training images lack.
        ConfigError, MissingEngineError, EngineError: as of `accuracy.evaluate`.
    """
    options = dataclasses.replace(options, largest_batch=options.largest_batch or batch)
    reference = next((index for index, artifact in enumerate(artifacts) if artifact.precision == FP32), 0)
    names = [runtime_for(artifact, runtime, options) for artifact in artifacts]
    for artifact in artifacts:
        vector_of(artifact)
    told = []
    if answers is None:
        for artifact, name in zip(artifacts, names, strict=True):
            progress(f"running {artifact.path}")
            with open_session(artifact, name, options) as session:
                own = _features(session, artifact, images, batch)
                training = None if train is None else _features(session, artifact, train, batch)
                told.append((own, training, session.provider))
    else:
        progress("running the images")
        all_own, providers = _features_elsewhere(answers, artifacts, images)
        all_training = [None] * len(artifacts) if train is None else _features_elsewhere(answers, artifacts, train)[0]
        told += zip(all_own, all_training, providers, strict=True)
    found = [
        _evaluated(artifact, name, provider, own, training, artifacts[reference])
        for artifact, name, (own, training, provider) in zip(artifacts, names, told, strict=True)
    ]
    compared = found[reference] if len(found) > 1 else None
    return [_agreed(neighbours, known, result, compared) for neighbours, known, result in found]


def _features(session: Session, artifact: Artifact, opened: Images, batch: int) -> _Told:
    spec, preprocess = artifact.input, artifact.preprocess
    found = []
    with opened() as images:
        images.dataset.check_size(str(artifact.path), artifact.config)
        for pixels in images.batches(preprocess, artifact.config.image_size, batch):
            given = pixels if spec.preprocessing_inside else preprocess.normalize(pixels)
            if len(given):
                found.append(vectors(session, artifact, given))
        return _told(found, images)


def _features_elsewhere(
    answers: OpenAnswers, artifacts: Sequence[Artifact], opened: Images
) -> tuple[list[_Told], Sequence[str]]:
    """The same of all artifacts, and what executed the graph of each."""
    with opened() as images:
        for artifact in artifacts:
            images.dataset.check_size(str(artifact.path), artifact.config)
        running = answers(images)
        batches = [values for values, _ in running if len(values[0])]
        found = [_told([values[place] for values in batches], images) for place in range(len(artifacts))]
        return found, running.providers


def _told(found: Sequence[Array], images: LabelledImages) -> _Told:
    names = [name for place, name in enumerate(images.dataset.names_of_images()) if place not in images.broken]
    if not found:
        raise DataError(f"not one image of {images.dataset.path} can be read", fix="check the files")
    return _Told(np.concatenate(found), tuple(names), len(images.broken))


def _numbers(own: _Told, training: _Told | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes of the images, and of those that they are told by, as numbers from zero.

    Raises:
        DataError: classes of which there is nothing to tell them by.
    """
    known = own if training is None else training
    counts = Counter(known.names)
    least = 2 if training is None else 1
    if lonely := sorted(name for name in set(own.names) if counts[name] < least):
        few = "one image alone" if training is None else "no training images"
        raise DataError(f"there is nothing to tell {', '.join(lonely)} by: {few}", fix="add some, or leave it out")
    place = {name: index for index, name in enumerate(sorted(counts))}
    own_numbers, numbers = (np.array([place[name] for name in one.names], np.int64) for one in (own, known))
    return own_numbers, numbers


def vector_of(artifact: Artifact) -> str:
    """The vector that an artifact is evaluated by, in words."""
    named = [output for output in artifact.named_outputs if output.kind is Kind.VECTOR]
    if named:
        return named[0].name
    if artifact.outputs and not any(output.kind is Kind.TOKENS for output in artifact.named_outputs):
        raise DataError(
            f"{artifact.path} gives {', '.join(artifact.output_names)}, and none of them is a vector of an image",
            fix="export it with --output features or --output class_token as well",
        )
    if artifact.outputs:
        tokens = next(output for output in artifact.named_outputs if output.kind is Kind.TOKENS)
        return f"mean of {tokens.name}"
    if len(artifact.config.output_shape) == 1:
        return artifact.output_name
    return "class_token" if artifact.config.class_token else f"mean of {artifact.output_name}"


def vectors(session: Session, artifact: Artifact, images: Array) -> Array:
    """Vectors `(images, dim)` of what a loaded artifact answers to a batch of its inputs; see `vector_of`."""
    outputs: Any = infer_outputs(session, artifact, images)
    what = vector_of(artifact)
    if what in outputs:
        values: Array = outputs[what]
        return values
    if what == "class_token":
        return np.asarray(outputs[artifact.output_name][:, 0])
    return np.asarray(outputs[what.removeprefix("mean of ")].mean(axis=1))


def _evaluated(
    artifact: Artifact, runtime: str, provider: str, own: _Told, training: _Told | None, reference: Artifact
) -> tuple[Neighbours | None, NDArray[np.int64], FeatureEvaluation]:
    """The neighbours of each image, the classes of those that they are sought among, and what came of it."""
    labels, known = _numbers(own, training)
    every = [own] if training is None else [own, training]
    bad = sum(int((~np.isfinite(one.vectors).all(axis=1)).sum()) for one in every)
    broken = sum(one.broken for one in every)
    neighbours, knn, linear, count = None, 0, 0, len(labels)
    if not bad:
        vectors = None if training is None else training.vectors
        neighbours = nearest(own.vectors, vectors)
        knn = int((neighbours.classes(known) == labels).sum())
        linear = int((linear_probe(own.vectors, labels, vectors, known) == labels).sum())
    failures = [f"the outputs of {bad} images are NaN or infinite"] if bad else []
    failures += [f"{broken} images could not be read, and are left out"] if broken else []
    result = FeatureEvaluation(
        artifact=artifact,
        runtime=runtime,
        provider=provider,
        images=count,
        train=None if training is None else len(known),
        output=vector_of(artifact),
        knn=knn / count,
        knn_interval=interval_95(knn, count),
        linear_probe=linear / count,
        linear_probe_interval=interval_95(linear, count),
        agreement=None,
        shared_neighbours=None,
        reference=reference,
        failures=tuple(failures),
        finite=not bad,
        broken=broken,
    )
    return neighbours, known, result


def _agreed(
    neighbours: Neighbours | None,
    known: NDArray[np.int64],
    result: FeatureEvaluation,
    compared: tuple[Neighbours | None, NDArray[np.int64], FeatureEvaluation] | None,
) -> FeatureEvaluation:
    others = None if compared is None else compared[0]
    if others is None or neighbours is None:
        alone = () if compared is not None else (ALONE,)
        return dataclasses.replace(result, failures=(*result.failures, *alone))
    same = float((neighbours.classes(known) == others.classes(known)).mean())
    return dataclasses.replace(result, agreement=same, shared_neighbours=neighbours.shared(others))


def to_json(result: FeatureEvaluation) -> dict[str, Any]:
    """One result of the `evaluate` command for a model without a head; `top1` and `top5` do not apply to it."""
    return {
        "artifact": str(result.artifact.path),
        **({"image_size": result.artifact.taken_size} if result.artifact.taken_size else {}),
        "runtime": result.runtime,
        "provider": result.provider,
        "images": result.images,
        "top1": None,
        "top5": None,
        "agreement": result.agreement,
        "reference": str(result.reference.path),
        "confusions": [],
        "features": {
            "output": result.output,
            "train": result.train,
            "k": NEIGHBOURS,
            "knn": result.knn,
            "knn_interval": list(result.knn_interval),
            "linear_probe": result.linear_probe,
            "linear_probe_interval": list(result.linear_probe_interval),
            "shared_neighbours": result.shared_neighbours,
        },
        "failures": [*result.failures, "top-1 and top-5 do not apply to a model without a head"],
        "finite": result.finite,
    }
