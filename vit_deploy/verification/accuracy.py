"""Accuracy on labelled images, and agreement with the fp32 artifact and with another model."""

from __future__ import annotations

import contextlib
import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.errors import DataError
from vit_deploy.runtimes import RuntimeOptions, Session, open_session, runtime_for

if TYPE_CHECKING:  # no device is asked for agreement, and images that were sent are no data set
    from vit_deploy.core.datasets import Classes, Pixels
    from vit_deploy.verification.agreement import Agreement, OtherModel

BATCH = 32  # images a call, where the file takes any number
NAMED = 100  # broken images that a document names
WORST = 5  # confusions that are told
FP32 = "fp32"
ALONE = "agreement needs a second artifact to agree with"

Progress = Callable[[str], object]


@dataclass(frozen=True)
class Confusion:
    """Images of one class that were taken for another.

    Args:
        actual: name of their class: its label, else that of its folder, else its number.
        predicted: what they were taken for.
        count: the number of such mistakes.
    """

    actual: str
    predicted: str
    count: int


@dataclass(frozen=True)
class Evaluation:
    """What one artifact made of the images.

    Args:
        artifact: that was run.
        runtime: that ran it.
        provider: what really executed the graph.
        images: the number of images.
        top1: fraction whose class was the first one.
        top5: fraction whose class was among the first five.
        agreement: fraction with the same first class as `reference`; None where nothing was compared.
        reference: the artifact agreed with.
        confusions: the most frequent ones, most frequent first.
        failures: what is wrong with the outputs, or does not apply, in words.
        finite: whether every output was a number.
        on: address of the machine that ran it; None for this one.
        against: agreement with a model that was given for it; None where none was.
        broken: why images could not be read; they are not counted.
    """

    artifact: Artifact
    runtime: str
    provider: str
    images: int
    top1: float
    top5: float
    agreement: float | None
    reference: Artifact
    confusions: tuple[Confusion, ...]
    failures: tuple[str, ...] = ()
    finite: bool = True
    on: str | None = None
    against: Agreement | None = None
    broken: tuple[str, ...] = ()


class LabelledImages(Protocol):
    """Images whose classes are known; see `core.datasets.Dataset`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes' folders; empty where labels are numbers."""

    @property
    def broken(self) -> Mapping[int, str]:
        """Why images are left out of the batches, by their places; of those that were asked for so far."""

    def __len__(self) -> int:
        """How many images."""

    def classes(self, artifact: Artifact) -> Classes:
        """The model's class of each image `(n,)`."""

    def batches(self, preprocess: Preprocess, image_size: tuple[int, int], size: int) -> Iterator[Pixels]:
        """All images in order, at most `size` at a time, as pixels of a model's size."""


class Answers(Protocol):
    """What models that run elsewhere answer."""

    @property
    def providers(self) -> Sequence[str]:
        """What executed the graph of each; known once there was an answer."""

    def __iter__(self) -> Iterator[tuple[Sequence[NDArray[np.float32]], NDArray[Any] | None]]:
        """Outputs of each model for each batch, of the images in it that could be read, and those of the other one."""


class _Tally:
    """What was counted of one artifact so far."""

    def __init__(self, artifact: Artifact, against: OtherModel | None) -> None:
        self.artifact = artifact
        self.against = None if against is None else against.count()
        self.first = self.among_five = self.agreed = self.not_finite = 0
        self.confused: Counter[tuple[int, int]] = Counter()

    def count(self, outputs: NDArray[np.float32], actual: Classes, expected: NDArray[Any] | None) -> Classes:
        """Add a batch; gives the first classes, -1 for outputs that are no numbers."""
        if self.against is not None and expected is not None:
            self.against.add(outputs, expected, actual)
        finite = np.isfinite(outputs).all(axis=-1)
        ranked = np.argsort(-outputs, axis=-1, kind="stable")[:, :5]
        ranked[~finite] = -1  # never right
        hits = ranked == actual[:, None]
        first: Classes = ranked[:, 0].astype(np.int64)
        self.first += int(hits[:, 0].sum())
        self.among_five += int(hits.any(axis=-1).sum())
        self.not_finite += int((~finite).sum())
        wrong = ~hits[:, 0] & finite
        self.confused.update(zip(actual[wrong].tolist(), first[wrong].tolist(), strict=True))
        return first


def evaluate(
    artifacts: Sequence[Artifact],
    dataset: LabelledImages,
    *,
    batch: int = BATCH,
    runtime: str | None = None,
    options: RuntimeOptions = RuntimeOptions(),
    against: OtherModel | None = None,
    answers: Answers | None = None,
    progress: Progress = lambda doing: None,
) -> list[Evaluation]:
    """Run all artifacts over the images in one pass, a batch at a time.

    Agreement is with the first fp32 artifact among them, and with the first one where none is fp32.

    Args:
        artifacts: artifacts, or `.keras` files.
        dataset: the images.
        batch: images a call; files made for a fixed batch take their own.
        runtime: that runs all of them; None takes the usual one of each.
        options: the options to run with.
        against: a model beside them, whose answers theirs are compared with too.
        answers: what they and the other model answer where they run elsewhere; None runs them here.
        progress: called with what is being done.

    Raises:
        ConfigError: a runtime that is unknown or does not take a format, or options of a GPU where none is used.
        DataError: classes or sizes that do not fit an artifact, or classes that are not those of the other model, or an
            image that cannot be read.
        MissingEngineError, EngineError: an engine that is not installed, or refused.
    """
    options = dataclasses.replace(options, largest_batch=options.largest_batch or batch)
    names = [runtime_for(artifact, runtime, options) for artifact in artifacts]
    classes = [dataset.classes(artifact) for artifact in artifacts]
    if against is not None:
        for artifact in artifacts:
            against.check(artifact)
    reference = next((index for index, artifact in enumerate(artifacts) if artifact.precision == FP32), 0)
    with contextlib.ExitStack() as stack:
        tallies = [_Tally(artifact, against) for artifact in artifacts]
        sessions = []
        for artifact, name in zip(artifacts, names, strict=True) if answers is None else ():
            progress(f"loading {artifact.path}")
            sessions.append(stack.enter_context(open_session(artifact, name, options)))
        done = 0
        for outputs, expected in (
            _answers_here(artifacts, sessions, dataset, batch, against) if answers is None else answers
        ):
            progress(f"{done} of {len(dataset)} images")
            size = min(batch, len(dataset) - done)
            places = [place for place in range(done, done + size) if place not in dataset.broken]
            done += size
            if not places:
                continue
            answered = [
                tally.count(values, actual[places], expected)
                for tally, values, actual in zip(tallies, outputs, classes, strict=True)
            ]
            for tally, first in zip(tallies, answered, strict=True):
                tally.agreed += int(((first == answered[reference]) & (first >= 0)).sum())
        broken = dict(dataset.broken)
        if len(broken) == done:
            raise DataError(f"not one of {done} images can be read: {broken[0]}", fix="give images that can be read")
        providers = [session.provider for session in sessions] if answers is None else answers.providers
        return [
            _evaluation(
                tally,
                name,
                provider,
                done - len(broken),
                artifacts[reference],
                dataset.names,
                broken,
                compared=len(artifacts) > 1,
            )
            for tally, name, provider in zip(tallies, names, providers, strict=True)
        ]


def _answers_here(
    artifacts: Sequence[Artifact],
    sessions: Sequence[Session],
    dataset: LabelledImages,
    batch: int,
    against: OtherModel | None,
) -> Iterator[tuple[list[NDArray[np.float32]], NDArray[Any] | None]]:
    """Outputs of each artifact for each batch, and those of the other model."""
    # Models of one size and one preprocessing see the same pixels, which are read once.
    inputs = [(artifact.preprocess, artifact.config.image_size) for artifact in artifacts]
    asked = [] if against is None else [(against.classifier.preprocess, against.classifier.config.image_size)]
    kinds = list(dict.fromkeys(inputs + asked))
    for groups in zip(*[dataset.batches(*kind, batch) for kind in kinds], strict=True):
        pixels = dict(zip(kinds, groups, strict=True))
        if not len(groups[0]):  # not one of them can be read
            yield [], None
            continue
        expected = None if against is None else against.logits(pixels[asked[0]])
        yield (
            [
                session.infer(
                    pixels[kind] if artifact.input.preprocessing_inside else artifact.preprocess.normalize(pixels[kind])
                )
                for artifact, session, kind in zip(artifacts, sessions, inputs, strict=True)
            ],
            expected,
        )


def _evaluation(
    tally: _Tally,
    runtime: str,
    provider: str,
    images: int,
    reference: Artifact,
    folders: Sequence[str],
    broken: Mapping[int, str],
    *,
    compared: bool,
) -> Evaluation:
    names = tally.artifact.labels or folders  # without labels the folders are the classes in order
    failures = []
    if tally.not_finite:
        failures.append(f"the outputs of {tally.not_finite} of {images} images are NaN or infinite")
    if broken:
        failures.append(f"{len(broken)} images cannot be read, and are not counted: {next(iter(broken.values()))}")
    if not compared:
        failures.append(ALONE)
    worst = sorted(tally.confused.items(), key=lambda item: (-item[1], item[0]))[:WORST]
    return Evaluation(
        artifact=tally.artifact,
        runtime=runtime,
        provider=provider,
        images=images,
        top1=tally.first / images,
        top5=tally.among_five / images,
        agreement=tally.agreed / images if compared else None,
        reference=reference,
        confusions=tuple(
            Confusion(_name(actual, names), _name(predicted, names), count) for (actual, predicted), count in worst
        ),
        failures=tuple(failures),
        finite=not tally.not_finite,
        broken=tuple(broken.values()),
        against=None if tally.against is None else tally.against.result(),
    )


def _name(index: int, names: Sequence[str]) -> str:
    return names[index] if names else str(index)


def to_json(result: Evaluation) -> dict[str, Any]:
    """One result of the `evaluate` command; fractions, and null for what does not apply."""
    more: dict[str, Any] = {} if result.against is None else {"against": result.against.to_dict()}
    if result.broken:
        more["broken"] = list(result.broken[:NAMED])
    return {
        "artifact": str(result.artifact.path),
        **({"image_size": result.artifact.taken_size} if result.artifact.taken_size else {}),
        "runtime": result.runtime,
        "provider": result.provider,
        "images": result.images,
        "top1": result.top1,
        "top5": result.top5,
        "agreement": result.agreement,
        "reference": str(result.reference.path),
        "confusions": [vars(confusion) for confusion in result.confusions],
        "failures": list(result.failures),
        "finite": result.finite,
        **more,
    }


def evaluation_in(record: Mapping[str, Any], artifacts: Mapping[str, Artifact]) -> Evaluation:
    """The evaluation on another machine that a record of `evaluate` tells of.

    Args:
        record: as `to_json` makes it, with `on`.
        artifacts: the artifacts that were sent, by their paths in the record.
    """
    same = ("runtime", "provider", "images", "top1", "top5", "agreement", "finite", "on")
    return Evaluation(
        artifact=artifacts[record["artifact"]],
        reference=artifacts[record["reference"]],
        confusions=tuple(Confusion(**confusion) for confusion in record["confusions"]),
        failures=tuple(record["failures"]),
        **{name: record[name] for name in same},
    )
