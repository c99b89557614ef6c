"""Latency of files for images of any size beside that of files for one, and bytes of a file for several sizes."""

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

ENGINES = {"onnxruntime": "onnx", "savedmodel": "savedmodel"}
OPENNESS = ("fixed", "dynamic")
SEVERAL = ("224", "336", "224x448")


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """One result a size."""
    rounds, seconds = (2, 0.1) if job.quick else (12, 1.5)
    for size in job.chosen("tiny", "base"):
        facts = run_facts()
        with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as made:
            folder = Path(made)
            file = folder / "model.safetensors"
            _run("build", *size.arguments, "-o", str(file))
            formats = [f"--format={format}" for format in ENGINES.values()]
            for openness in OPENNESS:
                progress(f"{size.name}: exporting the {openness} ones")
                asked = ["--image-size", "dynamic"] if openness == "dynamic" else []
                _run("export", str(file), *formats, *asked, "-o", str(folder / openness))
            yield size.name, {**facts, "open": _latencies(size, folder, rounds, seconds), "joined": _joined(size, file)}


def _run(*arguments: str) -> None:
    command = python("-m", "vit_deploy", *arguments, "--quiet")
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, stdout=subprocess.DEVNULL)


def _latencies(size: Size, folder: Path, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """One image of the trained size a call on all cores, each file in a process of its own, taking turns in rounds."""
    threads = read_host().threads
    entries: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        workers = []
        for engine, format in ENGINES.items():
            for openness in OPENNESS:
                entry = {"engine": engine, "size": openness, "threads": threads, "samples_ns": [], "load_1m": []}
                progress(f"{size.name}: loading {engine}, {openness}")
                worker = stack.enter_context(CaseProcess(engine, TIMEOUT_S, WORKER))
                request = {"runtime": engine, "threads": threads, "provider": None, "batch": 1}
                worker.ask({**request, "artifact": str(folder / openness / f"{format}-fp32")})
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


def _joined(size: Size, file: Path) -> dict[str, Any]:
    """The bytes of a TFLite file for one size and of one for several, and what executes each of its signatures."""
    from vit_deploy.core.manifest import read_artifact
    from vit_deploy.runtimes import open_session

    progress(f"{size.name}: exporting TFLite files for one size and for {len(SEVERAL)}")
    alone, together = file.with_name("alone"), file.with_name("together")
    _run("export", str(file), "--format=tflite", "--image-size", SEVERAL[0], "-o", str(alone))
    several = [argument for pixels in SEVERAL for argument in ("--image-size", pixels)]
    _run("export", str(file), "--format=tflite", *several, "-o", str(together))
    one, many = (read_artifact(folder / "tflite-fp32") for folder in (alone, together))
    placements = {}
    for there in many.sizes:
        with open_session(many.at(there.pixels)) as session:
            placements[there.signature] = dict(session.placement)
    return {"one_bytes": one.model_bytes, "several_bytes": many.model_bytes, "placements": placements}
