"""Rows, outputs and predictions that a cluster computes, in the order of their images."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.options.streaming import StreamOptions
from vit_deploy.data.embedding import Model, Ready
from vit_deploy.data.items import Item, Source
from vit_deploy.data.rows import Rows
from vit_deploy.data.spreading import CLUSTERS, Embedding, Evaluating, Predicting
from vit_deploy.errors import UsageError
from vit_deploy.runtimes.classify import BATCH, Prediction

RAY = "ray"


def check_stream(reading: StreamOptions) -> None:
    """Refuse options that exclude each other, and a cluster whose library is not installed.

    Raises:
        UsageError: such options.
        MissingEngineError: Ray is not installed.
    """
    if reading.ray is None:
        return
    if reading.workers is not None:
        raise UsageError("--workers decode for this process, and with --ray every worker decodes for itself")
    CLUSTERS.check(RAY)


@contextlib.contextmanager
def rows_from_ray(address: str, model: Model, source: Source, start: int) -> Iterator[tuple[Ready, Callable[[], str]]]:
    """Rows of `embed`; see `embedding.computed_here`.

    Args:
        address: of the cluster.
        model: the model.
        source: the images.
        start: the place of the first.
    """
    providers: list[str] = []
    with CLUSTERS.load(RAY)(address, Embedding(model), source, batch=model.batch, start=start) as groups:

        def ready() -> Iterator[tuple[list[Item], Rows]]:
            for items, (rows, provider) in groups:
                providers[:] = [provider]
                yield items, rows

        yield ready(), lambda: providers[0] if providers else ""


@dataclass
class RayAnswers:
    """Outputs for `evaluate`; see `accuracy.Answers`.

    Attributes:
        address: of the cluster.
        work: what it does.
        source: the images.
        broken: where the reasons go why images could not be read, by their places.
        providers: what executed the graph of each artifact.
    """

    address: str
    work: Evaluating
    source: Source
    broken: MutableMapping[int, str]
    providers: Sequence[str] = field(default=())

    def __iter__(self) -> Iterator[tuple[Sequence[NDArray[np.float32]], NDArray[Any] | None]]:
        """Outputs of each artifact for each batch, and those of the other model."""
        place = 0
        with CLUSTERS.load(RAY)(self.address, self.work, self.source, batch=self.work.batch) as groups:
            for _, batches in groups:
                for outputs in batches:
                    self.broken.update({place + index: why for index, why in enumerate(outputs.failures) if why})
                    place += len(outputs.failures)
                    self.providers = outputs.providers
                    yield outputs.values, outputs.expected


def predictions_from_ray(address: str, work: Predicting, source: Source) -> Iterator[Prediction]:
    """Predictions of all images, in their order.

    Args:
        address: of the cluster.
        work: what it does.
        source: the images.
    """
    found: Any
    with CLUSTERS.load(RAY)(address, work, source, batch=BATCH) as groups:
        for _, found in groups:
            yield from found
