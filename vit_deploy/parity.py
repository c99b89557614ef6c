"""Does an artifact still compute the function of its checkpoint?"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.artifact import Artifact
from vit_deploy.errors import ConfigError
from vit_deploy.golden import Golden, read_golden
from vit_deploy.runtimes import RUNTIMES, RUNTIMES_OF_FORMAT, RuntimeOptions

NOISE_FACTOR = 10.0  # an fp32 engine may differ from the reference by this many times the noise floor


@dataclass(frozen=True)
class Parity:
    """How far an output is from the reference's, and whether that is near enough.

    Args:
        max_abs: largest difference of any output.
        rms: root of the mean squared difference.
        cosine: smallest cosine of any image's output with its reference.
        snr_db: signal to noise in dB; None when the outputs are equal.
        top1_agreement: fraction of images with the same first class; None for features.
        top5_agreement: mean fraction of the reference's five first classes that are among the output's.
        kl: largest Kullback-Leibler divergence of the softmaxes, in nats; None for features.
        tolerance: that `max_abs` was held to.
        worst: index of the worst value, image first.
        failures: in words; those in `notes` are no failures.
        notes: figures that do not apply, and why.
    """

    max_abs: float | None
    rms: float | None
    cosine: float | None
    snr_db: float | None
    top1_agreement: float | None
    top5_agreement: float | None
    kl: float | None
    tolerance: float
    worst: tuple[int, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    def failed(self, reason: str) -> Parity:
        """A copy with one failure more."""
        return dataclasses.replace(self, failures=(*self.failures, reason))


@dataclass(frozen=True)
class Verification:
    """One artifact, proven or not, in one runtime."""

    artifact: Artifact
    runtime: str
    provider: str
    parity: Parity


def verify(artifact: Artifact, *, runtime: str | None = None, golden: Golden | None = None) -> Verification:
    """Run an artifact on its golden images and compare with the recorded outputs.

    Args:
        artifact: the bundle.
        runtime: of those that take its format; None takes the first.
        golden: instead of the bundle's own.

    Raises:
        ArtifactError: the golden data are missing or damaged.
        ConfigError: the runtime is unknown or does not take the format.
        MissingEngineError, EngineError: the runtime is not installed or refuses the file.
    """
    takers = RUNTIMES_OF_FORMAT[artifact.format]
    name = runtime or takers[0]
    RUNTIMES.check(name)
    if name not in takers:
        raise ConfigError(f"{name} does not run {artifact.model_path}", fix=f"{', '.join(takers)} does")
    golden = golden or read_golden(artifact)
    engine = RUNTIMES.load(name)()
    with engine.open(artifact, RuntimeOptions()) as session:
        outputs = session.infer(golden.images)
        provider = session.provider
    return Verification(artifact, name, provider, judge(outputs, golden, classes=artifact.config.include_top))


def judge(outputs: NDArray[Any], golden: Golden, *, classes: bool) -> Parity:
    """Compare fp32 outputs with golden ones, held to ten times the model's own noise floor.

    Golden outputs that are all alike prove nothing, so they never pass.
    """
    tolerance = NOISE_FACTOR * golden.noise_floor
    parity = compare(outputs, golden.outputs, tolerance, classes=classes)
    if parity.ok and golden.spread <= tolerance:
        inconclusive = (
            f"inconclusive: the reference's outputs differ by only {golden.spread:.3g} between images, "
            f"within the tolerance of {tolerance:.3g}, so a constant would pass (is the head still zero?)"
        )
        return parity.failed(inconclusive)
    return parity


def compare(outputs: NDArray[Any], reference: NDArray[Any], tolerance: float, *, classes: bool) -> Parity:
    """All metrics of `outputs` against `reference`, both `(images, …)`; NaN and wrong shapes never pass.

    Args:
        outputs: what an engine answered.
        reference: what it should have answered.
        tolerance: for the largest absolute difference.
        classes: whether the last axis is logits, so that classes can be compared.
    """
    nothing = Parity(None, None, None, None, None, None, None, tolerance)
    if outputs.shape != reference.shape:
        return nothing.failed(f"the output has shape {outputs.shape}, expected {reference.shape}")
    values, truth = outputs.astype(np.float64), reference.astype(np.float64)
    if not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        return nothing.failed(f"{bad} of {values.size} outputs are NaN or infinite")
    if not truth.size or not np.isfinite(truth).all():
        return nothing.failed("the reference holds no outputs, or some that are NaN or infinite")
    difference = np.abs(values - truth)
    max_abs = float(difference.max())
    noise = float(np.mean(difference**2))
    cosine = _cosine(values, truth)
    notes = [] if classes else ["top-1, top-5 and KL do not apply to features"]
    if cosine is None:
        notes.append("an image's output or its reference is zero, so there is no cosine")
    if noise and not truth.any():
        notes.append("the reference is zero, so there is no signal to noise ratio")
    failures: tuple[str, ...] = ()
    if not max_abs <= tolerance:
        failures = (f"largest difference {max_abs:.3g} is above the tolerance of {tolerance:.3g}",)
    return Parity(
        max_abs=max_abs,
        rms=math.sqrt(noise),
        cosine=cosine,
        snr_db=10 * math.log10(float(np.mean(truth**2)) / noise) if noise and truth.any() else None,
        top1_agreement=_top_agreement(values, truth, 1) if classes else None,
        top5_agreement=_top_agreement(values, truth, 5) if classes else None,
        kl=_divergence(values, truth) if classes else None,
        tolerance=tolerance,
        worst=tuple(int(each) for each in np.unravel_index(int(difference.argmax()), difference.shape)),
        failures=failures,
        notes=tuple(notes),
    )


def _cosine(values: NDArray[np.float64], truth: NDArray[np.float64]) -> float | None:
    a, b = values.reshape(len(values), -1), truth.reshape(len(truth), -1)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / lengths).min()) if lengths.all() else None


def _top_agreement(values: NDArray[np.float64], truth: NDArray[np.float64], count: int) -> float:
    count = min(count, truth.shape[-1])
    found, expected = (np.argsort(-each, axis=-1, kind="stable")[..., :count] for each in (values, truth))
    shared = (found[..., :, None] == expected[..., None, :]).any(axis=-1)
    return float(shared.mean())


def _divergence(values: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    log_p, log_q = _log_softmax(truth), _log_softmax(values)
    return max(0.0, float((np.exp(log_p) * (log_p - log_q)).sum(axis=-1).max()))


def _log_softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
