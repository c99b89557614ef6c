"""What `bench` was asked to time: as cases here, and as the arguments of `run.py` elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from vit_deploy.cli.options import parse_counts, parse_time
from vit_deploy.core.options.running import MOST_THREADS

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.performance.latency import Case, Latency, Plan


@dataclass(frozen=True)
class Asked:
    """The options that say what to time and for how long.

    Args:
        runtimes: None for all that can run it.
        providers: None for the usual one of each.
        batch: images a call, as "1,8".
        threads: the threads of one call, likewise; None for the usual number.
        streams: calls at the same time.
        device: which GPU.
        cuda_graph: whether it records a call.
        under: a time as "5ms" that the largest batch is looked for; None without.
        one_at_a_time: whether each case is freed before the next.
        seconds: the seconds of calls for each case.
        runs: calls for each case, instead.
        timeout: seconds for each step.
        profile: whether operators are timed too.

    Raises:
        typer.BadParameter: numbers that cannot be, or options that exclude each other.
    """

    runtimes: Sequence[str] | None
    providers: Sequence[str] | None
    batch: str
    threads: str | None
    streams: int
    device: int
    cuda_graph: bool
    under: str | None
    one_at_a_time: bool
    seconds: float
    runs: int | None
    timeout: float
    profile: bool

    def __post_init__(self) -> None:
        parse_counts(self.batch, "--batch")
        if self.threads:
            parse_counts(self.threads, "--threads", MOST_THREADS)
        if self.under is not None:
            parse_time(self.under, "--under")
            if self.batch != "1":
                raise typer.BadParameter(f"--under looks for the batch; expected no --batch, found {self.batch}")

    @property
    def plan(self) -> Plan:
        """How long to measure.

        Raises:
            ConfigError: values that cannot be.
        """
        from vit_deploy.performance.latency import Plan

        return Plan(
            seconds=None if self.runs else self.seconds,
            runs=self.runs,
            timeout_s=self.timeout,
            one_at_a_time=self.one_at_a_time or self.under is not None,
        )

    def cases(self, artifacts: Sequence[Path]) -> list[Case]:
        """What is to be timed on this machine; with `under` each as it begins, with one image.

        Raises:
            ArtifactError, ConfigError: as `targets.open_to_time` and `bench.cases_of`.
        """
        from vit_deploy.performance.bench import cases_of
        from vit_deploy.verification.targets import open_to_time

        return cases_of(
            [(path, open_to_time(path).format) for path in artifacts],
            self.runtimes,
            self.providers or [None],
            parse_counts(self.batch, "--batch"),
            parse_counts(self.threads, "--threads", MOST_THREADS) if self.threads else [None],
            streams=self.streams,
            device=self.device,
            cuda_graph=self.cuda_graph,
        )

    def measured(self, cases: Sequence[Case], plan: Plan, progress: Callable[[str, float], object]) -> list[Latency]:
        """The results, in order.

        Raises:
            ArtifactError, ConfigError, MissingEngineError, EngineError: as `bench.bench`.
        """
        from vit_deploy.performance import bench
        from vit_deploy.performance.sweep import largest_under_each

        if self.under is None:
            return bench.bench(cases, plan, progress)
        return largest_under_each(cases, parse_time(self.under, "--under"), plan, progress)

    @property
    def arguments(self) -> list[str]:
        """The same for `run.py` on another machine."""
        batches = ",".join(map(str, parse_counts(self.batch, "--batch")))
        valued = {
            "--streams": self.streams,
            "--seconds": self.seconds,
            "--batch": batches,
            "--threads": self.threads or None,
            "--runs": self.runs or None,
            "--device": self.device,
            "--under": self.under,
            "--timeout": self.timeout,
        }
        flags = {
            "--cuda-graph": self.cuda_graph,
            "--one-at-a-time": self.one_at_a_time,
            "--profile": self.profile,
        }
        named = [
            *(("--runtime", name) for name in self.runtimes or ()),
            *(("--provider", name) for name in self.providers or ()),
            *((option, str(value)) for option, value in valued.items() if value is not None),
        ]
        return ["bench", *(word for pair in named for word in pair), *(flag for flag, given in flags.items() if given)]
