"""Targets and tables of many images through `embed`."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.markdown import number, table
from benchmarks.ratios import median_ratio
from benchmarks.records import Result, facts_line
from benchmarks.targets import Target

OURS, ALONE, PIPELINE, LOADER, RAY = (
    "embed",
    "the engine alone",
    "transformers' pipeline",
    "ONNX Runtime and PyTorch's DataLoader",
    "embed --ray",
)
SHARE = 0.25  # of the images that come first, and are left out: they were decoded before time was taken

Rates = Mapping[tuple[str, str], list[float]]


def targets(results: Mapping[str, Result]) -> Iterator[Target]:
    """Its own throughput beside others', by the median ratio over rounds; and its memory."""
    rates = _rates(results["throughput"]) if "throughput" in results else {}
    yield Target(
        "`embed`, ViT-Tiny int8 in LiteRT: images a second over those of the engine alone",
        0.9,
        _ratio(rates, (OURS, "int8"), (ALONE, "int8")),
        at_least=True,
    )
    yield Target(
        "`embed`, fp32: images a second over those of transformers' image-feature-extraction pipeline",
        1.5,
        _ratio(rates, (OURS, "fp32"), (PIPELINE, "fp32")),
        at_least=True,
    )
    yield Target(
        "`embed`, fp32: images a second over those of ONNX Runtime in a loop with PyTorch's DataLoader",
        1.0,
        _ratio(rates, (OURS, "fp32"), (LOADER, "fp32")),
        at_least=True,
    )
    jobs = _jobs(results["cluster"]) if "cluster" in results else {}
    yield Target(
        "`embed --ray` on this machine: images a second over those without, start apart",
        0.85,
        median_ratio(jobs[RAY], jobs[OURS]) if jobs else None,
        at_least=True,
    )
    runs = results["memory"]["runs"] if "memory" in results else []
    peaks = [sum(run["peaks"]) for run in runs]
    yield Target(
        "peak memory of `embed` and its processes at 100,000 images over that at 1,000",
        1.1,
        peaks[-1] / peaks[0] if peaks else None,
    )


def render(results: Mapping[str, Result]) -> str:
    """A row a way, and a row a number of images."""
    parts = []
    if "throughput" in results:
        found = results["throughput"]
        rates = _rates(found)
        rows = [
            (
                f"{entry['name']}, {entry['precision']}",
                number(statistics.median(rates[entry["name"], entry["precision"]]), 1),
                number(max(rates[entry["name"], entry["precision"]]), 1),
                number(statistics.median(round_["cpu_s"] for round_ in entry["rounds"]), 1),
                " to ".join(number(load, 1) for load in _range(entry)),
            )
            for entry in found["ways"]
        ]
        head = ("way", "images/s, median", "images/s, best round", "processor s, start included", "load average")
        parts += [facts_line(found), table(head, rows)]
    if "cluster" in results:
        parts += _cluster(results["cluster"])
    if "memory" in results:
        found = results["memory"]
        rows = [
            (f"{run['images']:,} images", number(sum(run["peaks"]) / 1e6, 1), number(run["peaks"][0] / 1e6, 1))
            for run in found["runs"]
        ]
        parts += [facts_line(found), table(("memory", "peak MB, all processes", "peak MB, the largest"), rows)]
    return "\n\n".join(parts)


def _cluster(found: Result) -> list[str]:
    jobs, few, many = _jobs(found), found["few"], found["images"]
    rows = []
    for entry in found["ways"]:
        started = [_start(each, few, many) for each in entry["rounds"]]
        whole = [many / each["many_s"] for each in entry["rounds"]]
        rates = jobs[entry["name"]]
        loads = " to ".join(number(load, 1) for load in _range(entry))
        figures = [statistics.median(rates), max(rates), statistics.median(started), statistics.median(whole)]
        rows.append((f"{entry['name']}, int8", *(number(figure, 1) for figure in figures), loads))
    head = (
        "whole jobs",
        "images/s, median",
        "images/s, best round",
        "start s",
        f"images/s of {many:,}, start included",
    )
    return [facts_line(found), table((*head, "load average"), rows)]


def _jobs(found: Result) -> dict[str, list[float]]:
    """Images a second of each round, by way: what the images that one job has more take longer."""
    more = found["images"] - found["few"]
    return {
        entry["name"]: [more / (each["many_s"] - each["few_s"]) for each in entry["rounds"]] for entry in found["ways"]
    }


def _start(found: Mapping[str, Any], few: int, many: int) -> float:
    """Seconds of a job that its images do not take."""
    seconds: float = found["few_s"] - few * (found["many_s"] - found["few_s"]) / (many - few)
    return seconds


def _rates(result: Result) -> dict[tuple[str, str], list[float]]:
    """Images a second of each round, by way and precision."""
    return {
        (entry["name"], entry["precision"]): [_rate(round_) for round_ in entry["rounds"]] for entry in result["ways"]
    }


def _rate(found: Mapping[str, Any]) -> float:
    first = next(place for place, done in enumerate(found["images"]) if done >= SHARE * found["images_given"])
    seconds = (found["ns"][-1] - found["ns"][first]) / 1e9
    rate: float = (found["images"][-1] - found["images"][first]) / seconds
    return rate


def _ratio(rates: Rates, one: tuple[str, str], two: tuple[str, str]) -> float | None:
    if one not in rates or two not in rates:
        return None
    return median_ratio(rates[one], rates[two])


def _range(entry: Mapping[str, Any]) -> tuple[float, float]:
    loads = [round_["load_1m"] for round_ in entry["rounds"]]
    return min(loads), max(loads)
