"""Targets and tables of what rotary positions cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.markdown import number, table
from benchmarks.ratios import median_ratio, round_medians
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

SHOWN = "base"
ENGINES = {"onnxruntime": "ONNX Runtime", "litert": "LiteRT"}


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """One for each engine."""
    result = results.get(SHOWN)
    for engine, name in ENGINES.items():
        yield Target(
            f"ViT-Base with DINOv3's rotary positions in {name}, its latency over that of the same with a table",
            1.06,
            None if result is None else _ratio(result, engine, "dinov3"),
        )


def render(results: Mapping[str, Result]) -> str:
    """A table a size."""
    return "\n\n".join(_section(name, result) for name, result in results.items())


def _section(name: str, result: Result) -> str:
    kinds = [(entry["engine"], entry["positions"]) for entry in result["rotary"]]
    rows = [
        (
            ENGINES[engine],
            "a table" if positions == "table" else f"rotary, {positions}",
            number(min(_medians(result, engine, positions)) / 1e6, 1),
            number(_ratio(result, engine, positions), 3),
        )
        for engine, positions in kinds
    ]
    head = ("engine", "positions", "ms", "over a table")
    return f"### Rotary positions of {name}\n\n{facts_line(result)}\n\n{table(head, rows)}"


def _medians(result: Result, engine: str, positions: str) -> list[float]:
    return round_medians(result["rotary"], {"engine": engine, "positions": positions})


def _ratio(result: Result, engine: str, positions: str) -> float:
    return median_ratio(_medians(result, engine, positions), _medians(result, engine, "table"))
