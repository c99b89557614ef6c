"""How close to the reference an artifact of each precision has to be.

fp32 has no number of its own: what rounding alone does to this very model on its golden images, the noise floor, is
recorded with them, and an engine may be ten times as far. A deep model is so judged by its own depth.

The other precisions have numbers, chosen between what healthy models reach and what broken ones do. Measured on ViTs
with random weights from 2 to 12 layers: 16-bit weights leave a signal to noise ratio of 62 to 65 dB; bfloat16, for
weights and activations, 38 to 48; 8-bit weights 36 to 47 and with 8-bit activations 33; integer-only files about 10;
4-bit weights 11 to 15. It hardly depends on the model, so it is the measure of the arithmetic. A model that answers
the same for every image can have a good ratio all the same, since random and collapsed models nearly do; so the cosine
is held as well, after the reference's mean over the images is taken from both, where a constant has no more than zero.
Largest differences are not held: with fewer bits they measure the unluckiest of all values.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vit_deploy.errors import ConfigError

NOISE_FACTOR = 10.0  # an fp32 engine may differ from the reference by this many times the noise floor
SIGMAS = 3.0  # of the tolerated noise; a lead that is larger should not be overturned


@dataclass(frozen=True)
class Limit:
    """The direction in which a metric is held to its limit, and its name in words."""

    words: str
    unit: str = ""
    at_most: bool = False


LIMITS: Mapping[str, Limit] = {
    "max_abs": Limit("largest difference", at_most=True),
    "rms": Limit("root mean square difference", at_most=True),
    "relative": Limit("relative difference", at_most=True),
    "cosine": Limit("cosine"),
    "snr_db": Limit("signal to noise ratio", " dB"),
    "kl": Limit("Kullback-Leibler divergence", at_most=True),
    "top1_agreement": Limit("top-1 agreement"),
    "top5_agreement": Limit("top-5 agreement"),
    "flips": Limit("fraction of changed first classes", at_most=True),
    "token_cosine": Limit("cosine of the worst token"),
    "centred_cosine": Limit("cosine about the reference's mean"),
    "centred_snr_db": Limit("signal to noise ratio about the reference's mean", " dB"),
    "total_variation": Limit("total variation distance", at_most=True),
}
"""Every metric that can be held, by its name in JSON and in `pyproject.toml`."""


@dataclass(frozen=True)
class Tolerance:
    """A limit for each metric that counts; those that are None are reported and not held.

    Args: as `metrics.Metrics`; which of them are smallest and which largest values is said by `LIMITS`.
    """

    max_abs: float | None = None
    rms: float | None = None
    relative: float | None = None
    cosine: float | None = None
    snr_db: float | None = None
    kl: float | None = None
    top1_agreement: float | None = None
    top5_agreement: float | None = None
    flips: float | None = None
    token_cosine: float | None = None
    centred_cosine: float | None = None
    centred_snr_db: float | None = None
    total_variation: float | None = None

    def held(self) -> dict[str, float]:
        """The limits that count, by metric."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Limits:
    """Limits in place of those that a precision has by itself.

    Args:
        common: metric to limit, for every precision; None lifts one.
        own: limits for a precision, which count more.
        asked: limits on the command line, which count most.
        allow_tf32: whether GPUs may round fp32 products to 11 bits.
        source: the file that they come from, if any.
    """

    common: Mapping[str, float | None] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    asked: Mapping[str, float | None] = field(default_factory=dict)
    allow_tf32: bool = False
    source: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values for another machine, which has not that file: the fields that `Limits` takes there."""
        held = {"common": dict(self.common), "own": dict(self.own), "asked": dict(self.asked)}
        return {**held, "allow_tf32": self.allow_tf32}

    def apply(self, tolerance: Tolerance, precision: str) -> Tolerance:
        """The tolerance that an artifact of this precision is held to.

        Raises:
            ConfigError: no limit is left, so that anything finite would pass.
        """
        limits = {**self.common, **self.own.get(precision, {}), **self.asked}
        result = dataclasses.replace(tolerance, **limits)
        if not result.held():
            raise ConfigError(
                f"no metric of {precision} is held to a limit, so that everything finite would pass",
                fix=f"leave a limit, such as {next(iter(tolerance.held()))}",
            )
        return result


NO_LIMITS = Limits()


DEFAULTS: Mapping[str, Tolerance] = {
    # 11 bits of mantissa in the weights, and in the sums where an engine computes in them too.
    "fp16": Tolerance(snr_db=40, centred_cosine=0.999, token_cosine=0.999, flips=0.0),
    # fp32 numbers multiplied with 11 bits by a GPU, summed with 24.
    "tf32": Tolerance(snr_db=45, centred_cosine=0.9995, token_cosine=0.9995, flips=0.0),
    # fp32 numbers rounded to 8 bits of mantissa, weights and activations, summed with 24.
    "bf16": Tolerance(snr_db=25, centred_cosine=0.98, token_cosine=0.99, flips=0.0),
    # 8-bit weights, activations scaled to 8 bits as they come.
    "int8": Tolerance(snr_db=20, centred_cosine=0.95, token_cosine=0.98, flips=0.01),
    # Activations of the matrix products clipped to calibrated ranges.
    "int8-static": Tolerance(snr_db=12, centred_cosine=0.9, token_cosine=0.93, flips=0.02),
    # LayerNorm, softmax and GELU in 8 bits as well.
    "int8-full": Tolerance(snr_db=5, centred_cosine=0.7, token_cosine=0.7, flips=0.05),
    # 16-bit activations lose nothing beside 8-bit weights.
    "int16x8": Tolerance(snr_db=20, centred_cosine=0.95, token_cosine=0.98, flips=0.01),
    # 15 levels a weight.
    "int4": Tolerance(snr_db=5, centred_cosine=0.6, token_cosine=0.7, flips=0.05),
}
"""Of every precision but fp32; `tf32` is fp32 where a GPU was allowed to round, `bf16` where an engine was asked to."""


SHARES: Mapping[str, float] = {
    **{"fp16": 0.01, "tf32": 0.005, "bf16": 0.05, "int8": 0.1, "int8-static": 0.15, "int8-full": 0.25},
    **{"int16x8": 0.1, "int4": 0.25},
}
"""Total variation distance of probabilities, of classes or of an attention, in every precision but fp32; models of 3
and of 12 random layers are off by a third of it at most. The cosine about the mean is held as well, of which a constant
has nothing."""


def precisions() -> tuple[str, ...]:
    """Every precision that has a tolerance."""
    return ("fp32", *DEFAULTS)


def tolerance_for(precision: str, noise_floor: float, *, shares: bool = False) -> Tolerance:
    """What an artifact is held to unless somebody requested something else.

    Args:
        precision: "fp32", "int8", …, or "tf32".
        noise_floor: the noise floor of the golden data.
        shares: whether the outputs are probabilities.

    Raises:
        ConfigError: there is no such precision.
    """
    if precision == "fp32":
        return Tolerance(max_abs=NOISE_FACTOR * noise_floor)
    if precision not in DEFAULTS:
        raise ConfigError(
            f"precision {precision!r} has no tolerance", fix=f"those with one are {', '.join(precisions())}"
        )
    usual = DEFAULTS[precision]
    if not shares:
        return usual
    return Tolerance(flips=usual.flips, centred_cosine=usual.centred_cosine, total_variation=SHARES[precision])


def looser(one: str, other: str) -> str:
    """The one of two precisions that is allowed more noise, which two artifacts can be held to against each other."""
    return min(one, other, key=lambda precision: tolerance_for(precision, 0.0).snr_db or math.inf)


def margin_noise(tolerance: Tolerance, noise_floor: float, signal_rms: float) -> float:
    """How far ahead the reference's first class has to be, for a changed one to count against the artifact.

    Two logits may each move by the largest difference that is tolerated; where a signal to noise ratio is, by three
    standard deviations of the difference of two logits with that much noise.

    Args:
        tolerance: that the artifact is held to.
        noise_floor: the noise floor of the golden data; counts where the tolerance bounds no differences.
        signal_rms: root mean square of the reference's outputs.
    """
    if tolerance.max_abs is not None:
        return 2 * tolerance.max_abs
    if tolerance.snr_db is not None:
        return SIGMAS * math.sqrt(2) * tolerated_rms(tolerance.snr_db, signal_rms)
    if tolerance.total_variation is not None:
        return 2 * tolerance.total_variation
    return 2 * NOISE_FACTOR * noise_floor


def tolerated_rms(snr_db: float, signal_rms: float) -> float:
    """The noise (root mean square) that a signal to noise ratio lets through."""
    return float(signal_rms / 10 ** (snr_db / 20))
