"""Targets and tables of files for images of any size, and for several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.ratios import median_ratio, round_medians
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

SHOWN = {"tiny": "ViT-Tiny", "base": "ViT-Base"}
ENGINES = {"onnxruntime": "ONNX Runtime", "savedmodel": "TensorFlow"}


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Of each model one for each engine, and one for the bytes."""
    for size, model in SHOWN.items():
        result = results.get(size)
        for engine, name in ENGINES.items():
            yield Target(
                f"{model} for images of any size in {name}, its latency at the trained size over that of a file for it",
                1.05,
                None if result is None else _ratio(result, engine),
            )
        yield Target(
            f"{model} for three sizes in one TFLite file, its bytes over those of a file for one",
            1.1,
            None if result is None else _growth(result),
        )


def render(results: Mapping[str, Result]) -> str:
    """A table a size."""
    return "\n\n".join(_section(name, result) for name, result in results.items())


def _section(name: str, result: Result) -> str:
    rows = [
        (
            ENGINES[entry["engine"]],
            "any" if entry["size"] == "dynamic" else "one",
            number(min(_medians(result, entry["engine"], entry["size"])) / 1e6, 1),
            number(_ratio(result, entry["engine"]) if entry["size"] == "dynamic" else 1.0, 3),
        )
        for entry in result["open"]
    ]
    latencies = table(("engine", "sizes", "ms", "over a file for one"), rows)
    joined = result["joined"]
    placed = [
        (signature, ", ".join(f"{count} by {where}" for where, count in counts.items()))
        for signature, counts in joined["placements"].items()
    ]
    executed = table(("signature", "operators"), placed)
    together = (
        f"{len(placed)} sizes in one TFLite file: {joined['several_bytes'] / 1e6:.1f} MB, {_growth(result):.3f} of the "
        f"{joined['one_bytes'] / 1e6:.1f} MB of a file for one."
    )
    return f"### Sizes of images of {name}\n\n{facts_line(result)}\n\n{latencies}\n\n{together}\n\n{executed}"


def _growth(result: Result) -> float:
    joined: Mapping[str, Any] = result["joined"]
    return float(joined["several_bytes"] / joined["one_bytes"])


def _medians(result: Result, engine: str, size: str) -> list[float]:
    return round_medians(result["open"], {"engine": engine, "size": size})


def _ratio(result: Result, engine: str) -> float:
    return median_ratio(_medians(result, engine, "dynamic"), _medians(result, engine, "fixed"))
