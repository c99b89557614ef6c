"""How much of a model's time each of its operators takes.

The engine's own profiler says it, in a run of its own: it slows the calls down, so none of them counts as a sample.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.child_processes import python
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.registry import Registry
from vit_deploy.errors import EngineError
from vit_deploy.performance.latency import Case
from vit_deploy.performance.process import CaseProcess

PROFILERS = Registry(
    "profiler",
    lambda: {name: runtime.profiler for name, runtime in FORMATS.runtimes().items() if runtime.profiler is not None},
)
WORKER = python("-m", "vit_deploy.performance.profilers.worker")
CALLS = 10
TIMEOUT_S = 600.0
WARMUP = 3


@dataclass(frozen=True)
class OperatorTime:
    """What all operators of one type take.

    Args:
        operator: its type.
        calls: the number of such operators that one call of the model runs.
        ms: that they take together in one call of the model, the median over several.
        share: the share of the time of all operators.
    """

    operator: str
    calls: float
    ms: float
    share: float


@dataclass(frozen=True)
class Profile:
    """What was found out about the operators of a case.

    Args:
        operators: the costliest first; empty where the engine does not tell.
        why_not: the reason for that; None if there is a profile.
    """

    operators: tuple[OperatorTime, ...] = ()
    why_not: str | None = None

    def added_to(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """A record of `bench` with `profile`, which is null where there is none, and a note that says why."""
        if self.why_not is not None:
            return {**record, "profile": None, "notes": [*record["notes"], f"no profile: {self.why_not}"]}
        return {**record, "profile": [dataclasses.asdict(operator) for operator in self.operators]}


class Profiler(Protocol):
    """An engine that tells what its operators take."""

    def times(
        self, artifact: Artifact, images: NDArray[Any], *, threads: int | None, warmup: int, calls: int
    ) -> list[list[tuple[str, float]]]:
        """Type and milliseconds of each operator that ran, for each call after the warm-up.

        Raises:
            EngineError: the engine refuses the file.
        """


def no_profile(case: Case) -> str | None:
    """Why a case cannot be profiled; None if it can."""
    runtime = FORMATS.runtimes().get(case.runtime)
    if runtime is None or runtime.profiler is None:
        return (runtime and runtime.not_profiled) or f"{case.runtime} is not profiled"
    if case.provider in (None, runtime.profiled_on):
        return None
    return f"{case.runtime} is profiled on {runtime.profiled_on} alone, not on {case.provider}"


def profile(case: Case, timeout_s: float = TIMEOUT_S) -> Profile:
    """Time the operators of one case, in a process of its own.

    Args:
        case: that was timed, or could be.
        timeout_s: the limit in seconds for all of it.

    Raises:
        EngineError: an engine that refused, crashed or hung; names the case.
    """
    if (reason := no_profile(case)) is not None:
        return Profile(why_not=reason)
    with CaseProcess(f"profiling {case}", timeout_s, WORKER) as worker:
        answer = worker.ask(dataclasses.asdict(case) | {"artifact": str(case.artifact)})
    return Profile(tuple(OperatorTime(**operator) for operator in answer["profile"]))


def profile_or_reason(case: Case) -> Profile:
    """The same for a case that was timed: what an engine refuses is the reason, so that its samples are not lost."""
    try:
        return profile(case)
    except EngineError as error:
        return Profile(why_not=error.message)


def summary(calls: Sequence[Iterable[tuple[str, float]]]) -> list[OperatorTime]:
    """Operators of each type together, the costliest first.

    Args:
        calls: type and milliseconds of each operator that ran, for each call of the model.
    """
    totals: dict[str, list[float]] = {}
    counts: dict[str, int] = {}
    for number, operators in enumerate(calls):
        for name, ms in operators:
            totals.setdefault(name, [0.0] * len(calls))[number] += ms
            counts[name] = counts.get(name, 0) + 1
    medians = {name: float(np.median(times)) for name, times in totals.items()}
    whole = sum(medians.values())
    found = [
        OperatorTime(name, counts[name] / len(calls), ms, ms / whole if whole else 0.0) for name, ms in medians.items()
    ]
    return sorted(found, key=lambda operator: -operator.ms)
