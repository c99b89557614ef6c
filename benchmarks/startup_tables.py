"""Targets and table of what `vit-deploy --help` takes."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.ratios import median_ratio
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

SHOWN, OURS, BARE, BEFORE = "help", "vit-deploy", "bare Typer", "vit-deploy at "


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Its own time, and that beside the package as it was."""
    ways = _ways(results[SHOWN]) if SHOWN in results else {}
    before = next((name for name in ways if name.startswith(BEFORE)), None)
    yield Target("`vit-deploy --help`: seconds of a processor, the median", 0.3, _cpu_s(ways[OURS]) if ways else None)
    yield Target(
        "the same, over what it was before its modules were moved", 1.0, before and _ratio(ways[OURS], ways[before])
    )


def render(results: Mapping[str, Result]) -> str:
    """A row a way."""
    return "\n\n".join(_section(result) for result in results.values())


def _section(result: Result) -> str:
    ways = _ways(result)
    rows = [
        (
            name,
            number(_cpu_s(way), 3),
            number(min(way["wall_ns"]) / 1e9, 3),
            number(_ratio(way, ways[BARE]), 2),
        )
        for name, way in ways.items()
    ]
    head = ("`--help` of", "processor s, median", "clock s, least", "processor s over bare Typer's")
    return f"{facts_line(result)}\n\n{table(head, rows)}"


def _ways(result: Result) -> dict[str, Mapping[str, Any]]:
    return {way["name"]: way for way in result["ways"]}


def _cpu_s(way: Mapping[str, Any]) -> float:
    return statistics.median(way["cpu_ns"]) / 1e9


def _ratio(way: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    return median_ratio(way["cpu_ns"], other["cpu_ns"])
