"""What a process that times a case tells of its GPU, beside how long calls take."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from vit_deploy.performance.energy import GpuEnergyMeter
from vit_deploy.performance.timing import Call, at_once, measure
from vit_deploy.runtimes import DeviceSession, is_asked_for_gpu, may_choose_gpu
from vit_deploy.runtimes.cuda.card import GpuMemory, count_devices, load_driver, open_card

REWARM_S = 0.2  # of calls before a round: the clock fell while other cases were measured
QUEUED_S = 0.1  # of calls in a row that nobody waits for, after each round


def is_for_gpu(case: Mapping[str, Any], load: Callable[[], Any] = load_driver) -> bool:
    """Whether a case is going to run on a GPU, or may choose one that is there.

    Args:
        case: the request that names it.
        load: gives CUDA's driver library, or raises OSError.
    """
    called = (case["runtime"], case.get("provider"))
    return is_asked_for_gpu(*called) or (may_choose_gpu(*called) and count_devices(load) > 0)


class GpuWatch:
    """The card of a case, from before anything is opened on it; all is None where nothing tells.

    Args:
        device: its number among those that this process sees.
        load: gives CUDA's driver library, or raises OSError.
    """

    def __init__(self, device: int, load: Callable[[], Any] = load_driver) -> None:
        self._card = open_card(device, load)
        self._memory = None if self._card is None else GpuMemory(self._card)

    @property
    def facts(self) -> dict[str, Any] | None:
        """The facts in the form that `gpu.gpu_from` reads."""
        return None if self._card is None else self._card.facts.to_dict()

    @property
    def notes(self) -> list[str]:
        """What one has to know to read the figures."""
        if self._card is None or self._memory is None:
            return ["nothing is told of the GPU: the library of CUDA's driver, libcuda.so.1, does not tell of it"]
        return [*self._card.notes, *self._memory.notes]

    @property
    def peak_mb(self) -> float | None:
        """The most memory that the process was seen to hold there."""
        return None if self._memory is None else self._memory.peak_mb

    def watched(self) -> contextlib.AbstractContextManager[None]:
        """While the process uses the card, and no other of ours does."""
        return contextlib.nullcontext() if self._memory is None else self._memory.watched()

    def state(self) -> dict[str, Any] | None:
        """How the card is doing now, as `gpu.gpu_from` reads it."""
        return None if self._card is None else self._card.state().to_dict()

    def energy(self) -> GpuEnergyMeter:
        """Begun now."""
        return GpuEnergyMeter(self._card)


def rewarm(calls: Sequence[Call]) -> None:
    """Bring the clock up again."""
    at_once(calls, lambda call: measure(call, calls=None, seconds=REWARM_S))


def queued(sessions: Sequence[DeviceSession], samples_ns: Sequence[int]) -> dict[str, int]:
    """How long many calls in a row take of which only the last is waited for.

    Args:
        sessions: that have images uploaded; all are called at the same time.
        samples_ns: of calls that each were waited for, which say how many make a tenth of a second.

    Returns:
        `queued_calls`, of all sessions together, and `queued_ns`.
    """
    count = max(1, int(QUEUED_S * 1e9 / median(samples_ns)))

    def launch(session: DeviceSession) -> None:
        for _ in range(count):
            session.launch()
        session.wait()

    start = time.perf_counter_ns()
    at_once(sessions, launch)
    return {"queued_calls": count * len(sessions), "queued_ns": time.perf_counter_ns() - start}
