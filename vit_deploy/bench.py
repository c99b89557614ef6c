"""How fast does an artifact run on this machine, and how much memory does it take?

Each case gets a process of its own, since the thread pools of the engines slow each other down in one, and the
processes take turns in rounds, so that a machine that gets slower or faster meanwhile does so for all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vit_deploy.artifact import Artifact
from vit_deploy.bench_process import CaseProcess
from vit_deploy.bench_worker import golden_images
from vit_deploy.errors import ConfigError
from vit_deploy.host import Host, read_host
from vit_deploy.latency import Case, Latency, Plan, to_json
from vit_deploy.runtimes import RUNTIMES, RUNTIMES_OF_FORMAT
from vit_deploy.targets import open_artifact

__all__ = ["Case", "Latency", "Plan", "Progress", "bench", "to_json"]

Progress = Callable[[str, float], None]
"""Called with what is being done and the fraction of the work that is done."""


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
    requests = plan.requests(max((case.streams for case in targets), default=1))
    host = read_host()
    cases = [dataclasses.replace(case, threads=case.threads or _share(host, case.streams)) for case in targets]
    requests[-1] = {**requests[-1], "last": True}
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
            round_calls=tuple(len(answers[index]["samples_ns"]) for answers in rounds),
            round_ns=tuple(answers[index]["round_ns"] for answers in rounds),
            bytes=loaded[index]["bytes"],
            resting_rss_mb=loaded[index]["resting_rss_mb"],
            preprocess_ns=tuple(rounds[-1][index]["preprocess_ns"]),
            energy_j=_sum([answers[index]["energy_j"] for answers in rounds]),
            gpu_energy_j=_sum([answers[index]["gpu_energy_j"] for answers in rounds]),
            placement=loaded[index]["placement"],
            transfer_ns=tuple(loaded[index]["transfer_ns"]),
        )
        for index, case in enumerate(cases)
    ]


def _share(host: Host, streams: int) -> int:
    return max(1, host.threads // streams)


def _sum(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


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
        if case.streams < 1:
            problems.append(f"streams is {case.streams}; expected a positive number")
        if case.threads is not None and case.threads < 1:
            problems.append(f"threads is {case.threads}; expected a positive number")
    if problems:
        raise ConfigError("; ".join(dict.fromkeys(problems)), fix="correct the options named above")
