"""What a session that threads may share costs: calls of ours beside the engine's own, alone and in two streams."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.job import Job
from benchmarks.latency import FOREIGN_WORKER, TIMEOUT_S, in_rounds
from benchmarks.processes import environment, run_command
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.sizes import Size
from vit_deploy.performance.process import WORKER, CaseProcess

ENGINES = {"litert": "tflite", "onnxruntime": "onnx", "openvino": "onnx"}
STREAMS = (1, 2)
MODEL_FILES = {"tflite": "model.tflite", "onnx": "model.onnx"}


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """One result a size."""
    rounds, seconds = (2, 0.1) if job.quick else (8, 1.0)
    for size in job.chosen("tiny"):
        facts = run_facts()
        with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as made:
            formats = [f"--format={engine}" for engine in dict.fromkeys(ENGINES.values())]
            run_command("export", *size.arguments, *formats, "-o", made, "--force")
            yield size.name, {**facts, "streams": _calls(size, Path(made), rounds, seconds)}


def _calls(size: Size, folder: Path, rounds: int, seconds: float) -> list[dict[str, Any]]:
    """Calls of one thread each, every case in a process of its own, taking turns in rounds."""
    os.environ["PYTHONPATH"] = environment()["PYTHONPATH"]  # foreign workers import this package
    entries: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        workers = []
        for engine in ENGINES:
            for streams in STREAMS:
                for ours in (True, False):
                    entry = {"engine": engine, "streams": streams, "ours": ours, "calls_per_s": []}
                    progress(f"{size.name}: loading {engine}, {'ours' if ours else 'plain'}, {streams} streams")
                    worker = stack.enter_context(CaseProcess(engine, TIMEOUT_S, WORKER if ours else FOREIGN_WORKER))
                    worker.ask(_request(engine, streams, ours, size, folder))
                    worker.ask({"warmup": None})
                    workers.append((worker, entry))
                    entries.append(entry)
        for entry, _, answer in in_rounds(workers, rounds, seconds, f"{size.name}:"):
            entry["calls_per_s"].append(len(answer["samples_ns"]) / (answer["round_ns"] / 1e9))
    return entries


def _request(engine: str, streams: int, ours: bool, size: Size, folder: Path) -> dict[str, Any]:
    bundle = folder / f"{ENGINES[engine]}-fp32"
    common = {"runtime": engine, "threads": 1, "spare_threads": None, "streams": streams, "provider": None}
    if ours:
        return {**common, "artifact": str(bundle), "batch": 1}
    shape = [1, *size.image_size, size.config.channels]
    return {**common, "file": str(bundle / MODEL_FILES[ENGINES[engine]]), "shape": shape}
