"""Parity of outputs with reference outputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.choices import Probabilities
from vit_deploy.verification.golden import Golden
from vit_deploy.verification.metrics import Metrics, measure
from vit_deploy.verification.tolerances import (
    LIMITS,
    NOISE_FACTOR,
    Tolerance,
    margin_noise,
    tolerance_for,
    tolerated_rms,
)

if TYPE_CHECKING:
    from vit_deploy.core.outputs import Output

CENTRED = ("centred_cosine", "centred_snr_db")


@dataclass(frozen=True)
class Parity(Metrics):
    """How far an output is from the reference's, and whether that is near enough.

    Args:
        tolerance: that the metrics were held to.
        failures: failures in words; those in `notes` are no failures.
        inconclusive: whether it failed only because these inputs cannot tell a right answer from a constant one.
        unproven: whether nothing was compared, because there was nothing here to run it on.
        compared: what of an output was compared, where it was not all; see `named_golden.Kept`.
    """

    tolerance: Tolerance = field(default_factory=Tolerance)
    failures: tuple[str, ...] = ()
    inconclusive: bool = False
    unproven: bool = False
    compared: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing failed."""
        return not self.failures

    @property
    def verdict(self) -> str:
        """The verdict in one word: same, inconclusive, unproven or different."""
        if self.ok:
            return "same"
        if self.unproven:
            return "unproven"
        return "inconclusive" if self.inconclusive else "different"

    def failed(self, reason: str) -> Parity:
        """A copy with one failure more."""
        return dataclasses.replace(self, failures=(*self.failures, reason), inconclusive=False)


def judge(
    outputs: NDArray[Any],
    golden: Golden,
    *,
    classes: bool,
    precision: str = "fp32",
    tolerance: Tolerance | None = None,
    shares: Probabilities | None = None,
) -> Parity:
    """Compare outputs with golden ones, held to what their precision allows; see `tolerances`.

    Golden outputs that cannot tell a right answer from a constant one prove nothing, so they never pass: either they
    are all alike, or they differ by less than the noise that the precision is allowed, and drown in it.

    Args:
        outputs: what an engine answered to the golden images.
        golden: images and the reference's outputs.
        classes: whether the last axis is logits.
        precision: the precision of the artifact.
        tolerance: instead of the precision's own.
        shares: what made probabilities of the last axis; None where it is none.
    """
    held = tolerance or tolerance_for(precision, golden.noise_floor, shares=shares is not None)
    signal_rms = float(np.sqrt(np.mean(np.square(golden.outputs)))) if golden.outputs.size else 0.0
    noise = margin_noise(held, golden.noise_floor, signal_rms)
    parity = compare(outputs, golden.outputs, held, classes=classes, noise=noise, shares=shares)
    floor = held.max_abs if held.max_abs is not None else NOISE_FACTOR * golden.noise_floor
    if parity.max_abs is None:
        return parity
    if parity.ok and golden.spread <= floor:
        why = f"by only {golden.spread:.3g} between images, within the tolerance of {floor:.3g}"
        return _inconclusive(parity, why, golden)
    ignores_images = golden.spread > floor and float(np.ptp(outputs, axis=0).max()) <= floor
    if parity.ok or held.snr_db is None or ignores_images:
        return parity
    spread_rms = float(np.sqrt(np.mean(np.square(golden.outputs - golden.outputs.mean(axis=0)))))
    allowed = tolerated_rms(held.snr_db, signal_rms)
    others = dataclasses.replace(held, **dict.fromkeys(CENTRED))
    if spread_rms > allowed or not compare(outputs, golden.outputs, others, classes=classes, noise=noise).ok:
        return parity
    why = f"by {spread_rms:.3g} (rms) between images, within the allowed noise of {allowed:.3g}"
    return _inconclusive(parity, why, golden)


def _inconclusive(parity: Parity, why: str, golden: Golden) -> Parity:
    alike = bool((golden.images == golden.images[:1]).all())
    hint = "give images that are not all alike" if alike else "is the head still zero?"
    reason = (
        f"inconclusive: the reference's outputs differ {why}, so they cannot tell a right "
        f"answer from a constant one ({hint})"
    )
    return dataclasses.replace(parity, failures=(reason,), inconclusive=True)


def compare(
    outputs: NDArray[Any],
    reference: NDArray[Any],
    tolerance: Tolerance | float,
    *,
    classes: bool,
    noise: float = 0.0,
    shares: Probabilities | None = None,
) -> Parity:
    """All metrics of `outputs` against `reference`, both `(images, …)`; NaN and wrong shapes never pass.

    Args:
        outputs: what an engine answered.
        reference: what it should have answered.
        tolerance: what the metrics are held to; a number is for the largest absolute difference.
        classes: whether the last axis is logits, so that classes can be compared.
        noise: first classes that lead by no more may change without being counted as flips.
        shares: what made probabilities of the last axis; None where it is none.
    """
    held = tolerance if isinstance(tolerance, Tolerance) else Tolerance(max_abs=tolerance)
    nothing = Parity(tolerance=held)
    if outputs.shape != reference.shape:
        return nothing.failed(f"the output has shape {outputs.shape}, expected {reference.shape}")
    if not np.isfinite(outputs).all():
        bad = int((~np.isfinite(outputs)).sum())
        return nothing.failed(f"{bad} of {outputs.size} outputs are NaN or infinite")
    if not reference.size or not np.isfinite(reference).all():
        return nothing.failed("the reference holds no outputs, or some that are NaN or infinite")
    metrics = measure(outputs, reference, classes=classes, noise=noise, shares=shares)
    return Parity(**vars(metrics), tolerance=held, failures=_failures(metrics, held, foreign(classes, shares)))


def foreign(classes: bool, shares: Probabilities | None = None) -> tuple[str, ...]:
    """Metrics that do not apply to outputs which are classes, or are not, or probabilities."""
    of_others = ("token_cosine",) if classes else ("top1_agreement", "top5_agreement", "kl", "flips")
    of_values = ("snr_db", "centred_snr_db", "token_cosine")
    return (*of_others, *(("total_variation",) if shares is None else of_values))


@dataclass(frozen=True)
class Form:
    """What the numbers of an output are.

    Args:
        classes: whether the last axis is of classes.
        shares: what made probabilities of the last axis; None where it is none.
    """

    classes: bool
    shares: Probabilities | None = None

    @property
    def foreign(self) -> tuple[str, ...]:
        """Metrics that do not apply to it."""
        return foreign(self.classes, self.shares)


def form_of(artifact: Artifact, output: Output | None = None) -> Form:
    """The form of an output.

    Args:
        artifact: that gives it.
        output: which one; None for the one that is read first.
    """
    if output is None:
        own = [one for one in artifact.named_outputs if one.name == artifact.output_name]
        if not own:
            return Form(artifact.config.include_top)
        output = own[0]
    from vit_deploy.core.outputs import Kind  # an artifact that has no outputs by name goes without

    if output.kind is Kind.PROBABILITIES:
        return Form(True, artifact.config.probabilities)
    return Form(output.kind is Kind.LOGITS, Probabilities.SOFTMAX if output.kind is Kind.ATTENTION else None)


def _failures(metrics: Metrics, tolerance: Tolerance, left_out: Collection[str]) -> tuple[str, ...]:
    failures = []
    for name, limit in tolerance.held().items():
        value, kind = getattr(metrics, name), LIMITS[name]
        if name in left_out:
            continue
        if value is None:
            if metrics.max_abs != 0:  # equal outputs have no noise, and a constant may be right
                failures.append(f"there is no {kind.words}, and it is held to {limit:.3g}{kind.unit}")
        elif not (value <= limit if kind.at_most else value >= limit):
            where = "above" if kind.at_most else "below"
            failures.append(f"{kind.words} {value:.3g}{kind.unit} is {where} the tolerance of {limit:.3g}{kind.unit}")
    return tuple(failures)
