"""How do the compressions take part in the one command, and how do their results read?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.compression import MAX_DROP, MAX_GZIP, STATES, WAYS, measure_one, table
from benchmarks.job import Job
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target
from benchmarks.trained import on_digits

JUDGED = {"prune": "tflite-fp32", "cluster": "tflite-fp32", "qat": "tflite-int8-static"}


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result a model and method."""
    for model in on_digits(job):
        for method in WAYS:
            yield f"{model.stem}-{method}", measure_one(model, method, speed=True)


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """The worst model counts."""
    for method, file in JUDGED.items():
        lost = [_lost(result, "tflite-fp32", file) for result in results.values() if result["method"] == method]
        yield Target(f"`{method}` {file} of digits: points of top-1 lost, worst seed", MAX_DROP, _worst(lost))
    sizes = [_gzip(result) for result in results.values() if result["method"] == "cluster"]
    yield Target("`cluster` tflite-fp32 of digits: gzipped size over the uncompressed one's", MAX_GZIP, _worst(sizes))
    name = "tflite-int8-full"
    lost = [_lost(result, name, name) for result in results.values() if result["method"] == "qat"]
    yield Target(f"`qat` {name} of digits: points of top-1 below post-training {name}, worst seed", 0.0, _worst(lost))


def _worst(figures: list[float | None]) -> float | None:
    """The largest; none where one is missing."""
    known = [each for each in figures if each is not None]
    return max(known) if known and len(known) == len(figures) else None


def _file(result: Result, state: str, name: str) -> Mapping[str, Any] | None:
    return next((each for each in result["files"] if (each["state"], each["name"]) == (state, name)), None)


def _lost(result: Result, was: str, name: str) -> float | None:
    before, after = _file(result, STATES[0], was), _file(result, STATES[1], name)
    return 100 * (before["top1"] - after["top1"]) if before and after else None


def _gzip(result: Result) -> float | None:
    before, after = (_file(result, state, "tflite-fp32") for state in STATES)
    return after["gzip_bytes"] / before["gzip_bytes"] if before and after else None


def render(results: Mapping[str, Result]) -> str:
    """A line a file."""
    found = list(results.values())
    return "\n\n".join([f"First result: {facts_line(found[0])}", table(found)])
