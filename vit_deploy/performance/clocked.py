"""Calls in another program, which times them by its own clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vit_deploy.core.artifact import Artifact
from vit_deploy.errors import EngineError
from vit_deploy.runtimes import ClockedSession


class InAnotherProgram:
    """A call of a session on what was uploaded last: a `timing.ClockedCall`."""

    def __init__(self, session: ClockedSession) -> None:
        self.session = session

    def __call__(self) -> object:
        """Make one call."""
        return self.session.time(1, None)

    def time(self, calls: int | None, seconds: float | None) -> list[int]:
        """Nanoseconds of each call; see `timing.measure`."""
        return self.session.time(calls, seconds)


def refuse_unfit(artifact: Artifact, session: ClockedSession) -> None:
    """Raise `EngineError` where the times of a session say nothing of the machines that users have."""
    if session.unfit:
        raise EngineError(
            f"{artifact.path} is not timed: {session.unfit}",
            fix="verify runs there; for times name another provider, or a machine with a GPU",
        )


def peak_mb(calls: Sequence[Callable[[], object]]) -> float | None:
    """The most memory that the programs in which the calls are made held, in 10^6 bytes; None where it is unknown."""
    elsewhere = [call.session.peak_mb() for call in calls if isinstance(call, InAnotherProgram)]
    known = [figure for figure in elsewhere if figure is not None]
    return sum(known) if len(known) == len(elsewhere) else None


def processor_s_elsewhere(calls: Sequence[Callable[[], object]]) -> float:
    """Seconds of processors that the programs have taken in which the calls are made; 0 where this one makes them."""
    return sum(call.session.cpu_s() or 0.0 for call in calls if isinstance(call, InAnotherProgram))
