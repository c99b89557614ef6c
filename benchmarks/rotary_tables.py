"""Targets and tables of what rotary positions cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from benchmarks.markdown import number, table
from benchmarks.ratios import median_ratio, round_medians
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

SHOWN = "base"
NAMES = {
    "dinov3": "DINOv3's rotary positions",
    "eva": "EVA-02's rotary positions",
    "rope_vit_mixed": "rotary positions that each head and layer has learned",
    "mlcd": "rotary positions of patches and class token",
}
ENGINES = {"onnxruntime": "ONNX Runtime", "litert": "LiteRT"}


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """One for each engine and convention that was measured."""
    result = results.get(SHOWN)
    measured = {entry["positions"] for entry in result["rotary"]} if result else set(NAMES)
    for engine, name in ENGINES.items():
        for positions in [kind for kind in NAMES if kind in measured]:
            yield Target(
                f"ViT-Base with {NAMES[positions]} in {name}, its latency over that of the same with a table",
                1.06,
                None if result is None else _ratio(result, engine, positions),
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
