"""What `vit-deploy --help` takes, beside a bare Typer program and the package before its modules were moved."""

from __future__ import annotations

import os
import resource
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks.job import Job
from benchmarks.processes import ROOT
from benchmarks.progress import progress
from benchmarks.records import run_facts
from vit_deploy.core.child_processes import python

BEFORE = "941ac40"  # the last commit with all modules side by side
OURS = python("-m", "vit_deploy", "--help")


@dataclass(frozen=True)
class Way:
    """One command, and what each of its calls took.

    Args:
        name: of the way.
        command: that prints its help.
        root: of the package that it imports.
        wall_ns: of each call, from start to end.
        cpu_ns: of each call, user and system together; little of it depends on what else the machine does.
    """

    name: str
    command: list[str]
    root: Path
    wall_ns: list[int] = field(default_factory=list)
    cpu_ns: list[int] = field(default_factory=list)

    def call(self) -> tuple[int, int]:
        """Run it once; nanoseconds of the clock and of the processor."""
        environment = {**os.environ, "PYTHONPATH": str(self.root), "COLUMNS": "120"}
        before, started = _cpu_s(), time.perf_counter_ns()
        subprocess.run(self.command, cwd=self.root, env=environment, check=True, stdout=subprocess.DEVNULL)
        wall_ns = time.perf_counter_ns() - started
        return wall_ns, round((_cpu_s() - before) * 1e9)


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """One result with the samples of all ways, which take turns."""
    facts = run_facts()
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
        ways = [
            Way("bare Typer", python(str(Path(__file__).with_name("bare_typer.py")), "--help"), Path(folder)),
            Way("vit-deploy", OURS, ROOT),
        ]
        if _unpacked(Path(folder) / BEFORE):
            ways.append(Way(f"vit-deploy at {BEFORE}", OURS, Path(folder) / BEFORE))
        for way in ways:
            way.call()  # compiles what is imported
        rounds = 3 if job.quick else 40
        for index in range(rounds):
            progress(f"help: round {index + 1}/{rounds}")
            # Every other round runs backwards, so that nobody always follows the same neighbour.
            for way in ways if index % 2 == 0 else reversed(ways):
                wall_ns, cpu_ns = way.call()
                way.wall_ns.append(wall_ns)
                way.cpu_ns.append(cpu_ns)
    yield "help", {**facts, "ways": [{"name": w.name, "wall_ns": w.wall_ns, "cpu_ns": w.cpu_ns} for w in ways]}


def _cpu_s() -> float:
    """Of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _unpacked(folder: Path) -> bool:
    """Put the package as it was into a folder; False where there is no git, or not this commit."""
    archive = subprocess.run(["git", "archive", BEFORE, "vit_deploy"], cwd=ROOT, capture_output=True)
    if archive.returncode:
        progress(f"help: no commit {BEFORE} here, which is left out")
        return False
    with tarfile.open(fileobj=BytesIO(archive.stdout)) as packed:
        packed.extractall(folder, filter="data")
    return True
