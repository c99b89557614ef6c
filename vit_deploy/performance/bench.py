"""The speed and the memory of artifacts on this machine.

Each case gets a process of its own, since the thread pools of the engines slow each other down in one, and the
processes take turns in rounds, so that a machine that gets slower or faster meanwhile does so for all of them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.child_processes import of_children
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.host import Host, read_host
from vit_deploy.errors import ConfigError, EngineError, Failed, MissingEngineError, VitDeployError
from vit_deploy.performance.energy import gpu_energy
from vit_deploy.performance.latency import Case, Latency, Plan
from vit_deploy.performance.process import CaseProcess
from vit_deploy.performance.worker import artifact_to_time, golden_images
from vit_deploy.runtimes import (
    RUNTIMES,
    installed_takers,
    is_asked_for_gpu,
    is_emulated,
    is_in_browsers,
    may_choose_gpu,
)

if TYPE_CHECKING:  # a device without a GPU does without
    from vit_deploy.core.gpu import Gpu

__all__ = ["Case", "Latency", "Plan", "Progress", "bench", "cases_of"]

# How ONNX Runtime, TensorRT and TensorFlow say it; 46 and "busy" are of a card in the mode "exclusive process".
NO_ROOM = re.compile(
    r"out of (gpu |device )?memory|failed to allocate memory|cuda failure (2|46)\b|resource_?exhausted|\boom\b"
    r"|cuda_error_out_of_memory|busy or unavailable|busy with another process",
    re.IGNORECASE,
)

Progress = Callable[[str, float], object]
"""Called with what is being done and the fraction of the work that is done."""

LeftOut = Callable[[Case, VitDeployError], object]
"""Called with a case whose engine is missing, refuses, crashes or hangs, and why, where the others go on."""
OF_ONE_CASE = (MissingEngineError, EngineError)
"""Errors that are about one engine and one file, and say nothing of the next."""


def cases_of(
    artifacts: Sequence[tuple[Path, str]],
    runtimes: Sequence[str] | None,
    providers: Sequence[str | None],
    batches: Sequence[int],
    threads: Sequence[int | None],
    *,
    streams: int = 1,
    device: int = 0,
    cuda_graph: bool = False,
    image_size: str | None = None,
    signature: str | None = None,
    runtime_files: str | None = None,
    browser: str | None = None,
) -> list[Case]:
    """Every combination; what is only for GPUs, or for browsers, is given to the cases that may run there.

    Args:
        artifacts: path and format of each.
        runtimes: None for all that are installed and take the format.
        providers: None among them for a runtime's usual one.
        batches: images a call.
        threads: the threads of one call.
        streams: calls at the same time.
        device: which GPU.
        cuda_graph: whether kernels are recorded once.
        image_size: pixels of the images, of files for several sizes or for any.
        signature: that runs them, of a file with several.
        runtime_files: the folder with the JavaScript of engines in browsers; None for the environment's.
        browser: the program of a browser; None takes the first that is installed.

    Raises:
        ConfigError: a GPU, a graph or a browser is requested, and no case may run there.
    """
    cases = [
        Case(path, runtime, provider, batch, count, streams)
        for path, format in artifacts
        for provider in providers
        for runtime, batch, count in itertools.product(runtimes or installed_takers(format, provider), batches, threads)
    ]
    placed = [
        dataclasses.replace(
            case,
            device=device if _may_be_on_gpu(case) else 0,
            cuda_graph=cuda_graph and is_asked_for_gpu(case.runtime, case.provider),
            image_size=image_size,
            signature=signature,
            runtime_files=runtime_files if is_in_browsers(case.runtime) else None,
            browser=browser if is_in_browsers(case.runtime) else None,
        )
        for case in cases
    ]
    asked = [f"device is {device}"] * (device > 0) + ["CUDA graphs are requested"] * cuda_graph
    if asked and cases and not any(case.device or case.cuda_graph for case in placed):
        raise ConfigError(
            f"{' and '.join(asked)}, and no case runs on a GPU", fix="name a provider that does: --provider cuda"
        )
    chosen = {"browser": browser, "runtime_files": runtime_files}
    asked = [f"{name} is {value}" for name, value in chosen.items() if value is not None]
    if asked and cases and not any(is_in_browsers(case.runtime) for case in cases):
        raise ConfigError(
            f"{' and '.join(asked)}, and no case runs in a browser", fix="name the runtime that does: --runtime web"
        )
    return placed


def _may_be_on_gpu(case: Case) -> bool:
    return is_asked_for_gpu(case.runtime, case.provider) or may_choose_gpu(case.runtime, case.provider)


def runnable(cases: Sequence[Case]) -> tuple[list[Case], list[Failed]]:
    """The cases whose engine is installed, and each artifact that comes to nothing without another one.

    Raises:
        MissingEngineError: nothing can be run; the error of the first.
    """
    there: list[Case] = []
    failed: dict[tuple[Path, str], Failed] = {}
    for case in cases:
        try:
            RUNTIMES.check(case.runtime)
        except MissingEngineError as error:
            failed.setdefault((case.artifact, case.runtime), failed_case(case, error))
        else:
            there.append(case)
    if failed and not there:
        raise next(iter(failed.values())).error
    return there, [*failed.values()]


def failed_case(case: Case, error: VitDeployError) -> Failed:
    """An artifact that was not timed, and why."""
    artifact = artifact_to_time(case.artifact)
    return Failed(str(case.artifact), artifact.format, artifact.precision, error)


def bench(
    targets: Sequence[Case],
    plan: Plan = Plan(),
    progress: Progress = lambda what, done: None,
    left_out: LeftOut | None = None,
) -> list[Latency]:
    """Time all cases side by side.

    Args:
        targets: the targets, in the order of the results.
        plan: how long each case is measured.
        progress: is told what is being done.
        left_out: is told of each case that cannot be timed, while the others go on; None lets its error end all.

    Raises:
        ArtifactError: an artifact that is missing, changed, or has no golden images.
        ConfigError: a runtime that does not take the format, or numbers that cannot be; names all of them.
        MissingEngineError: a runtime that is not installed, or lacks what is no module, as a browser.
        EngineError: an engine that refused, crashed or hung; names the case. With `left_out` these are raised where not
            one case can be timed; the error of the first.
    """
    _check(targets)
    requests = plan.requests(max((case.streams for case in targets), default=1))
    requests[-1] = {**requests[-1], "last": True}
    host = read_host()
    steps, done = len(targets) * (2 + len(requests)), 0

    def report(doing: str) -> None:
        nonlocal done
        progress(doing, done / steps)
        done += 1

    groups = [[case] for case in targets] if plan.one_at_a_time else [list(targets)]
    refused: list[VitDeployError] = []

    def refuse(case: Case, error: VitDeployError) -> None:
        if left_out is None:
            raise error
        refused.append(error)
        left_out(case, error)

    found = [latency for cases in groups if cases for latency in _measure(cases, plan, requests, host, report, refuse)]
    if refused and not found:
        raise refused[0]
    if targets:
        progress("measured", 1.0)
    return found


def _measure(
    cases: Sequence[Case],
    plan: Plan,
    requests: Sequence[dict[str, Any]],
    host: Host,
    progress: Callable[[str], object],
    refuse: LeftOut,
) -> list[Latency]:
    """Cases that are loaded at the same time and take turns; without those that `refuse` is told of."""
    gone: set[int] = set()
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(CaseProcess(str(case), plan.timeout_s)) for case in cases]

        def ask_each(doing: str, for_each: Sequence[dict[str, Any]], extra_s: float = 0.0) -> list[dict[str, Any]]:
            # One after the other: whoever is not asked sleeps.
            replies: list[dict[str, Any]] = []
            for index, (case, worker, request) in enumerate(zip(cases, workers, for_each, strict=True)):
                progress(f"{doing} {case}")
                reply: dict[str, Any] = {}
                if index not in gone:
                    try:
                        with _fitting_fix(case, len(cases)):
                            reply = worker.ask(request, extra_s=extra_s)
                    except OF_ONE_CASE as error:
                        gone.add(index)
                        refuse(case, error)
                replies.append(reply)
            return replies

        loaded = ask_each("loading", [_request(case, host) for case in cases])
        warm = ask_each("warming up", [{"warmup": plan.warmup}] * len(cases))
        rounds = [
            ask_each("measuring", [request] * len(cases), extra_s=request["seconds"] or 0.0) for request in requests
        ]
    return [
        _latency(case, plan, host, loaded[index], warm[index], [replies[index] for replies in rounds])
        for index, case in enumerate(cases)
        if index not in gone
    ]


def _request(case: Case, host: Host) -> dict[str, Any]:
    spare = _share(host, case.streams) if takes_threads(case.runtime, case.provider) else None
    return dataclasses.asdict(case) | {"artifact": str(case.artifact), "spare_threads": spare}


def _latency(
    case: Case,
    plan: Plan,
    host: Host,
    loaded: Mapping[str, Any],
    warm: Mapping[str, Any],
    rounds: Sequence[Mapping[str, Any]],
) -> Latency:
    round_ns = tuple(round["round_ns"] for round in rounds)
    return Latency(
        case=dataclasses.replace(case, threads=loaded["threads"]),
        plan=plan,
        host=host,
        provider=loaded["provider"],
        samples_ns=tuple(sample for round in rounds for sample in round["samples_ns"]),
        load_ms=loaded["load_ms"],
        first_ms=loaded["first_ms"],
        peak_rss_mb=rounds[-1]["peak_rss_mb"],
        warmup_calls=len(warm["samples_ns"]),
        flat=warm["flat"],
        idle=all(round["idle"] for round in rounds),
        file_batch=loaded["file_batch"],
        round_calls=tuple(len(round["samples_ns"]) for round in rounds),
        round_ns=round_ns,
        bytes=loaded["bytes"],
        resting_rss_mb=loaded["resting_rss_mb"],
        preprocess_ns=tuple(rounds[-1]["preprocess_ns"]),
        energy_j=_sum([round["energy_j"] for round in rounds]),
        gpu_energy_j=gpu_energy([round["gpu_energy_j"] for round in rounds], round_ns),
        placement=loaded["placement"],
        transfer_ns=tuple(loaded["transfer_ns"]),
        build_ms=loaded["build_ms"],
        gpu=_gpu(loaded["gpu"], rounds),
        peak_gpu_mb=rounds[-1]["peak_gpu_mb"],
        queued_calls=tuple(round["queued_calls"] for round in rounds if round["queued_calls"] is not None),
        queued_ns=tuple(round["queued_ns"] for round in rounds if round["queued_ns"] is not None),
        remarks=tuple(loaded["notes"]),
        engine=loaded.get("engine", {}),
        emulated=is_emulated(loaded["provider"]),
    )


def _gpu(facts: Mapping[str, Any] | None, rounds: Sequence[Mapping[str, Any]]) -> Gpu | None:
    if facts is None:
        return None
    from vit_deploy.core.gpu import gpu_from

    return gpu_from({**facts, "rounds": [round["gpu_states"] for round in rounds]})


@contextlib.contextmanager
def _fitting_fix(case: Case, together: int) -> Iterator[None]:
    """Where a GPU has no room for one more of several cases, the way is to load them one at a time."""
    try:
        yield
    except EngineError as error:
        if together > 1 and _may_be_on_gpu(case) and has_no_room(error):
            fix = "measure the cases one at a time (--one-at-a-time), or with smaller batches"
            raise EngineError(error.message, fix=fix) from error
        raise


def has_no_room(error: EngineError) -> bool:
    """Whether an engine says that a GPU is full, or that it takes one process at a time."""
    return NO_ROOM.search(error.message) is not None


def takes_threads(runtime: str, provider: str | None) -> bool:
    """Whether a number of threads is given where none was requested: not to GPUs, whose threads are others.

    Args:
        runtime: that is going to run.
        provider: the requested one.
    """
    if is_asked_for_gpu(runtime, provider):
        return False
    return runtime != "keras" or of_children().get("KERAS_BACKEND", "tensorflow") == "tensorflow"


def _share(host: Host, streams: int) -> int:
    return max(1, host.threads // streams)


def _sum(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


def _check(cases: Sequence[Case]) -> None:
    artifacts: dict[Path, Artifact] = {}
    for case in cases:
        if case.artifact not in artifacts:
            found = artifact_to_time(case.artifact)
            artifacts[case.artifact] = found.taken_for(case.signature, case.image_size)
            golden_images(artifacts[case.artifact])
    problems = []
    for case in cases:
        RUNTIMES.check(case.runtime)
        takers = FORMATS[artifacts[case.artifact].format].runtime_names
        if case.runtime not in takers:
            problems.append(f"{case.runtime} does not run {case.artifact}; take {' or '.join(takers)}")
        if case.batch < 1:
            problems.append(f"batch is {case.batch}; expected a positive number")
        if case.streams < 1:
            problems.append(f"streams is {case.streams}; expected a positive number")
        if case.device < 0:
            problems.append(f"device is {case.device}; expected a number from 0")
        if case.cuda_graph and not is_asked_for_gpu(case.runtime, case.provider):
            problems.append(f"cuda_graph is of GPUs; the provider is {case.provider or 'not given'}")
        if case.threads is not None and case.threads < 1:
            problems.append(f"threads is {case.threads}; expected a positive number")
    if problems:
        raise ConfigError("; ".join(dict.fromkeys(problems)), fix="correct the options named above")
