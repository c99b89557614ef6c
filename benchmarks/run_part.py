"""What does the process do that measures one part: `python -m benchmarks.run_part PART JOB`.

A part has a process of its own, which keeps its engines out of the others' memory and its failure away from them. Each
result is stored as soon as it is there.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from benchmarks.job import Job
from benchmarks.parts import PARTS
from benchmarks.progress import progress
from benchmarks.records import store


def main(arguments: Sequence[str]) -> None:
    """Measure and store."""
    part, job = PARTS[arguments[0]], Job.from_json(arguments[1])
    started = time.monotonic()
    for name, result in part.measure(job):
        now = time.monotonic()
        path = job.results / part.name / f"{name}.json"
        store({**result, "took_s": round(now - started, 1)}, path)
        progress(f"{part.name}: {name} is in {path}")
        started = now


if __name__ == "__main__":
    main(sys.argv[1:])
