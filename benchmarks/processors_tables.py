"""How do the stored results of processors without VNNI read: a row a file and an engine?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

FITTING, FULL = "the recipe's", "to 127"
PRECISIONS = {"onnx": ("int8", "int8-static"), "tflite": ("int8", "int8-static", "int8-full")}
VARIANTS = {"plain": "digits", "planted": "digits, outliers planted"}
LOST = 1.0  # dB that other roundings cost by chance, where nothing saturates
APART = 0.5  # dB between the simulation and the emulated processor

File = tuple[str, str, str, str]  # variant, format, precision, weights


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Our files lose nothing without VNNI, and the simulation tells what such a processor answers."""
    files = _files(results)
    for format, precisions in PRECISIONS.items():
        for precision in precisions:
            own = [each for key, found in files.items() if key[1:] == (format, precision, FITTING) for each in found]
            lost = [
                engine["here"] - engine["emulated"]
                for each in own
                for engine in each["engines"].values()
                if None not in engine.values()
            ]
            text = f"{format} `{precision}`: dB that any engine loses on a processor without VNNI, mean of the models"
            yield Target(text, LOST, mean(lost) if lost else None)
    apart = [
        abs(each["simulated"] - each["engines"]["onnxruntime"]["emulated"])
        for found in files.values()
        for each in found
        if each["simulated"] is not None and each["engines"]["onnxruntime"]["emulated"] is not None
    ]
    text = "onnx: dB between `--simulate no-vnni` and ONNX Runtime on such a processor, the most of all files"
    yield Target(text, APART, max(apart, default=None))


def render(results: Mapping[str, Result]) -> str:
    """A table of means over the models, and the first run's facts."""
    rows = []
    for (variant, format, precision, weights), found in _files(results).items():
        for engine in found[0]["engines"]:
            pair = [_mean([each["engines"][engine][where] for each in found]) for where in ("here", "emulated")]
            simulated = _mean([each["simulated"] for each in found]) if engine == "onnxruntime" else None
            names = (f"{VARIANTS[variant]}: {format}-{precision}", weights if format == "onnx" else "-", engine)
            rows.append((*names, *(number(each, 1) for each in (*pair, simulated))))
    columns = ("signal to noise, dB", "weights", "engine", "with VNNI", "without, under QEMU", "without, simulated")
    first = next(iter(results.values()))
    return f"{facts_line(first)}\n\n{table(columns, rows)}"


def _files(results: Mapping[str, Result]) -> dict[File, list[dict[str, Any]]]:
    files: dict[File, list[dict[str, Any]]] = {}
    for variant in VARIANTS:
        for result in results.values():
            for each in result[variant]:
                files.setdefault((variant, each["format"], each["precision"], each["weights"]), []).append(each)
    return files


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return mean(there) if there else None
