"""Metrics of how far outputs are from the reference's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.choices import Probabilities

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Metrics:
    """Figures of outputs `(images, …)` against a reference; None where one does not apply.

    Args:
        max_abs: largest difference of any output.
        rms: root of the mean squared difference.
        cosine: smallest cosine of any image's output with its reference.
        snr_db: signal to noise in dB; None when the outputs are equal.
        top1_agreement: fraction of images with the same first class; None for features.
        top5_agreement: mean fraction of the reference's five first classes that are among the output's.
        kl: largest Kullback-Leibler divergence of the softmaxes, in nats; None for features.
        relative: largest length of any image's difference, as a fraction of its reference's length.
        flips: fraction of images whose first class changed though the reference's leads by more than the noise.
        token_cosine: smallest cosine of any token's features with their reference; None for logits.
        centred_cosine: cosine of all outputs with the reference once the reference's mean over the images is taken
            from both; a constant has at most zero.
        centred_snr_db: power of the reference about that mean over the noise, in dB; a constant has at most zero.
        total_variation: largest total variation distance of any distribution from its reference, half the sum of the
            differences; of probabilities that exclude no other, the largest difference; None where there are none.
        worst: index of the worst value, image first.
        notes: figures that do not apply, and why.
    """

    max_abs: float | None = None
    rms: float | None = None
    cosine: float | None = None
    snr_db: float | None = None
    top1_agreement: float | None = None
    top5_agreement: float | None = None
    kl: float | None = None
    relative: float | None = None
    flips: float | None = None
    token_cosine: float | None = None
    centred_cosine: float | None = None
    centred_snr_db: float | None = None
    total_variation: float | None = None
    worst: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()


def measure(
    outputs: NDArray[Any],
    reference: NDArray[Any],
    *,
    classes: bool,
    noise: float = 0.0,
    shares: Probabilities | None = None,
) -> Metrics:
    """All figures of finite `outputs` against a finite `reference` of the same shape `(images, …)`.

    Args:
        outputs: what an engine answered.
        reference: what it should have answered.
        classes: whether the last axis is of classes, so that they can be compared.
        shares: what made probabilities of the last axis; None where it is none.
        noise: a reference's first class that leads by no more than this may change without being counted as a flip.
    """
    values, truth = outputs.astype(np.float64), reference.astype(np.float64)
    mean = truth.mean(axis=0, keepdims=True)
    difference = np.abs(values - truth)
    noise_power = float(np.mean(difference**2))
    rows, true_rows = (rows.reshape(len(truth), -1) for rows in (values, truth))
    tokens, true_tokens = (rows.reshape(-1, truth.shape[-1]) for rows in (values, truth))
    cosine = _cosine(rows, true_rows)
    centred = _cosine((values - mean).reshape(1, -1), (truth - mean).reshape(1, -1))
    varies = bool((truth - mean).any())
    lengths = np.linalg.norm(true_rows, axis=1)
    notes = [] if classes else ["top-1, top-5, flips and KL do not apply to features"]
    if cosine is None:
        notes.append("an image's output or its reference is zero, so there is no cosine")
    if noise_power and not truth.any():
        notes.append("the reference is zero, so there is no signal to noise ratio")
    if centred is None:
        notes.append("the output or the reference is the same for every image, so there is no centred cosine")
    return Metrics(
        max_abs=float(difference.max()),
        rms=math.sqrt(noise_power),
        cosine=cosine,
        snr_db=_decibels(float(np.mean(truth**2)), noise_power) if truth.any() else None,
        top1_agreement=float(shared_classes(values, truth, 1).mean()) if classes else None,
        top5_agreement=float(shared_classes(values, truth, 5).mean()) if classes else None,
        kl=_divergence(values, truth, shares) if classes else None,
        relative=float((np.linalg.norm(rows - true_rows, axis=1) / lengths).max()) if lengths.all() else None,
        flips=_flips(values, truth, noise) if classes else None,
        token_cosine=None if classes else _cosine(tokens, true_tokens),
        centred_cosine=centred,
        centred_snr_db=_decibels(float(np.mean((truth - mean) ** 2)), noise_power) if varies else None,
        total_variation=_total_variation(difference, shares),
        worst=tuple(int(place) for place in np.unravel_index(int(difference.argmax()), difference.shape)),
        notes=tuple(notes),
    )


def _cosine(values: Values, truth: Values) -> float | None:
    lengths = np.linalg.norm(values, axis=1) * np.linalg.norm(truth, axis=1)
    return float(((values * truth).sum(axis=1) / lengths).min()) if lengths.all() else None


def _decibels(signal: float, noise: float) -> float | None:
    return 10 * math.log10(signal / noise) if noise and signal else None


def shared_classes(values: Values, truth: Values, count: int) -> NDArray[np.bool_]:
    """Which of the first `count` classes of `values` are among those of `truth`, `(…, count)`."""
    count = min(count, truth.shape[-1])
    found, expected = (np.argsort(-logits, axis=-1, kind="stable")[..., :count] for logits in (values, truth))
    shared: NDArray[np.bool_] = (found[..., :, None] == expected[..., None, :]).any(axis=-1)
    return shared


def _flips(values: Values, truth: Values, noise: float) -> float:
    changed = values.argmax(axis=-1) != truth.argmax(axis=-1)
    if truth.shape[-1] < 2:
        return 0.0
    first_two = np.sort(truth, axis=-1)[..., -2:]
    return float((changed & (first_two[..., 1] - first_two[..., 0] > noise)).mean())


def divergences(values: Values, truth: Values) -> Values:
    """Kullback-Leibler divergence of each softmax of `values` from that of `truth`, in nats."""
    log_p, log_q = _log_softmax(truth), _log_softmax(values)
    found: Values = np.maximum(0.0, (np.exp(log_p) * (log_p - log_q)).sum(axis=-1))
    return found


def _total_variation(difference: Values, shares: Probabilities | None) -> float | None:
    if shares is None:
        return None
    return float(difference.max() if shares is Probabilities.SIGMOID else 0.5 * difference.sum(axis=-1).max())


def _divergence(values: Values, truth: Values, shares: Probabilities | None) -> float | None:
    if shares is Probabilities.SIGMOID:  # which are no distribution
        return None
    if shares is None:
        return float(divergences(values, truth).max())
    p, q = (np.maximum(probabilities, np.finfo(np.float64).tiny) for probabilities in (truth, values))
    return max(0.0, float((p * np.log(p / q)).sum(axis=-1).max()))


def _log_softmax(logits: Values) -> Values:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    result: Values = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
