"""What one worker of a cluster does with images, and what it needs for that."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import in_words
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.data.decoding import Decoder
from vit_deploy.data.embedding import Model
from vit_deploy.data.items import Item
from vit_deploy.data.rows import Rows
from vit_deploy.runtimes import GPU_PROVIDERS, RuntimeOptions, Session, is_asked_for_gpu, open_session
from vit_deploy.runtimes.classify import Classifier, Prediction, checkpoint_classifier, open_classifier

CLUSTERS = Registry("cluster", {"ray": Plugin("vit_deploy.data.cluster:over_ray", "ray", ("ray", "pyarrow", "pandas"))})
LOCAL = "local"  # the address of a cluster that is started here, and ends with the run
GROUP = 32  # images that a worker takes at once, or a few more: a whole number of batches
COPIES = 3  # of a model's files that an engine may hold in memory

Run = Callable[[Sequence[Item]], Any]


class Work(Protocol):
    """What is done with images."""

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """What is run; the files travel with it."""

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The engine of each."""

    @property
    def options(self) -> RuntimeOptions:
        """How they are run."""

    def open(self, artifacts: Sequence[Artifact]) -> contextlib.AbstractContextManager[Run]:
        """Load the artifacts, from where they lie on this node."""


@dataclass(frozen=True)
class Embedding:
    """The rows of `embed`.

    Args:
        model: what they are computed by.
    """

    model: Model

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """The artifact that is run."""
        return (self.model.artifact,)

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Its engine."""
        return (self.model.runtime,)

    @property
    def options(self) -> RuntimeOptions:
        """How it is run."""
        return self.model.options

    @contextlib.contextmanager
    def open(self, artifacts: Sequence[Artifact]) -> Iterator[Run]:
        """Load it."""
        model = dataclasses.replace(self.model, artifact=artifacts[0])
        with open_session(model.artifact, model.runtime, model.options) as session:

            def run(items: Sequence[Item]) -> tuple[Rows, str]:
                return model.rows(session, items, model.decoder(items)), session.provider

            yield run


@dataclass(frozen=True)
class Outputs:
    """Failures of images, and what models answer to the others.

    Args:
        failures: why an image could not be read; empty where it could.
        values: outputs of each model `(readable, …)`.
        providers: what executed the graph of each.
        expected: outputs of the model that they are compared with; None where there is none, or no readable image.
    """

    failures: tuple[str, ...]
    values: tuple[NDArray[np.float32], ...]
    providers: tuple[str, ...]
    expected: NDArray[Any] | None = None


Answer = Callable[[Session, Artifact, NDArray[Any]], NDArray[Any]]
"""Takes from a loaded artifact what is evaluated of it, `(batch, …)`, for a batch of its inputs."""


def outputs_of(session: Session, artifact: Artifact, images: NDArray[Any]) -> NDArray[Any]:
    """The artifact's own output."""
    return session.infer(images)


@dataclass(frozen=True)
class Other:
    """A model beside those that are evaluated, whose answers theirs are compared with.

    Args:
        model: an artifact, or a checkpoint that NumPy runs.
        runtime: the engine of an artifact.
    """

    model: Artifact | Checkpoint
    runtime: str = ""

    def __reduce__(self) -> Any:
        model = self.model
        if isinstance(model, Artifact):
            return Other, (model, self.runtime)
        fields = {part.name: getattr(model, part.name) for part in dataclasses.fields(model)}
        return _of_checkpoint, ({**fields, "weights": dict(model.weights), "ranges": dict(model.ranges)},)

    @contextlib.contextmanager
    def open(self, there: Artifact | None, options: RuntimeOptions) -> Iterator[Classifier]:
        """Load it.

        Args:
            there: the artifact where it lies on this node.
            options: how to run it.
        """
        if isinstance(self.model, Checkpoint):
            yield checkpoint_classifier(self.model)
            return
        assert there is not None
        with open_classifier(there.directory, self.runtime, options) as classifier:
            yield classifier


def _of_checkpoint(fields: Mapping[str, Any]) -> Other:
    """The inverse of pickling one, whose views of weights cannot be pickled themselves."""
    return Other(Checkpoint(**fields))


@dataclass(frozen=True)
class Evaluating:
    """The outputs that `evaluate` counts, a batch after the other.

    Args:
        judged: artifacts that are run side by side.
        engines: the engine of each.
        options: how to run them.
        batch: images a call.
        answer: what is taken of each.
        other: a model that they are compared with; None for none.
    """

    judged: tuple[Artifact, ...]
    engines: tuple[str, ...]
    options: RuntimeOptions
    batch: int
    answer: Answer = outputs_of
    other: Other | None = None

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """All that travel, the other one last if it is an artifact."""
        more = () if self.other is None or isinstance(self.other.model, Checkpoint) else (self.other.model,)
        return (*self.judged, *more)

    @property
    def runtimes(self) -> tuple[str, ...]:
        """The engine of each."""
        return (*self.engines, *(() if self.other is None or not self.other.runtime else (self.other.runtime,)))

    @contextlib.contextmanager
    def open(self, artifacts: Sequence[Artifact]) -> Iterator[Run]:
        """Load them."""
        with contextlib.ExitStack() as stack:
            judged = artifacts[: len(self.judged)]
            sessions = [
                stack.enter_context(open_session(artifact, runtime, self.options))
                for artifact, runtime in zip(judged, self.engines, strict=True)
            ]
            other = None
            if self.other is not None:
                usual = of_one_worker(RuntimeOptions(threads=self.options.threads))
                there = artifacts[-1] if len(artifacts) > len(judged) else None
                other = stack.enter_context(self.other.open(there, usual))
            inputs = [(artifact.preprocess, artifact.config.image_size) for artifact in judged]
            asked = [] if other is None else [(other.preprocess, other.config.image_size)]
            kinds = tuple(dict.fromkeys(inputs + asked))
            decoder = Decoder(kinds)

            def run(items: Sequence[Item]) -> list[Outputs]:
                found = []
                for part in decoder(items).parts(self.batch):
                    pixels = dict(zip(kinds, part.pixels, strict=True))
                    some = len(part.pixels[0]) > 0
                    values = [
                        self.answer(session, artifact, _inputs(artifact, pixels[kind]))
                        if some
                        else np.zeros((0, *artifact.output_shape), np.float32)
                        for artifact, session, kind in zip(judged, sessions, inputs, strict=True)
                    ]
                    expected = other.answers(pixels[asked[0]]) if other is not None and some else None
                    providers = tuple(session.provider for session in sessions)
                    found.append(Outputs(part.failures, tuple(values), providers, expected))
                return found

            yield run


def _inputs(artifact: Artifact, pixels: NDArray[np.uint8]) -> NDArray[Any]:
    return pixels if artifact.input.preprocessing_inside else artifact.preprocess.normalize(pixels)


@dataclass(frozen=True)
class Predicting:
    """The classes that `predict` sees.

    Args:
        artifacts: the one that is run.
        runtimes: its engine.
        options: how to run it.
        top: how many classes of each image.
    """

    artifacts: tuple[Artifact, ...]
    runtimes: tuple[str, ...]
    options: RuntimeOptions
    top: int

    @contextlib.contextmanager
    def open(self, artifacts: Sequence[Artifact]) -> Iterator[Run]:
        """Load it."""
        from vit_deploy.data.answering import predictions

        artifact, size = artifacts[0], in_words(artifacts[0].config.image_size)
        with open_classifier(artifact.directory, self.runtimes[0], self.options, image_size=size) as classifier:

            def run(items: Sequence[Item]) -> list[Prediction]:
                decoder = Decoder(((classifier.preprocess, classifier.config.image_size),))
                return list(predictions(classifier, items, decoder(items), self.top))

            yield run


@dataclass(frozen=True)
class Needs:
    """What one worker asks of a node.

    Args:
        cpus: cores.
        gpus: GPUs.
        memory: bytes.
    """

    cpus: int
    gpus: int
    memory: int


def of_one_worker(options: RuntimeOptions) -> RuntimeOptions:
    """The options of one worker among many: on a processor one thread, where none are asked for."""
    if options.threads is not None or options.provider in GPU_PROVIDERS:
        return options
    return dataclasses.replace(options, threads=1)


def needs_of(work: Work) -> Needs:
    """What one worker of it asks of a node: a core or the threads that were asked for, a GPU where one runs it."""
    options = work.options
    on_gpu = any(is_asked_for_gpu(runtime, options.provider) for runtime in work.runtimes)
    bytes_of_models = sum(artifact.model_bytes for artifact in work.artifacts)
    other = getattr(work, "other", None)
    if other is not None and isinstance(other.model, Checkpoint):
        bytes_of_models += sum(weight.nbytes for weight in other.model.weights.values())
    return Needs(options.threads or 1, int(on_gpu), COPIES * bytes_of_models + (256 << 20))
