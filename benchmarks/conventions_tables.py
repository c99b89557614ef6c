"""Targets and table of the proofs on the wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.markdown import table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

LIMIT = 1e-5  # of the largest logit
FORMATS = {"onnx": "ONNX", "tflite": "TFLite", "savedmodel": "SavedModel"}
QUANTIZED = ("onnx-int8", "onnx-int8-static", "tflite-int8", "tflite-int8-static")


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Every file near enough, at both sizes, and none with fewer bits outside of its tolerance."""
    for key, what in (("wire", "the size it was trained at"), ("other_size", "another size")):
        distances = [value for result in results.values() for value in result[key].values() if isinstance(value, float)]
        text = f"farthest file from its library at {what}, in millionths of the largest logit"
        yield Target(text, LIMIT * 1e6, max(distances) * 1e6 if distances else None)
    outside = [name for result in results.values() for name in QUANTIZED if not _within(result, name)]
    yield Target(
        "int8 and int8-static files outside of their tolerance", 0, len(outside) if results else None, digits=0
    )


def render(results: Mapping[str, Result]) -> str:
    """A row a convention."""
    columns = [
        *FORMATS.values(),
        *(f"{name}, other size" for name in FORMATS.values()),
        *(name.replace("onnx-", "ONNX ").replace("tflite-", "TFLite ") for name in QUANTIZED),
    ]
    rows = [(result["convention"], result["library"], *_cells(result)) for result in results.values()]
    first = next(iter(results.values()))
    return f"{facts_line(first)}\n\n{table(('convention', 'beside', *columns), rows)}"


def _cells(result: Result) -> Iterator[str]:
    for format in FORMATS:
        yield f"{result['wire'][format]:.0e}"
    for format in FORMATS:
        other: Mapping[str, Any] = result["other_size"]
        yield other["none"] if "none" in other else f"{other[format]:.0e}"
    for name in QUANTIZED:
        found = result["precisions"].get(name)
        yield (
            "**missing**"
            if found is None
            else f"{found['snr_db']:.0f} dB{', **outside**' if found['failures'] else ''}"
        )


def _within(result: Result, name: str) -> bool:
    return name in result["precisions"] and not result["precisions"][name]["failures"]
