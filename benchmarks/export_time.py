"""How long does an export take as a whole process, and how much memory?

A whole process means from the interpreter's start to its end: imports, building the model with random weights, the
export, writing the file. `vit-deploy export` proves its file as well; what it reports as `verify_seconds` (the
float64 reference, loading the file in its engine, running and comparing) is told apart.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, environment
from benchmarks.progress import progress
from benchmarks.sizes import Size
from benchmarks.ways import Way


@dataclass(frozen=True)
class Run:
    """One process.

    Args:
        wall_s: from its start to its end.
        proof_s: of these, what proving the file took; 0 for those who prove nothing.
        peak_rss_mb: the most memory it held, in 10^6 bytes.
    """

    wall_s: float
    proof_s: float
    peak_rss_mb: float

    @property
    def export_s(self) -> float:
        """The process without the proof."""
        return self.wall_s - self.proof_s


def measure_exports(ways: Sequence[Way], size: Size, folder: Path, rounds: int) -> list[dict[str, Any]]:
    """Run every way once a round, in turns, and leave the last round's files in `folder`.

    Returns:
        One entry a way: its runs, the size of its file, and the error that ended it, after which it is not run again.
    """
    runs: dict[str, list[Run]] = {way.name: [] for way in ways}
    errors: dict[str, str] = {}
    for index in range(rounds):
        for way in ways:
            if way.name in errors:
                continue
            progress(f"{size.name}: export round {index + 1}/{rounds}, {way.name}")
            try:
                runs[way.name].append(run_process(way, size, folder))
            except subprocess.CalledProcessError as error:
                errors[way.name] = error.output
                progress(f"{way.name} failed: {error.output}")
    return [
        {
            "way": way.name,
            "runs": [asdict(run) for run in runs[way.name]],
            "bytes": None if way.name in errors else model_bytes(way, way.target(folder)),
            "error": errors.get(way.name),
        }
        for way in ways
    ]


def run_process(way: Way, size: Size, folder: Path) -> Run:
    """One export.

    Raises:
        CalledProcessError: it failed; `output` holds the last line of what it said.
    """
    command = way.command(size, folder)
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as answered:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=answered, stderr=said, cwd=ROOT, env=environment())
        # `wait4` reports the largest resident memory of this child and its own children. A child starts out with
        # its parent's, so this process stays free of engines.
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - start
        process.returncode = code = os.waitstatus_to_exitcode(status)
        answered.seek(0)
        said.seek(0)
        if code or not way.target(folder).exists():
            lines = said.read().decode(errors="replace").strip().splitlines() or ["it wrote no file and said nothing"]
            raise subprocess.CalledProcessError(process.returncode, command, output=f"{_ending(code)}: {lines[-1]}")
        proof_s = json.loads(answered.read())["results"][0]["verify_seconds"] if way.ours else 0.0
    return Run(wall_s, proof_s, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6)


def _ending(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit {code}"


def model_bytes(way: Way, target: Path) -> int:
    """Of the model files alone, without an artifact's manifest and golden data."""
    files = target.glob("model.*") if way.ours else target.parent.glob(f"{target.name}*")
    return sum(file.stat().st_size for file in files)
