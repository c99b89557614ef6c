"""How long does an export take, how large and how fast is the file, beside what people use today?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.export_time import measure_exports
from benchmarks.job import Job
from benchmarks.latency import measure_latencies
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.sizes import Size
from benchmarks.ways import WAYS
from vit_deploy.core import cost


@dataclass(frozen=True)
class Effort:
    """How often and how long: rounds of exports, rounds of latency, and seconds of calls a file in each of these."""

    export_rounds: int
    rounds: int
    seconds: float


FULL, MINIATURE = Effort(3, 12, 1.5), Effort(1, 2, 0.1)


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result a size."""
    for size in job.chosen("tiny", "base"):
        with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
            yield size.name, measure_size(size, Path(folder), MINIATURE if job.quick else FULL)


def measure_size(size: Size, folder: Path, effort: Effort) -> dict[str, Any]:
    """Everything about one size, in plain JSON values."""
    facts = run_facts()
    missing = {name: gaps for name, way in WAYS.items() if (gaps := way.missing())}
    for name, gaps in missing.items():
        progress(f"{name} is skipped: {', '.join(gaps)} not installed (extra: peers)")
    possible = [way for name, way in WAYS.items() if name not in missing]
    exports = measure_exports(possible, size, folder, effort.export_rounds)
    written = {entry["way"] for entry in exports if not entry["error"]}
    timed = [way for way in possible if way.name in written]
    return {
        **facts,
        "size": size.name,
        "parameters": cost.num_parameters(size.config),
        "exports": exports,
        "latency": measure_latencies(timed, size, folder, effort.rounds, effort.seconds),
        "skipped": sorted(missing.items()),
    }
