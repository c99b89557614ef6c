"""Figures to choose a precision by: size, speed and accuracy beside fp32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core import cost
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.format import Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.quantities import milliseconds_apart
from vit_deploy.exporters.proving import proving_provider
from vit_deploy.exporters.publish import Progress
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.labelled import read_labelled
from vit_deploy.exporters.quantization.outputs import CHUNK, answers, cosines
from vit_deploy.exporters.quantization.recipes import Activations
from vit_deploy.performance.bench import Case, Plan, bench
from vit_deploy.performance.confidence import Interval
from vit_deploy.performance.latency import Latency

PLAN = Plan(seconds=1.0, rounds=5)
WORK_FLOP = 1.5e11  # that comparing the answers of one artifact may take: a second or two
FEWEST = 8  # images that are compared all the same
SLOWER = 1.03  # times fp32's latency, from which a precision is called slower where chance does not explain it


@dataclass(frozen=True)
class Facts:
    """One artifact beside its format's fp32.

    Args:
        bytes: the size of the model files.
        fp32_bytes: the size of fp32's model files.
        latency_ms: the latency of the median call, batch of the file, in milliseconds; None where it was not timed.
        fp32_latency_ms: the latency of fp32, timed in turns with it, in milliseconds.
        cosine: mean over the images of the cosine with fp32's outputs.
        agreement: fraction of images with fp32's first class; None for features.
        images: that both were measured on.
        top1: fraction of labelled images that are right; None without labels.
        fp32_top1: the top-1 accuracy of fp32.
        changed_by_mates: fraction of images with another first class among `CHUNK` in a batch than alone, of a file
            that scales activations by the whole batch; None for other files and for features.
        latency_ratio_interval: the interval of the ratio of latencies; None for too few calls.
        unsteady: why the latency is not to be trusted; empty where it is.
    """

    bytes: int
    fp32_bytes: int
    latency_ms: float | None
    fp32_latency_ms: float | None
    cosine: float
    agreement: float | None
    images: int
    top1: float | None = None
    fp32_top1: float | None = None
    changed_by_mates: float | None = None
    latency_ratio_interval: Interval | None = None
    unsteady: tuple[str, ...] = ()

    @property
    def size_ratio(self) -> float:
        """The size as a fraction of fp32's."""
        return self.bytes / self.fp32_bytes

    @property
    def latency_ratio(self) -> float | None:
        """The latency as a fraction of fp32's."""
        if self.latency_ms is None or self.fp32_latency_ms is None:
            return None
        return self.latency_ms / self.fp32_latency_ms

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; null where something was not measured."""
        interval = self.latency_ratio_interval
        return {
            **vars(self),
            "size_ratio": self.size_ratio,
            "latency_ratio": self.latency_ratio,
            "latency_ratio_interval": None if interval is None else [interval.low, interval.high],
            "unsteady": list(self.unsteady),
        }

    @property
    def is_slower(self) -> bool:
        """Whether it takes longer than fp32, by more than chance explains."""
        ratio, interval = self.latency_ratio, self.latency_ratio_interval
        return ratio is not None and ratio > SLOWER and interval is not None and interval.low > 1


def compare_with_fp32(
    source: Artifact,
    artifacts: Sequence[Artifact],
    images: Calibration,
    options: QuantizeOptions,
    progress: Progress,
) -> dict[str, Facts]:
    """Facts of fp32 and of each artifact made of it, by `<format>-<precision>`.

    Args:
        source: the fp32 artifact.
        artifacts: published artifacts.
        images: that answers are compared on where no labelled ones are given.
        options: whether to measure speed, and labelled images.
        progress: called with what is being done.

    Raises:
        DataError: labelled images that cannot be used.
    """
    compared = [source, *artifacts]
    labelled = None if options.data is None else read_labelled(options.data, source)
    shown = images.images[: _affordable(source.config)] if labelled is None else labelled
    latencies = _latencies(compared, progress) if options.measure_speed else [None] * len(compared)
    exact = answers(source, shown)
    found = {}
    for artifact, latency in zip(compared, latencies, strict=True):
        progress(f"comparing the answers of {artifact.name}")
        outputs = exact if artifact is source else answers(artifact, shown)
        found[artifact.name] = Facts(
            bytes=artifact.model_bytes,
            fp32_bytes=source.model_bytes,
            latency_ms=None if latency is None else latency.p50_ms,
            fp32_latency_ms=None if latencies[0] is None else latencies[0].p50_ms,
            cosine=float(cosines(outputs, exact).mean()),
            agreement=_share(outputs, exact.argmax(axis=-1)) if source.gives_classes else None,
            images=len(shown),
            top1=None if labelled is None else _share(outputs, labelled.classes),
            fp32_top1=None if labelled is None else _share(exact, labelled.classes),
            changed_by_mates=_changed_by_mates(artifact, images.images[: _affordable(source.config)]),
            latency_ratio_interval=_ratio_interval(latency, latencies[0]),
            unsteady=() if latency is None else latency.unsteady,
        )
    return found


def verdicts(facts: dict[str, Facts]) -> list[str]:
    """Verdicts in plain words.

    They name artifacts whose answers depend on the batch, those slower than fp32 here, the fastest, and those whose
    latency is not to be trusted.
    """
    said = [
        f"{name} finds the ranges of activations over the whole batch, so that an image's answer depends on the "
        f"others: {fact.changed_by_mates:.1%} have another first class in batches of {CHUNK} than alone; with "
        "--batch 1, and in int8-static, it does not"
        for name, fact in facts.items()
        if fact.changed_by_mates is not None
    ]
    timed = {name: fact for name, fact in facts.items() if fact.latency_ms is not None}
    slower = [name for name, fact in timed.items() if fact.is_slower]
    for format in dict.fromkeys(name.split("-", 1)[0] for name in slower):
        own = {name: fact for name, fact in timed.items() if name.startswith(f"{format}-")}
        fastest = min(own, key=lambda name: own[name].latency_ms or np.inf)
        for name in (name for name in slower if name in own):
            fact = own[name]
            ms, fp32_ms = milliseconds_apart(fact.latency_ms or 0.0, fact.fp32_latency_ms or 0.0)
            said.append(
                f"{name} is slower than fp32 on this machine: {ms} ms against {fp32_ms} ms; "
                f"the fastest here is {fastest}{', but it was unsteady' if own[fastest].unsteady else ''}"
            )
    said += [f"{name} was unsteady: {'; '.join(fact.unsteady)}" for name, fact in timed.items() if fact.unsteady]
    return said


def _ratio_interval(latency: Latency | None, fp32: Latency | None) -> Interval | None:
    return None if latency is None or fp32 is None or latency is fp32 else latency.ratio_to(fp32)[1]


def _changed_by_mates(artifact: Artifact, images: NDArray[Any]) -> float | None:
    recipe = artifact.options.get("recipe", {})
    if recipe.get("activations") != Activations.DYNAMIC or artifact.input.batch is not None:
        return None
    if not artifact.gives_classes:
        return None
    alone = answers(artifact, (image[None] for image in images))
    return 1 - _share(answers(artifact, images), alone.argmax(axis=-1))


def _affordable(config: ViTConfig) -> int:
    return max(FEWEST, int(WORK_FLOP / (2 * cost.macs(config))))


def _latencies(artifacts: Sequence[Artifact], progress: Progress) -> Sequence[Latency | None]:
    """Latencies in each artifact's usual runtime; None for those made for a GPU where there is none."""
    providers = [proving_provider(artifact) for artifact in artifacts]
    if any(artifact.options.get("for") == Target.CUDA for artifact in artifacts) and "cpu" in providers:
        return [None] * len(artifacts)
    cases = [
        Case(
            Path(artifact.directory),
            FORMATS[artifact.format].proving_runtime,
            provider,
            batch=artifact.input.batch or 1,
        )
        for artifact, provider in zip(artifacts, providers, strict=True)
    ]
    return bench(cases, PLAN, lambda what, done: progress(what))


def _share(outputs: NDArray[np.float32], classes: NDArray[Any]) -> float:
    return float((outputs.argmax(axis=-1) == classes).mean())
