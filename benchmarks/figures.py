"""What follows from the raw samples of exports and of latencies: medians and ratios?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from benchmarks.records import Result


def export_s(result: Result, way: str) -> float | None:
    """Median seconds of the whole process without the proof; None where there is no measurement."""
    runs = _entry(result["exports"], way).get("runs") or []
    return float(median(run["wall_s"] - run["proof_s"] for run in runs)) if runs else None


def p50_ms(entry: Mapping[str, Any]) -> float | None:
    """Median call of the best round, since whatever else a machine does slows whole rounds."""
    rounds: list[list[int]] = entry.get("samples_ns") or []
    return min(float(median(samples)) for samples in rounds) / 1e6 if rounds and not entry["error"] else None


def latency_ratio(result: Result, way: str, other: str) -> float | None:
    """How long a call of `way` takes, `other`'s being 1: the median over the rounds of the ratio of their medians.

    Rounds are compared one by one, since both ran within seconds of each other there, whatever else the machine did.
    """
    a, b = (_entry(result["latency"], path) for path in (way, other))
    if p50_ms(a) is None or p50_ms(b) is None:
        return None
    return float(median(median(x) / median(y) for x, y in zip(a["samples_ns"], b["samples_ns"], strict=True)))


def _entry(entries: Iterable[Mapping[str, Any]], way: str) -> Mapping[str, Any]:
    return next((entry for entry in entries if entry["way"] == way), {})
