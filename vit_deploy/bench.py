"""How fast does an artifact run on this machine, and how much memory does it take?

Each case gets a process of its own, since the thread pools of the engines slow each other down in one, and the
processes take turns in rounds, so that a machine that gets slower or faster meanwhile does so for all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vit_deploy.artifact import Artifact
from vit_deploy.bench_process import CaseProcess
from vit_deploy.bench_worker import golden_images
from vit_deploy.errors import ConfigError
from vit_deploy.host import Host, read_host
from vit_deploy.runtimes import RUNTIMES, RUNTIMES_OF_FORMAT
from vit_deploy.targets import open_artifact

SPREAD = 0.1  # of the samples' standard deviation to their mean, past which it is said

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction of the work that is done."""


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Args:
        artifact: the bundle's folder, or a `.keras` file.
        runtime: that runs it.
        provider: None takes the runtime's usual one.
        batch: images a call.
        threads: None takes as many as this process has cores.
    """

    artifact: Path
    runtime: str
    provider: str | None = None
    batch: int = 1
    threads: int | None = None

    def __str__(self) -> str:
        engine = f"{self.runtime} on {self.provider}" if self.provider else self.runtime
        threads = f", {self.threads} thread{'s' * (self.threads > 1)}" if self.threads else ""
        return f"{self.artifact} in {engine} (batch {self.batch}{threads})"


@dataclass(frozen=True)
class Plan:
    """How long to measure each case.

    Args:
        seconds: for its calls together.
        runs: how many calls, instead.
        rounds: in which the cases take turns.
        warmup: calls before the first round; None for as many as it takes until they show no trend.
        timeout_s: for each step of a case: loading, warming up, one round.

    Raises:
        ConfigError: values that cannot be.
    """

    seconds: float | None = 3.0
    runs: int | None = None
    rounds: int = 5
    warmup: int | None = None
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        problems = []
        if (self.seconds is None) == (self.runs is None):
            problems.append(f"seconds is {self.seconds} and runs is {self.runs}; expected one of them")
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            problems.append(f"seconds is {self.seconds}; expected a positive number")
        if self.runs is not None and self.runs < 1:
            problems.append(f"runs is {self.runs}; expected a positive number")
        if self.rounds < 1:
            problems.append(f"rounds is {self.rounds}; expected a positive number")
        if self.warmup is not None and self.warmup < 0:
            problems.append(f"warmup is {self.warmup}; expected a number of calls")
        if problems:
            raise ConfigError("; ".join(problems), fix="correct the options named above")

    def requests(self) -> list[dict[str, Any]]:
        """What to ask of each case, one a round."""
        if self.runs is None:
            assert self.seconds is not None
            return [{"calls": None, "seconds": self.seconds / self.rounds}] * self.rounds
        shares = [self.runs // self.rounds + (index < self.runs % self.rounds) for index in range(self.rounds)]
        return [{"calls": share, "seconds": None} for share in shares if share]


@dataclass(frozen=True)
class Latency:
    """What was measured of one case. Only facts are stored; the statistics are derived.

    Args:
        case: with the number of threads that it really had.
        plan: it was measured by.
        host: it was measured on.
        provider: what really executed the graph.
        samples_ns: of every call, in order.
        load_ms: from the model file, already in the page cache, to a loaded model, without the engine's import.
        first_ms: of the first call.
        peak_rss_mb: of its process, in 10^6 bytes; None where the system does not tell.
        warmup_calls: before the samples, besides the first call.
        flat: whether these came to show no trend.
        idle: whether the engine's threads went to sleep after each round.
        file_batch: that the file is made for, None for any.
    """

    case: Case
    plan: Plan
    host: Host
    provider: str
    samples_ns: tuple[int, ...]
    load_ms: float
    first_ms: float
    peak_rss_mb: float | None
    warmup_calls: int
    flat: bool
    idle: bool
    file_batch: int | None

    @property
    def mean_ms(self) -> float:
        """Of a call."""
        return float(np.mean(self.samples_ns)) / 1e6

    @property
    def std_ms(self) -> float:
        """Standard deviation of the calls; not a number for a single one."""
        return float(np.std(self.samples_ns, ddof=1)) / 1e6 if len(self.samples_ns) > 1 else math.nan

    @property
    def min_ms(self) -> float:
        """Of the fastest call."""
        return min(self.samples_ns) / 1e6

    @property
    def p50_ms(self) -> float:
        """The median call."""
        return self._percentile_ms(50)

    @property
    def p90_ms(self) -> float:
        """Nine calls of ten take no longer."""
        return self._percentile_ms(90)

    @property
    def p99_ms(self) -> float:
        """Ninety-nine calls of a hundred take no longer."""
        return self._percentile_ms(99)

    def _percentile_ms(self, percent: float) -> float:
        return float(np.percentile(self.samples_ns, percent)) / 1e6

    @property
    def throughput_per_s(self) -> float:
        """Images a second."""
        total_s = sum(self.samples_ns) / 1e9
        return self.case.batch * len(self.samples_ns) / total_s if total_s else math.inf

    @property
    def notes(self) -> tuple[str, ...]:
        """What one has to know to read the figures."""
        notes = []
        batch, made_for = self.case.batch, self.file_batch
        if made_for is not None and made_for != batch:
            calls = -(-batch // made_for)
            filled = f", the last filled up from {batch % made_for}" if batch % made_for else ""
            notes.append(
                f"the file is made for batch {made_for}: a batch of {batch} runs as {calls} "
                f"call{'s' * (calls > 1)} of {made_for}{filled}"
            )
        if not self.flat:
            notes.append(f"still getting slower or faster after {self.warmup_calls} warm-up calls")
        if not self.idle:
            notes.append("its threads kept working between the rounds, which slows the other cases")
        if self.std_ms > SPREAD * self.mean_ms:
            notes.append(f"the calls differ by {self.std_ms / self.mean_ms:.0%}: the machine may be busy")
        return tuple(notes)


def bench(targets: Sequence[Case], plan: Plan = Plan(), progress: Progress = lambda what, done: None) -> list[Latency]:
    """Time all cases side by side.

    Args:
        targets: in the order of the results.
        plan: how long.
        progress: is told what is being done.

    Raises:
        ArtifactError: a bundle that is missing, changed, or has no golden images.
        ConfigError: a runtime that does not take the format, or numbers that cannot be; names all of them.
        MissingEngineError: a runtime that is not installed.
        EngineError: an engine that refused, crashed or hung; names the case.
    """
    _check(targets)
    host = read_host()
    cases = [dataclasses.replace(case, threads=case.threads or host.threads) for case in targets]
    requests = plan.requests()
    steps, done = len(cases) * (2 + len(requests)), 0

    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(CaseProcess(str(case), plan.timeout_s)) for case in cases]

        def ask_each(doing: str, asked: Sequence[dict[str, Any]], extra_s: float = 0.0) -> list[dict[str, Any]]:
            # One after the other: whoever is not asked sleeps.
            nonlocal done
            answers = []
            for case, worker, request in zip(cases, workers, asked, strict=True):
                progress(f"{doing} {case}", done / steps)
                answers.append(worker.ask(request, extra_s=extra_s))
                done += 1
            return answers

        loaded = ask_each("loading", [dataclasses.asdict(case) | {"artifact": str(case.artifact)} for case in cases])
        warm = ask_each("warming up", [{"warmup": plan.warmup}] * len(cases))
        rounds = [
            ask_each("measuring", [request] * len(cases), extra_s=request["seconds"] or 0.0) for request in requests
        ]
    if cases:
        progress("measured", 1.0)
    return [
        Latency(
            case=case,
            plan=plan,
            host=host,
            provider=loaded[index]["provider"],
            samples_ns=tuple(sample for answers in rounds for sample in answers[index]["samples_ns"]),
            load_ms=loaded[index]["load_ms"],
            first_ms=loaded[index]["first_ms"],
            peak_rss_mb=rounds[-1][index]["peak_rss_mb"],
            warmup_calls=len(warm[index]["samples_ns"]),
            flat=warm[index]["flat"],
            idle=all(answers[index]["idle"] for answers in rounds),
            file_batch=loaded[index]["file_batch"],
        )
        for index, case in enumerate(cases)
    ]


def _check(cases: Sequence[Case]) -> None:
    artifacts: dict[Path, Artifact] = {}
    for case in cases:
        if case.artifact not in artifacts:
            artifacts[case.artifact] = open_artifact(case.artifact)
            golden_images(artifacts[case.artifact])
    problems = []
    for case in cases:
        RUNTIMES.check(case.runtime)
        takers = RUNTIMES_OF_FORMAT.get(artifacts[case.artifact].format, ())
        if case.runtime not in takers:
            problems.append(f"{case.runtime} does not run {case.artifact}; {', '.join(takers) or 'nothing'} does")
        if case.batch < 1:
            problems.append(f"batch is {case.batch}; expected a positive number")
        if case.threads is not None and case.threads < 1:
            problems.append(f"threads is {case.threads}; expected a positive number")
    if problems:
        raise ConfigError("; ".join(dict.fromkeys(problems)), fix="correct the options named above")


FIGURES = ("p50_ms", "p90_ms", "p99_ms", "mean_ms", "throughput_per_s", "load_ms", "first_ms", "peak_rss_mb")


def to_json(latency: Latency) -> dict[str, Any]:
    """One result of the `bench` command; a figure that does not apply is null and named under `failures`."""
    case = latency.case
    figures = {name: getattr(latency, name) for name in FIGURES}
    absent = [name for name, value in figures.items() if value is None or not math.isfinite(value)]
    return {
        "artifact": str(case.artifact),
        "runtime": case.runtime,
        "provider": latency.provider,
        "batch": case.batch,
        "threads": case.threads,
        "samples_ns": list(latency.samples_ns),
        **{name: None if name in absent else value for name, value in figures.items()},
        "warmup_calls": latency.warmup_calls,
        "notes": list(latency.notes),
        "failures": [f"{name} cannot be told" for name in absent],
        "plan": dataclasses.asdict(latency.plan),
        "host": latency.host.to_dict(),
    }
