"""What do ONNX files for Qualcomm's Hexagon answer on the emulated processor?

ViT-Tiny with random weights, in every precision that `--for qnn` has: how near it is to the float64 reference there, as
a whole graph on the processor (the runtime refuses files of which a part is not). Models trained on digits: what each
precision costs in the plain engine, which computes the same integers.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import vit_deploy
from benchmarks.hexagon_tables import PRECISIONS
from benchmarks.job import Job
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.sizes import Size
from benchmarks.trained import on_digits
from vit_deploy import checkpoints
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.datasets import read_dataset
from vit_deploy.core.hexagon import PROVIDER
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.runtimes import RuntimeOptions, open_session
from vit_deploy.verification.accuracy import evaluate
from vit_deploy.verification.golden import read_golden

IMAGES = 4  # of the golden ones: an emulator takes its time


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result of ViT-Tiny, and one a trained model."""
    for size in job.chosen("tiny"):
        yield size.name, measure_emulated(size)
    for model in on_digits(job):
        yield model.stem, measure_trained(model)


def measure_emulated(size: Size) -> dict[str, Any]:
    """Signal to noise of each file here and on the emulated processor, in dB, and where its operators are."""
    facts, files = run_facts(), {}
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as name:
        progress(f"{size.name}: making {', '.join(PRECISIONS)}")
        options = QuantizeOptions(measure_speed=False)
        made = vit_deploy.export(
            Checkpoint.random(size.config, seed=0),
            Path(name),
            formats="onnx",
            precisions=PRECISIONS,
            target="qnn",
            quantizing=options,
        )
        for artifact in made:
            progress(f"{size.name}: {artifact.precision} on the emulated processor")
            here, there = (_answers(artifact, *engine) for engine in (("onnxruntime", "cpu"), ("qnn", PROVIDER)))
            files[artifact.precision] = {"here_db": here[0], "there_db": there[0], "placement": there[1]}
    return {**facts, "model": size.name, "images": IMAGES, "files": files}


def _answers(artifact: Artifact, runtime: str, provider: str) -> tuple[float, dict[str, int]]:
    """Signal to noise of an engine's answers to golden images, and the number of operators of each processor."""
    golden = read_golden(artifact)
    with open_session(artifact, runtime, RuntimeOptions(provider=provider)) as session:
        error = session.infer(golden.images[:IMAGES]).astype(np.float64) - golden.outputs[:IMAGES]
        placement = dict(getattr(session, "placement", {}))
    return float(10 * np.log10(np.square(golden.outputs[:IMAGES]).sum() / np.square(error).sum())), placement


def measure_trained(model: Path) -> dict[str, Any]:
    """Points of top-1 that a trained model loses to fp32 in each precision, calibrated on training images."""
    facts, kind = run_facts(), model.stem.rpartition("-")[0]
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as name:
        progress(f"{model.stem}: making {', '.join(PRECISIONS)}")
        options = QuantizeOptions(calibrate=model.with_name(f"{kind}-train.npz"), measure_speed=False)
        made = vit_deploy.export(
            checkpoints.load(model),
            Path(name),
            formats="onnx",
            precisions=("fp32", *PRECISIONS),
            target="qnn",
            quantizing=options,
        )
        exact, *found = evaluate(list(made), read_dataset(model.with_name(f"{kind}-test.npz")))
    lost = {one.artifact.precision: 100 * (exact.top1 - one.top1) for one in found}
    return {**facts, "model": model.stem, "points_lost": lost, "fp32_top1": exact.top1}
