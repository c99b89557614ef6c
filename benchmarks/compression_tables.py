"""How do the stored results of the compressions read: targets, then a line a way and file?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, median
from typing import Any

from benchmarks.compression import WAYS
from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

JUDGED = {"prune": "tflite-fp32", "cluster": "tflite-fp32", "qat": "tflite-int8-static"}
FULL = "tflite-int8-full"
MAX_DROP = 0.7  # points of top-1 that each may lose
MAX_GZIP = 0.45  # of the uncompressed TFLite's gzipped size, for the better one of pruned and clustered
STATES = ("before", "after")


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """The worst model counts, and where seeds differ by more than what is compared, the mean of all models too."""
    for way, file in JUDGED.items():
        lost = _lost(results, way, "tflite-fp32", file)
        yield Target(f"`{way}` {file} of digits: points of top-1 lost, worst seed", MAX_DROP, _of(lost, max))
    sizes = {way: _of(_sizes(results, way), max) for way in ("prune", "cluster")}
    known = [(size, way) for way, size in sizes.items() if size is not None]
    way = min(known)[1] if known else "cluster"
    yield Target(f"`{way}` tflite-fp32 of digits: gzipped size over the uncompressed one's", MAX_GZIP, sizes[way])
    lost = _lost(results, "qat", FULL, FULL)
    for which, figure in (("mean of the seeds", mean), ("worst seed", max)):
        text = f"`qat` {FULL} of digits: points of top-1 below post-training {FULL}, {which}"
        yield Target(text, 0.0, _of(lost, figure))


def _of(figures: Sequence[float | None], summary: Any) -> float | None:
    """A summary; none where one figure is missing."""
    known = [figure for figure in figures if figure is not None]
    return summary(known) if known and len(known) == len(figures) else None


def _models(results: Mapping[str, Result], way: str) -> list[Result]:
    return [result for result in results.values() if result["method"] == way]


def _file(result: Result, state: str, name: str) -> Mapping[str, Any] | None:
    return next((file for file in result["files"] if (file["state"], file["name"]) == (state, name)), None)


def _lost(results: Mapping[str, Result], way: str, was: str, name: str) -> list[float | None]:
    pairs = [(_file(model, STATES[0], was), _file(model, STATES[1], name)) for model in _models(results, way)]
    return [100 * (before["top1"] - after["top1"]) if before and after else None for before, after in pairs]


def _sizes(results: Mapping[str, Result], way: str) -> list[float | None]:
    return [_ratio(model, "tflite-fp32", "gzip_bytes") for model in _models(results, way)]


def _ratio(result: Result, name: str, figure: str) -> float | None:
    """After over before."""
    before, after = (_file(result, state, name) for state in STATES)
    known = before and after and before[figure] and after[figure]
    return after[figure] / before[figure] if before and after and known else None


def render(results: Mapping[str, Result]) -> str:
    """A line a way and file, over all models, and the first classes of each model."""
    found = list(results.values())
    models = sorted({each["model"] for each in found})
    rows, each_model = [], []
    for way in [way for way in WAYS if _models(results, way)]:
        for name in dict.fromkeys(file["name"] for file in _models(results, way)[0]["files"]):
            rows.append((f"`{way}` {name}", *_cells(results, way, name)))
            each_model.append((f"`{way}` {name}", *(_top1(results.get(f"{model}-{way}"), name) for model in models)))
    head = ("file", "top-1 before", "after", "worst seed lost", "zeros", "values", "bytes", "gzipped", "latency")
    said = (
        f"Means of {len(models)} seed{'s' * (len(models) != 1)}; latency is the median. Points lost against the same"
        " file before, uncompressed or post-training; values: the most distinct ones of a kernel; size and"
        " latency over those before."
    )
    return "\n\n".join(
        (
            f"First result: {facts_line(found[0])}",
            said,
            table(head, rows),
            "First classes that are right before and after, each model:",
            table(("file", *models), each_model),
        )
    )


def _cells(results: Mapping[str, Result], way: str, name: str) -> Iterator[str]:
    models = _models(results, way)
    before, after = ([_file(model, state, name) for model in models] for state in STATES)
    for files in (before, after):
        yield number(_of(_each(files, "top1", 100), mean), 2)
    yield number(_of(_lost(results, way, name, name), max), 2)
    yield number(_of(_each(after, "sparsity", 100), mean), 1)
    yield number(_of(_each(after, "distinct"), max), 0)
    for figure, summary in (("bytes", mean), ("gzip_bytes", mean), ("latency_ms", median)):
        yield number(_of([_ratio(model, name, figure) for model in models], summary), 2)


def _each(files: Sequence[Mapping[str, Any] | None], figure: str, factor: float = 1) -> list[float | None]:
    return [None if file is None else factor * file[figure] for file in files]


def _top1(result: Result | None, name: str) -> str:
    files = [result and _file(result, state, name) for state in STATES]
    return " → ".join("-" if file is None else f"{100 * file['top1']:.2f}" for file in files)
