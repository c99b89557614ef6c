"""Parity of outputs by name with what is recorded of each."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.outputs import Output
from vit_deploy.verification.golden import Golden
from vit_deploy.verification.parity import Parity, form_of, judge
from vit_deploy.verification.tolerances import Limits, tolerance_for


def judge_named(
    values: NDArray[Any], output: Output, golden: Golden, artifact: Artifact, limits: Limits, precision: str
) -> Parity:
    """Compare one of several outputs with what is recorded of it.

    Args:
        values: what an engine answered to the golden images, `(images, …)`.
        output: which output.
        golden: golden data that have this output.
        artifact: the artifact.
        limits: those that are held instead of the precision's own.
        precision: that it is held to.

    Raises:
        ConfigError: the limits leave nothing to hold.
    """
    recorded, form = golden.named[output.name], form_of(artifact, output)
    usual = tolerance_for(precision, recorded.noise_floor, shares=form.shares is not None)
    held = limits.apply(usual, precision)
    if not set(held.held()) - set(form.foreign):  # what was asked for does not fit this output
        held = usual
    expected = (len(golden.images), *output.shape(artifact.config))
    nothing = Parity(tolerance=held)
    if values.shape != expected:
        return nothing.failed(f"the output has shape {values.shape}, expected {expected}")
    if not np.isfinite(values).all():
        return nothing.failed(f"{int((~np.isfinite(values)).sum())} of {values.size} outputs are NaN or infinite")
    part = dataclasses.replace(golden, outputs=recorded.values, noise_floor=recorded.noise_floor)
    found = judge(recorded.kept.of(values, output.name), part, classes=form.classes, tolerance=held, shares=form.shares)
    return dataclasses.replace(found, compared=recorded.kept.to_dict())


def worst_of(judged: Mapping[str, Parity]) -> Parity:
    """The parity of the worst output, with the failures of all, each after the name of its output."""
    failures = tuple(f"{name}: {failure}" for name, parity in judged.items() for failure in parity.failures)
    worst = min(judged.values(), key=_standing)
    if not failures:
        return worst
    return dataclasses.replace(
        worst, failures=failures, inconclusive=all(one.ok or one.inconclusive for one in judged.values())
    )


def _standing(parity: Parity) -> tuple[int, float]:
    """The worse, the less: failures first, then by how much of what it is allowed an output uses."""
    rank = 2 if parity.ok else 1 if parity.inconclusive else 0
    largest = parity.tolerance.max_abs
    if largest is not None and parity.max_abs is not None:
        return rank, -parity.max_abs / largest
    if parity.total_variation is not None and parity.tolerance.total_variation:
        return rank, -parity.total_variation / parity.tolerance.total_variation
    return rank, -1.0 if parity.snr_db is None else -(10 ** (((parity.tolerance.snr_db or 0.0) - parity.snr_db) / 20))
