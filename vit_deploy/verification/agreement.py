"""Agreement of artifacts with the answers of another model to the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.errors import DataError
from vit_deploy.runtimes.classify import Classifier
from vit_deploy.verification.metrics import divergences, shared_classes

FEW = 5  # first classes that are compared beside the first one


@dataclass(frozen=True)
class OtherModel:
    """A model that artifacts are compared with, and that is not judged itself.

    Args:
        path: its path, or its name on a hub.
        classifier: what runs it.
    """

    path: Path
    classifier: Classifier

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        """Its answers `(images, classes)` to pixels of its size."""
        return self.classifier.answers(pixels)

    def count(self) -> AgreementCount:
        """A count for one artifact, of nothing yet."""
        return AgreementCount(self)

    def check(self, artifact: Artifact) -> None:
        """Refuse an artifact that has other classes.

        Raises:
            DataError: another number of classes, or the same names in another order.
        """
        counts = artifact.config.num_classes, self.classifier.config.num_classes
        if counts[0] != counts[1]:
            raise DataError(
                f"{artifact.path} has {counts[0]} classes, and {self.path} {counts[1]}",
                fix="give --against a model with the same classes",
            )
        ours, others = artifact.labels, self.classifier.labels
        if ours != others and sorted(ours) == sorted(others):
            raise DataError(
                f"{artifact.path} and {self.path} have the same classes in another order",
                fix="give --against a model whose classes are numbered alike",
            )


@dataclass(frozen=True)
class Agreement:
    """How far an artifact answers as another model does.

    Args:
        model: path of the other one, or its name.
        runtime: that ran the other one.
        top1: fraction of images with the same first class.
        top5: mean fraction of its five first classes that are among the artifact's.
        kl: mean Kullback-Leibler divergence of the artifact's softmax from its own, in nats; None where no image has
            numbers from both.
        right: fraction of images whose class is the other model's first one.
        failures: what is wrong with its outputs, in words.
    """

    model: Path
    runtime: str
    top1: float
    top5: float
    kl: float | None
    right: float
    failures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "model": str(self.model),
            "runtime": self.runtime,
            "top1_agreement": self.top1,
            "top5_agreement": self.top5,
            "mean_kl": self.kl,
            "top1": self.right,
            "failures": list(self.failures),
        }


class AgreementCount:
    """Agreement of one artifact with another model, counted batch by batch."""

    def __init__(self, model: OtherModel) -> None:
        self.model = model
        self.images = self.finite = self.not_finite = 0
        self.first = self.among_five = self.divergence = 0.0
        self.right = 0

    def add(self, outputs: NDArray[Any], expected: NDArray[Any], actual: NDArray[np.int64]) -> None:
        """Count a batch.

        Args:
            outputs: of the artifact, `(images, classes)`.
            expected: of the other model.
            actual: the class of each image.
        """
        values, truth = outputs.astype(np.float64), expected.astype(np.float64)
        numbers = np.isfinite(truth).all(axis=-1)
        self.images += len(truth)
        self.not_finite += int((~numbers).sum())
        self.right += int((truth.argmax(axis=-1)[numbers] == actual[numbers]).sum())
        both = numbers & np.isfinite(values).all(axis=-1)  # where either has no numbers, they do not agree
        values, truth = values[both], truth[both]
        self.finite += len(truth)
        self.first += float(shared_classes(values, truth, 1).mean(axis=-1).sum())
        self.among_five += float(shared_classes(values, truth, FEW).mean(axis=-1).sum())
        self.divergence += float(divergences(values, truth).sum())

    def result(self) -> Agreement:
        """What was counted so far, of one image or more."""
        lost, path = self.not_finite, self.model.path
        failures = [f"the outputs of {path} for {lost} of {self.images} images are NaN or infinite"] if lost else []
        if not self.finite:
            failures.append("no image has numbers from both, so there is no KL")
        return Agreement(
            model=path,
            runtime=self.model.classifier.runtime,
            top1=self.first / self.images,
            top5=self.among_five / self.images,
            kl=self.divergence / self.finite if self.finite else None,
            right=self.right / self.images,
            failures=tuple(failures),
        )
