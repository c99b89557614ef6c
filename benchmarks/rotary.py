"""Latency of a ViT with rotary positions beside that of the same ViT with a table alone."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.job import Job
from benchmarks.latency import measure_artifacts
from benchmarks.processes import run_command
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.sizes import Size

ENGINES = {"onnxruntime": "onnx", "litert": "tflite"}
POSITIONS = ("table", "dinov3", "eva", "rope_vit_mixed", "mlcd")  # the others have tables as large as `eva`'s
REGISTERS = 4


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """One result a size."""
    rounds, seconds = (2, 0.1) if job.quick else (12, 1.5)
    for size in job.chosen("tiny", "base"):
        facts = run_facts()
        with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as made:
            for positions in POSITIONS:
                _export(size, positions, Path(made))
            files = [
                ({"engine": engine, "positions": positions}, Path(made) / positions / f"{format}-fp32")
                for engine, format in ENGINES.items()
                for positions in POSITIONS
            ]
            yield size.name, {**facts, "rotary": measure_artifacts(files, size, rounds, seconds)}


def _export(size: Size, positions: str, folder: Path) -> None:
    progress(f"{size.name}: exporting the one with {positions}")
    file = folder / f"{positions}.safetensors"
    rotary = [] if positions == "table" else ["--rotary", positions]
    build = ["build", *size.arguments, "--register-tokens", str(REGISTERS), *rotary, "-o", str(file)]
    formats = [f"--format={format}" for format in ENGINES.values()]
    for arguments in (build, ["export", str(file), *formats, "-o", str(folder / positions)]):
        run_command(*arguments)
