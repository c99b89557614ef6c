"""Every name that timm registers in its modules of ViTs: made, saved for the hub, read and compared, in one go."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.job import Job
from benchmarks.processes import ROOT, environment
from benchmarks.progress import progress
from benchmarks.records import run_facts
from vit_deploy.core.child_processes import python

CHUNK = 25  # names a process, which bounds its memory and what a crash can hide
MINIATURE = 3

COMPARED = ("timm", "torch", "numpy", "vit-deploy")  # whose versions say whether rows that were kept still hold
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # of models so small, more only wait

Row = dict[str, Any]


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """One result, with a row for each name."""
    facts = run_facts()
    names = _names()
    if job.quick:
        names = names[:MINIATURE]
    # What was walked before the run was cut off, of the same libraries.
    kept = job.results / "census" / "timm.rows"
    rows = _Rows(kept, facts["versions"])
    left = [name for name in names if name["name"] not in rows.found]
    progress(f"census: {len(left)} of {len(names)} names are left")
    with ThreadPoolExecutor(os.cpu_count()) as at_once:
        chunks = [left[at : at + CHUNK] for at in range(0, len(left), CHUNK)]
        for done in at_once.map(lambda chunk: _walk(chunk, rows), chunks):
            progress(f"census: to {done}, {len(rows.found)} of {len(names)} names")
    kept.unlink(missing_ok=True)
    yield "timm", {**facts, "rows": [rows.found[name["name"]] for name in names]}


class _Rows:
    """Rows by name, each kept in a file as soon as it is there."""

    def __init__(self, kept: Path, versions: Mapping[str, str]) -> None:
        self._kept, self._lock, self.found = kept, threading.Lock(), dict[str, Row]()
        compared = {name: version for name, version in versions.items() if name in COMPARED}
        first = json.dumps({**compared, "sources": _digest_of_sources()}, sort_keys=True)
        text = kept.read_text(encoding="utf-8") if kept.exists() else ""
        lines = text[: text.rfind("\n") + 1].splitlines()  # a line that was being written has no end
        if lines and lines[0] == first:
            self.found = {row["name"]: row for row in map(json.loads, lines[1:])}
        else:
            lines = [first]
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def add(self, row: Row) -> None:
        with self._lock, self._kept.open("a", encoding="utf-8") as file:
            self.found[row["name"]] = row
            file.write(f"{json.dumps(row)}\n")


def _digest_of_sources() -> str:
    """Of the code that is measured, whose version does not move with it."""
    digest = hashlib.sha256()
    for path in sorted((ROOT / "vit_deploy").rglob("*.py")):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _names() -> list[Row]:
    """Every name with its module and the one that it stands for today, as the library has them."""
    done = subprocess.run(
        python("-m", "benchmarks.census_worker", "--names"),
        cwd=ROOT,
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def _walk(names: Sequence[Row], rows: _Rows) -> str:
    """Walk some names, in a process as long as none of them ends it; gives the last one.

    The name at which a process ends too early has crashed.
    """
    while left := [name for name in names if name["name"] not in rows.found]:
        with (
            tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder,
            (Path(folder) / "stderr").open("w") as log,
        ):
            worker = python("-m", "benchmarks.census_worker", folder, *(json.dumps(name) for name in left))
            started = subprocess.Popen(
                worker,
                cwd=ROOT,
                env=environment() | ONE_THREAD,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
            with started as process:
                assert process.stdout is not None
                for line in process.stdout:
                    rows.add(json.loads(line))
            if process.returncode:
                said = (Path(folder) / "stderr").read_text(encoding="utf-8").strip().splitlines()
                crashed = next(name for name in left if name["name"] not in rows.found)
                rows.add({**crashed, "crashed": said[-1] if said else f"exit {process.returncode}"})
    return str(names[-1]["name"])
