"""How fast are the files, each in a process of its own, taking turns in rounds?"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.processes import environment
from benchmarks.progress import progress
from benchmarks.sizes import Size
from benchmarks.ways import Way
from vit_deploy.core.child_processes import python
from vit_deploy.core.host import read_host
from vit_deploy.errors import EngineError
from vit_deploy.performance.process import WORKER, CaseProcess

FOREIGN_WORKER = python("-m", "benchmarks.foreign_worker")
TIMEOUT_S = 600.0
T = TypeVar("T")


def in_rounds(
    workers: Sequence[tuple[CaseProcess, T]], rounds: int, seconds: float, label: str
) -> Iterator[tuple[T, float, dict[str, Any]]]:
    """Let loaded processes call their models in turns, and give each answer as it comes.

    Args:
        workers: the processes, each with what belongs to it.
        rounds: in which they take turns, every other one backwards: nobody always follows the same neighbour.
        seconds: of calls a round.
        label: said of the progress.

    Yields:
        What belongs to a process, the load average before it began, and its answer.
    """
    for index in range(rounds):
        progress(f"{label} round {index + 1}/{rounds}")
        for worker, own in workers if index % 2 == 0 else reversed(workers):
            load = os.getloadavg()[0]
            yield own, load, worker.ask({"calls": None, "seconds": seconds}, extra_s=seconds)


def measure_latencies(
    ways: Sequence[Way], size: Size, folder: Path, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Time one image a call, on all cores, with artifacts and foreign files under the same protocol.

    Args:
        ways: whose files lie in `folder`.
        size: of the model.
        folder: where they are.
        rounds: in which the processes take turns.
        seconds: of calls a round.

    Returns:
        One entry a way: the samples of each round and the load average before it, or why its file does not load.
    """
    threads = read_host().threads
    results: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        workers: list[tuple[CaseProcess, dict[str, Any]]] = []
        for way in ways:
            progress(f"{size.name}: loading {way.name}")
            worker = stack.enter_context(_worker(way))
            try:
                facts = worker.ask(_request(way, size, folder, threads))
            except EngineError as error:
                results.append({"way": way.name, "runtime": way.runtime, "error": error.message})
                progress(error.message)
                continue
            entry = {
                "way": way.name,
                "runtime": way.runtime,
                "threads": threads,
                "error": None if facts.get("finite", True) else "its outputs are not finite",
                "load_ms": facts["load_ms"],
                "samples_ns": [],
                "load_1m": [],
            }
            results.append(entry)
            workers.append((worker, entry))
        for worker, entry in workers:
            progress(f"{size.name}: warming up {entry['way']}")
            entry["warmup_flat"] = worker.ask({"warmup": None})["flat"]
        for entry, load, answer in in_rounds(workers, rounds, seconds, f"{size.name}: latency"):
            entry["load_1m"].append(load)
            entry["samples_ns"].append(answer["samples_ns"])
            entry["peak_rss_mb"] = answer["peak_rss_mb"]
    return results


def measure_artifacts(
    artifacts: Sequence[tuple[dict[str, str], Path]], size: Size, rounds: int, seconds: float
) -> list[dict[str, Any]]:
    """Time one image a call, on all cores, with artifacts that all load, each in a process of its own.

    Args:
        artifacts: what each is, its "engine" first, and where it is.
        size: of the model.
        rounds: in which the processes take turns.
        seconds: of calls a round.

    Returns:
        One entry an artifact: what it is, the samples of each round and the load average before it.
    """
    threads = read_host().threads
    entries: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        workers: list[tuple[CaseProcess, dict[str, Any]]] = []
        for kind, artifact in artifacts:
            progress(f"{size.name}: loading {', '.join(kind.values())}")
            worker = stack.enter_context(CaseProcess(kind["engine"], TIMEOUT_S, WORKER))
            request = {"runtime": kind["engine"], "threads": threads, "provider": None, "batch": 1}
            worker.ask({**request, "artifact": str(artifact)})
            worker.ask({"warmup": None})
            entries.append({**kind, "threads": threads, "samples_ns": [], "load_1m": []})
            workers.append((worker, entries[-1]))
        for entry, load, answer in in_rounds(workers, rounds, seconds, f"{size.name}:"):
            entry["load_1m"].append(load)
            entry["samples_ns"].append(answer["samples_ns"])
    return entries


def _worker(way: Way) -> CaseProcess:
    os.environ["PYTHONPATH"] = environment()["PYTHONPATH"]  # foreign workers import this package
    return CaseProcess(way.label, TIMEOUT_S, WORKER if way.ours else FOREIGN_WORKER)


def _request(way: Way, size: Size, folder: Path, threads: int) -> dict[str, Any]:
    common = {"runtime": way.runtime, "threads": threads}
    if way.ours:
        return {**common, "artifact": str(way.target(folder)), "provider": None, "batch": 1}
    (height, width), channels = size.image_size, size.config.channels
    image = (height, width, channels) if way.layout == "nhwc" else (channels, height, width)
    return {**common, "file": str(way.target(folder)), "shape": [1, *image]}
