"""Cases, plan and measurements that the options of `bench` ask for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vit_deploy.core.options.commands import BenchOptions
from vit_deploy.performance.bench import LeftOut, Progress, bench, cases_of
from vit_deploy.performance.latency import Case, Latency, Plan

if TYPE_CHECKING:
    from vit_deploy.performance.profilers import Profile


def plan_for(options: BenchOptions) -> Plan:
    """How long to measure.

    Raises:
        ConfigError: values that cannot be.
    """
    return Plan(
        seconds=None if options.runs else options.seconds,
        runs=options.runs,
        timeout_s=options.timeout,
        one_at_a_time=options.one_at_a_time or options.under is not None,
    )


def cases_for(options: BenchOptions, artifacts: Sequence[tuple[Path, str]]) -> list[Case]:
    """What is timed on this machine; where a batch is looked for, each case as it begins, with one image.

    Args:
        options: of the command.
        artifacts: path and format of each.

    Raises:
        ConfigError: as `bench.cases_of`.
    """
    return cases_of(
        artifacts,
        options.runtime or None,
        options.provider or [None],
        options.batch,
        options.threads or [None],
        streams=options.streams,
        device=options.device,
        cuda_graph=options.cuda_graph,
        image_size=options.image_size,
        signature=options.signature,
        runtime_files=options.runtime_files,
        browser=options.browser,
    )


def measure(
    options: BenchOptions,
    cases: Sequence[Case],
    progress: Progress = lambda doing, done: None,
    left_out: LeftOut | None = None,
) -> list[Latency]:
    """Time cases; gives the results in order.

    Args:
        options: of the command.
        cases: from `cases_for`.
        progress: called with what is being done and the fraction of the work that is done.
        left_out: is told of each case that cannot be timed, while the others go on; None lets its error end all.

    Raises:
        ArtifactError, ConfigError, MissingEngineError, EngineError: as `bench.bench`.
    """
    plan = plan_for(options)
    if options.under is None:
        return bench(cases, plan, progress, left_out)
    from vit_deploy.performance.sweep import largest_under_each  # an archive that is not asked for one goes without

    return largest_under_each(cases, options.under, plan, progress, left_out)


def profiles(results: Sequence[Latency], progress: Callable[[str], object] = lambda doing: None) -> list[Profile]:
    """What each operator of the cases that were timed takes, or why it cannot be told.

    Args:
        results: from `measure`.
        progress: called with what is being done.
    """
    from vit_deploy.performance.profilers import profile_or_reason  # likewise

    found = []
    for result in results:
        progress(f"profiling {result.case}")
        found.append(profile_or_reason(result.case))
    return found
