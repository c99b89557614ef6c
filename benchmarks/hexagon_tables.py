"""How do the stored results of the emulated Hexagon processor read: a row a precision?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import mean
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target
from vit_deploy.core.hexagon import EMULATED

PRECISIONS = ("fp16", "int8-static", "int16x8")
LEAST = 35.0  # dB of int16x8
LOST = 0.5  # points of top-1, as of int8


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Every operator on the processor, `int16x8` near the reference, and next to nothing lost."""
    for name, result in _emulated(results):
        for precision, file in result["files"].items():
            text = f"{name}, onnx `{precision}`: share of the operators on the emulated processor"
            yield Target(text, 1.0, _share(file["placement"]), at_least=True)
        text = f"{name}, onnx `int16x8`: dB of signal to noise on the emulated processor"
        yield Target(text, LEAST, result["files"]["int16x8"]["there_db"], at_least=True, digits=1)
    lost = [result["points_lost"] for result in results.values() if "points_lost" in result]
    for precision in PRECISIONS:
        text = f"digits, onnx `{precision}` for Hexagon: points of top-1 lost, mean of the seeds"
        yield Target(text, LOST, mean(one[precision] for one in lost) if lost else None)


def render(results: Mapping[str, Result]) -> str:
    """A table of signal to noise and operators, and the first run's facts."""
    rows = [
        (f"{name}, `{precision}`", number(file["here_db"], 1), number(file["there_db"], 1), _places(file["placement"]))
        for name, result in _emulated(results)
        for precision, file in result["files"].items()
    ]
    columns = ("onnx for Hexagon", "dB in ONNX Runtime on x86-64", "dB on the emulated processor", "operators there")
    return f"{facts_line(next(iter(results.values())))}\n\n{table(columns, rows)}"


def _emulated(results: Mapping[str, Result]) -> list[tuple[str, Any]]:
    return [(result["model"], result) for result in results.values() if "files" in result]


def _share(placement: Mapping[str, int]) -> float | None:
    total = sum(placement.values())
    return placement.get(EMULATED, 0) / total if total else None


def _places(placement: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {place}" for place, count in placement.items())
