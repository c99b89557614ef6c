"""Latency of a ViT with rotary positions beside that of the same ViT with a table alone."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.job import Job
from benchmarks.latency import TIMEOUT_S, in_turn
from benchmarks.processes import ROOT, environment
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.sizes import Size
from vit_deploy.core.child_processes import python
from vit_deploy.core.host import read_host
from vit_deploy.performance.process import WORKER, CaseProcess

ENGINES = {"onnxruntime": "onnx", "litert": "tflite"}
POSITIONS = ("table", "dinov3", "eva")
REGISTERS = 4


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """One result a size."""
    rounds, seconds = (2, 0.1) if job.quick else (12, 1.5)
    for size in job.chosen("tiny", "base"):
        facts = run_facts()
        with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as made:
            for positions in POSITIONS:
                _export(size, positions, Path(made))
            yield size.name, {**facts, "rotary": _latencies(size, Path(made), rounds, seconds)}


def _export(size: Size, positions: str, folder: Path) -> None:
    progress(f"{size.name}: exporting the one with {positions}")
    file = folder / f"{positions}.safetensors"
    rotary = [] if positions == "table" else ["--rotary", positions]
    build = ["build", *size.arguments, "--register-tokens", str(REGISTERS), *rotary, "-o", str(file)]
    formats = [f"--format={format}" for format in ENGINES.values()]
    for arguments in (build, ["export", str(file), *formats, "-o", str(folder / positions)]):
        command = python("-m", "vit_deploy", *arguments, "--quiet")
        subprocess.run(command, cwd=ROOT, env=environment(), check=True, stdout=subprocess.DEVNULL)


def _latencies(size: Size, folder: Path, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One image a call on all cores, every file in a process of its own, taking turns in rounds."""
    threads = read_host().threads
    entries: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        workers = []
        for engine, format in ENGINES.items():
            for positions in POSITIONS:
                entry = {"engine": engine, "positions": positions, "threads": threads, "samples_ns": [], "load_1m": []}
                progress(f"{size.name}: loading {engine}, {positions}")
                worker = stack.enter_context(CaseProcess(engine, TIMEOUT_S, WORKER))
                bundle = folder / positions / f"{format}-fp32"
                request = {"runtime": engine, "threads": threads, "provider": None, "batch": 1}
                worker.ask({**request, "artifact": str(bundle)})
                worker.ask({"warmup": None})
                workers.append((worker, entry))
                entries.append(entry)
        for index in range(rounds):
            progress(f"{size.name}: round {index + 1}/{rounds}")
            for worker, entry in in_turn(workers, index):
                entry["load_1m"].append(os.getloadavg()[0])
                answer = worker.ask({"calls": None, "seconds": seconds}, extra_s=seconds)
                entry["samples_ns"].append(answer["samples_ns"])
    return entries
