"""Facts of the NVIDIA GPU that a case ran on, and its state at both ends of each round."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

POWER_LIMIT = "power limit"  # where a card under full load runs; what it does to figures shows in the clock
# NVML's names of what holds a clock down, by bit (`nvmlClocksEventReasons`).
REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: POWER_LIMIT,
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "thermal slowdown by software",
    0x40: "thermal slowdown by hardware",
    0x80: "power brake",
    0x100: "display clocks",
    0x200: "board limit",
    0x400: "reliability",
}
HARMLESS = ("idle", "application clocks")  # which somebody has chosen, and which stay as they are
CLOCK_DRIFT = 0.05  # between the slowest and the fastest clock that was seen, as a fraction of the fastest
# A card of the same model and limit counts as the same; another driver is worth a word.
SAME_GPU = {"name": "GPU", "mig": "MIG", "power_limit_w": "power limit in W"}


@dataclass(frozen=True)
class GpuState:
    """How a GPU is doing at one moment.

    Args:
        sm_mhz: clock of its multiprocessors; None where it cannot be told.
        reasons: what holds that clock down, in words.
        temperature_c: the temperature in degrees Celsius; None where it cannot be told.
    """

    sm_mhz: float | None = None
    reasons: tuple[str, ...] = ()
    temperature_c: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "reasons": list(self.reasons)}


@dataclass(frozen=True)
class Gpu:
    """The GPU of one case; each fact is None where it cannot be told.

    Args:
        name: the name of the card, or of the MIG slice.
        uuid: the uuid of the card.
        driver: its version.
        cuda: the newest version of CUDA that the driver speaks.
        compute_capability: the compute capability, as "9.0".
        memory_mb: the memory of the card, or of the MIG slice, in 10^6 bytes.
        mig: whether the card is divided, so that this is a slice of it; the other facts are the whole card's then.
        compute_mode: "default", "exclusive process", …
        power_limit_w: that is in force.
        rounds: its state at the start and at the end of each round.
    """

    name: str
    uuid: str | None = None
    driver: str | None = None
    cuda: str | None = None
    compute_capability: str | None = None
    memory_mb: float | None = None
    mig: bool | None = None
    compute_mode: str | None = None
    power_limit_w: float | None = None
    rounds: tuple[tuple[GpuState, GpuState], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "rounds": [[end.to_dict() for end in ends] for ends in self.rounds]}

    @property
    def disturbances(self) -> Iterator[str]:
        """Why figures that were measured on it are not to be trusted."""
        clocks = [clock for ends in self.rounds for clock in _clocks(ends)]
        if clocks and max(clocks) - min(clocks) > CLOCK_DRIFT * max(clocks):
            yield f"the GPU's clock was between {min(clocks):.0f} and {max(clocks):.0f} MHz"
        held = [reason for reason in self._reasons if reason not in (*HARMLESS, POWER_LIMIT)]
        if held:
            yield f"the GPU's clock was held down: {', '.join(held)}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What one has to know to read figures that were measured on it, steady or not."""
        if POWER_LIMIT not in self._reasons:
            return ()
        of = "" if self.power_limit_w is None else f" of {self.power_limit_w:g} W"
        return (f"the GPU ran at its power limit{of}, which sets its clock then",)

    @property
    def _reasons(self) -> tuple[str, ...]:
        """What held its clock down at any time, each once."""
        return tuple(dict.fromkeys(reason for ends in self.rounds for state in ends for reason in state.reasons))


def _clocks(ends: tuple[GpuState, GpuState]) -> list[float]:
    """The clocks of one round; at a power limit, where the driver moves the clock all the time, their mean."""
    clocks = [state.sm_mhz for state in ends if state.sm_mhz is not None]
    return [fmean(clocks)] if clocks and all(POWER_LIMIT in state.reasons for state in ends) else clocks


def reasons_in(bits: int) -> tuple[str, ...]:
    """What holds a clock down, in words, from NVML's bits; a bit without a name is given as it is."""
    flags = [1 << place for place in range(bits.bit_length()) if bits >> place & 1]
    return tuple(REASONS.get(bit, f"{bit:#x}") for bit in flags)


def differences(then: Gpu | None, now: Gpu | None) -> list[str]:
    """What makes figures of one GPU say nothing about another, in words; what is not known makes no difference."""
    if then is None or now is None:
        return []
    values = [(words, getattr(then, name), getattr(now, name)) for name, words in SAME_GPU.items()]
    return [
        f"{words} {_in_words(old)}, now {_in_words(new)}"
        for words, old, new in values
        if old is not None and new is not None and old != new
    ]


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)


def gpu_from(values: Mapping[str, Any]) -> Gpu:
    """The inverse of `Gpu.to_dict`; what later versions tell beyond this one is passed over.

    Raises:
        KeyError, TypeError, ValueError: values that no run has given.
    """
    texts = ("uuid", "driver", "cuda", "compute_capability", "compute_mode")
    if (mig := values.get("mig")) not in (None, True, False):
        raise ValueError(f"mig is {mig!r}")
    if (name := _text(values, "name")) is None:
        raise ValueError("a GPU has no name")
    return Gpu(
        name,
        mig=mig,
        memory_mb=_number(values, "memory_mb"),
        power_limit_w=_number(values, "power_limit_w"),
        rounds=tuple((_state(start), _state(end)) for start, end in values.get("rounds", ())),
        **{text: _text(values, text) for text in texts},
    )


def _state(values: Mapping[str, Any]) -> GpuState:
    reasons = tuple(str(reason) for reason in values.get("reasons", ()))
    return GpuState(_number(values, "sm_mhz"), reasons, _number(values, "temperature_c"))


def _text(values: Mapping[str, Any], name: str) -> str | None:
    value = values.get(name)
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; expected a text")
    return value


def _number(values: Mapping[str, Any], name: str) -> float | None:
    value = values.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}; expected a number")
    return float(value)
