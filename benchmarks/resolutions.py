"""Latency of files for images of any size beside that of files for one, and bytes of a file for several sizes."""

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
            run_command("build", *size.arguments, "-o", str(file))
            formats = [f"--format={format}" for format in ENGINES.values()]
            for openness in OPENNESS:
                progress(f"{size.name}: exporting the {openness} ones")
                asked = ["--image-size", "dynamic"] if openness == "dynamic" else []
                run_command("export", str(file), *formats, *asked, "-o", str(folder / openness))
            files = [
                ({"engine": engine, "size": openness}, folder / openness / f"{format}-fp32")
                for engine, format in ENGINES.items()
                for openness in OPENNESS
            ]
            latencies = measure_artifacts(files, size, rounds, seconds)
            yield size.name, {**facts, "open": latencies, "joined": _joined(size, file)}


def _joined(size: Size, file: Path) -> dict[str, Any]:
    """The bytes of a TFLite file for one size and of one for several, and what executes each of its signatures."""
    from vit_deploy.core.manifest import read_artifact
    from vit_deploy.runtimes import open_session

    progress(f"{size.name}: exporting TFLite files for one size and for {len(SEVERAL)}")
    alone, together = file.with_name("alone"), file.with_name("together")
    run_command("export", str(file), "--format=tflite", "--image-size", SEVERAL[0], "-o", str(alone))
    several = [argument for pixels in SEVERAL for argument in ("--image-size", pixels)]
    run_command("export", str(file), "--format=tflite", *several, "-o", str(together))
    one, many = (read_artifact(folder / "tflite-fp32") for folder in (alone, together))
    placements = {}
    for there in many.sizes:
        with open_session(many.at(there.pixels)) as session:
            placements[there.signature] = dict(session.placement)
    return {"one_bytes": one.model_bytes, "several_bytes": many.model_bytes, "placements": placements}
