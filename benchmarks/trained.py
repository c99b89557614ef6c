"""Where are the trained models that are measured, and how are they trained where they are not there yet?"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.job import Job
from benchmarks.processes import ROOT, environment
from benchmarks.progress import progress
from vit_deploy.core.child_processes import python


def on_digits(job: Job) -> list[Path]:
    """`digits-<seed>.keras`, in the order of the seeds; `digits-train.npz` and `digits-test.npz` lie beside them."""
    return _models(job, "digits", [], ["--seed", "0"])


def on_massive(job: Job) -> list[Path]:
    """`massive-<seed>.keras` likewise: on digits, with massive activations."""
    return _models(job, "massive", [], ["--seed", "0"])


def on_photographs(job: Job) -> list[Path]:
    """`photos-<seed>.keras` likewise; none where there are neither models nor images to train them on."""
    if job.data is None and not list(job.trained.glob("photos-*.keras")):
        progress("photographs are skipped: no --data; what is stored stays")
        return []
    return _models(job, "photos", ["--data", str(job.data)], [])


def _models(job: Job, kind: str, options: list[str], fewer: list[str]) -> list[Path]:
    if not list(job.trained.glob(f"{kind}-*.keras")):
        progress(f"training on {kind}")
        less = [*fewer, "--epochs", "1"] if job.quick else []
        command = python("-m", f"benchmarks.{kind}", "-o", str(job.trained), *options, *less)
        subprocess.run(command, cwd=ROOT, env=environment(), check=True, stdout=sys.stderr)
    return sorted(job.trained.glob(f"{kind}-*.keras"))
