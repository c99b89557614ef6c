"""How do the stored results of shrinking read: targets, then a line a way and file?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, median
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

AIMED_AT = {"1.5x": 1.5, "2x": 2.0}
JUDGED = ("onnx-fp32", "tflite-int8")  # that have to be as fast as aimed at
MAX_DROP = {"digits": 0.3, "photos": 1.5}  # points of top-1, at 1.5 times the speed
# The mix that is judged. Of the digits' models, of a tenth of a millisecond, most is what operators take by themselves:
# int8 TFLite needs the smaller one to be 1.5 times as fast.
MIX = {"digits": "2x", "photos": "1.5x"}
SPEED = 1.5
NAMES = {"digits": "digits", "photos": "photographs"}


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Of 1.5 times as fast: how fast it is, what it loses, and what the same model gains over training from nothing."""
    for kind, most in MAX_DROP.items():
        found, mix = _of(results, kind, MIX[kind]), f"{NAMES[kind]} {MIX[kind]}"
        for name in JUDGED:
            speed = [_speedup(each, name) for each in found]
            yield Target(f"{mix}, {name}: times as fast, median", SPEED, _or_none(speed, median), at_least=True)
            lost = [_lost(each, name) for each in found]
            yield Target(f"{mix}, {name}: points of top-1 lost, mean of the seeds", most, _or_none(lost, mean))
        gained = [_over_nothing(each) for way in AIMED_AT for each in _of(results, kind, way)]
        text = f"{NAMES[kind]}: points of top-1 above the same small model trained from nothing for as long, worst"
        yield Target(text, 0.0, _or_none(gained, min), at_least=True)


def _of(results: Mapping[str, Result], kind: str, way: str) -> list[Result]:
    return [each for each in results.values() if each["model"].startswith(f"{kind}-") and each["way"] == way]


def _or_none(figures: Sequence[float | None], summary: Any) -> float | None:
    """A summary; none where one figure is missing."""
    known = [each for each in figures if each is not None]
    return summary(known) if known and len(known) == len(figures) else None


def _files(result: Result, name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    found = {each["state"]: each for each in result["files"] if each["name"] == name}
    return (found["before"], found["after"]) if len(found) == len(("before", "after")) else None


def _speedup(result: Result, name: str) -> float | None:
    files = _files(result, name)
    if files is None or not files[0]["latency_ms"] or not files[1]["latency_ms"]:
        return None
    return float(files[0]["latency_ms"] / files[1]["latency_ms"])


def _lost(result: Result, name: str) -> float | None:
    files = _files(result, name)
    return None if files is None else 100 * (files[0]["top1"] - files[1]["top1"])


def _over_nothing(result: Result) -> float | None:
    files = _files(result, "onnx-fp32")
    return None if files is None else 100 * (files[1]["top1"] - result["from_nothing"])


def render(results: Mapping[str, Result]) -> str:
    """A line a kind of images, way and file, over all models of the kind."""
    rows = [
        (f"{NAMES[kind]} {way} {name}", *_cells(found, name))
        for kind in MAX_DROP
        for way in AIMED_AT
        if (found := _of(results, kind, way))
        for name in dict.fromkeys(each["name"] for each in found[0]["files"])
    ]
    head = ("file", "seeds", "multiply-adds", "top-1 before", "after", "mean lost", "worst", "from nothing", "bytes")
    said = (
        "Multiply-adds and times as fast: the model before over the shrunk one, of times the median of the seeds; lost:"
        " points of top-1 against the same file before. From nothing: the same small model trained as the large one was"
        " for as many steps as the shrinking took."
    )
    first = next(iter(results.values()))
    return "\n\n".join((f"First result: {facts_line(first)}", said, table((*head, "times as fast"), rows)))


def _cells(found: Sequence[Result], name: str) -> Iterator[str]:
    pairs = [files for each in found if (files := _files(each, name))]
    lost = [_lost(each, name) for each in found]
    yield str(len(found))
    yield number(mean(each["multiply_adds"][0] / each["multiply_adds"][1] for each in found), 2)
    yield number(100 * mean(before["top1"] for before, _ in pairs) if pairs else None, 2)
    yield number(100 * mean(after["top1"] for _, after in pairs) if pairs else None, 2)
    yield number(_or_none(lost, mean), 2)
    yield number(_or_none(lost, max), 2)
    yield number(100 * mean(each["from_nothing"] for each in found), 2)
    yield number(mean(after["bytes"] / before["bytes"] for before, after in pairs) if pairs else None, 2)
    yield number(_or_none([_speedup(each, name) for each in found], median), 2)
