"""The search for the largest batch whose calls stay under a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.manifest import MANIFEST, read_artifact
from vit_deploy.errors import EngineError, VitDeployError
from vit_deploy.performance.bench import OF_ONE_CASE, LeftOut, Progress, bench, has_no_room
from vit_deploy.performance.latency import Case, Latency, Plan
from vit_deploy.performance.plan import LargestUnder

MOST = 4096  # images a call that are tried

Bench = Callable[[Sequence[Case], Plan, Progress], list[Latency]]


def next_batch(fits: Mapping[int, bool], most: int = MOST) -> int | None:
    """The batch to measure next: twice the largest that fits, and between that and the smallest that does not.

    Args:
        fits: for each measured batch, whether its calls stay under the time.
        most: images a call that are tried.

    Returns:
        None once the largest is known.
    """
    too_large = min((batch for batch, fit in fits.items() if not fit), default=None)
    below = max((batch for batch, fit in fits.items() if fit and (too_large is None or batch < too_large)), default=0)
    if too_large is None:
        following = max(1, min(2 * below, most))
        return following if following > below else None
    return (below + too_large) // 2 if too_large - below > 1 else None


def largest_under(
    case: Case,
    limit_ms: float,
    plan: Plan = Plan(),
    progress: Progress = lambda what, done: None,
    *,
    run: Bench = bench,
    most: int = MOST,
) -> list[Latency]:
    """Every batch that was measured on the way, in order, each with what was found.

    Args:
        case: whose batch is looked for.
        limit_ms: that the median of its calls is held to.
        plan: the plan for each batch, each of which is loaded and freed in turn.
        progress: is told what is being done.
        run: measures.
        most: images a call that are tried.

    Raises:
        ArtifactError, ConfigError, MissingEngineError, EngineError: as `bench.bench`.
    """
    found: dict[int, Latency] = {}
    fits: dict[int, bool] = {}
    alone = dataclasses.replace(plan, one_at_a_time=True)
    full: list[int] = []
    while (batch := next_batch(fits, most)) is not None:
        try:
            [found[batch]] = run([dataclasses.replace(case, batch=batch)], alone, progress)
        except EngineError as error:
            if not found or not has_no_room(error):
                raise
            full.append(batch)
            fits[batch] = False
        else:
            fits[batch] = found[batch].p50_ms <= limit_ms
    smallest = min((batch for batch, fit in fits.items() if not fit), default=None)
    best = max((batch for batch, fit in fits.items() if fit and (smallest is None or batch < smallest)), default=None)
    why = None
    if smallest is None:
        why = f"no batch above {best} was tried"
    elif smallest in full:
        why = f"the GPU has no room for one of {smallest}"
    under = LargestUnder(limit_ms, best, why)
    return [dataclasses.replace(found[batch], under=under) for batch in sorted(found)]


def largest_under_each(
    cases: Sequence[Case],
    limit_ms: float,
    plan: Plan = Plan(),
    progress: Progress = lambda what, done: None,
    left_out: LeftOut | None = None,
) -> list[Latency]:
    """`largest_under` of several cases, one after the other; those that differ only in the batch are one."""
    found: list[Latency] = []
    refused: list[VitDeployError] = []
    for case in dict.fromkeys(dataclasses.replace(case, batch=1) for case in cases):
        try:
            found += largest_under(case, limit_ms, plan, progress, most=most_of(case))
        except OF_ONE_CASE as error:
            if left_out is None:
                raise
            refused.append(error)
            left_out(case, error)
    if refused and not found:
        raise refused[0]
    return found


def most_of(case: Case) -> int:
    """Images a call that are tried at most: those that its file was built for, as a TensorRT plan is, or `MOST`."""
    if not (case.artifact / MANIFEST).is_file():
        return MOST
    artifact = read_artifact(case.artifact, check_digests=False)
    largest = FORMATS[artifact.format].largest_batch
    if largest is None or artifact.input.batch is not None:
        return MOST
    most: int = largest.load()(artifact)
    return most
