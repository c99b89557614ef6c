"""How large, how fast and how near to fp32 is each precision, side by side?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.job import Job
from benchmarks.latency import measure_latencies
from benchmarks.making import make_all, name_of
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.sizes import Size
from benchmarks.ways import Way
from vit_deploy.core import cost

RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}
FULL, MINIATURE = (12, 1.0), (2, 0.1)  # rounds of latency, and seconds of calls a file in each


@dataclass(frozen=True)
class Bundle(Way):
    """An artifact that is there already."""

    def target(self, folder: Path) -> Path:
        """The artifact."""
        return folder / self.name


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result a size."""
    for size in job.chosen("tiny", "base"):
        with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
            yield size.name, measure_size(size, Path(folder), *(MINIATURE if job.quick else FULL))


def measure_size(size: Size, folder: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """Everything about one size, in plain JSON values."""
    facts = run_facts()
    progress(f"{size.name}: making all precisions")
    made = make_all(size.arguments, folder)
    bundles = [
        Bundle(name_of(each), name_of(each), RUNTIMES[each["format"]], ours=True) for each in made if each["path"]
    ]
    return {
        **facts,
        "size": size.name,
        "parameters": cost.num_parameters(size.config),
        "made": [{**each, "path": None} for each in made],
        "latency": measure_latencies(bundles, size, folder, rounds, seconds),
    }
