"""Targets and table of sessions that threads may share."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.ratios import median_ratio
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

SHOWN = "tiny"


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """One for each engine whose session keeps calls apart itself."""
    result = results.get(SHOWN)
    for engine in ("litert", "openvino"):
        yield Target(
            f"ViT-Tiny fp32 in {engine}, two streams: calls a second over those of the engine used plainly",
            0.97,
            None if result is None else _ratio(result, engine, 2),
            at_least=True,
        )


def render(results: Mapping[str, Result]) -> str:
    """A table a size."""
    return "\n\n".join(_section(name, result) for name, result in results.items())


def _section(name: str, result: Result) -> str:
    kinds = dict.fromkeys((stream["engine"], stream["streams"]) for stream in result["streams"])
    rows = [
        (
            engine,
            str(streams),
            *(number(statistics.median(_of(result, engine, streams, ours)), 1) for ours in (True, False)),
            number(_ratio(result, engine, streams), 3),
        )
        for engine, streams in kinds
    ]
    head = ("engine", "streams", "ours, calls/s", "plain, calls/s", "ours over plain")
    return f"### Streams of {name}\n\n{facts_line(result)}\n\n{table(head, rows)}"


def _of(result: Result, engine: str, streams: int, ours: bool) -> list[float]:
    found: Mapping[str, Any] = next(
        stream
        for stream in result["streams"]
        if (stream["engine"], stream["streams"], stream["ours"]) == (engine, streams, ours)
    )
    return list(found["calls_per_s"])


def _ratio(result: Result, engine: str, streams: int) -> float:
    return median_ratio(_of(result, engine, streams, True), _of(result, engine, streams, False))
