"""What do integer files answer on an x86 processor without VNNI?

Small ViTs trained on scikit-learn's digits, plain and with outliers planted, in every precision of 8-bit weights: in
the engine here, simulated in NumPy by `verify --simulate no-vnni`, and in the engine under QEMU's Haswell, where that
is installed. ONNX files are made as the recipe says, and with weights that reach 127 everywhere.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import vit_deploy
from benchmarks import emulated
from benchmarks.accuracy import planted
from benchmarks.job import Job
from benchmarks.processors_tables import FITTING, FULL, PRECISIONS
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.trained import on_digits
from vit_deploy import checkpoints
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.saturation import has_products
from vit_deploy.exporters.quantization import QuantizeOptions, pipeline
from vit_deploy.runtimes import RUNTIMES
from vit_deploy.verification.golden import read_golden

ENGINES = {"onnx": ("onnxruntime", "openvino"), "tflite": ("litert",)}


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result a trained model."""
    models = on_digits(job)
    for model in models[:1] if job.quick else models:
        yield model.stem, measure_model(model)


def measure_model(model: Path) -> dict[str, Any]:
    """Every file of one trained model, in plain JSON values; `digits-train.npz` lies beside it."""
    facts, checkpoint = run_facts(), checkpoints.load(model)
    train = model.with_name("digits-train.npz")
    found = {
        name: list(_measured(f"{model.stem}, {name}", variant, train))
        for name, variant in (("plain", checkpoint), ("planted", planted(checkpoint)))
    }
    return {**facts, "model": model.stem, **found}


def _measured(title: str, checkpoint: Checkpoint, train: Path) -> Iterator[dict[str, Any]]:
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as name:
        folder = Path(name)
        for source in vit_deploy.export(checkpoint, folder, formats=list(PRECISIONS), batch=1):
            for weights in (FITTING, FULL) if source.format == "onnx" else (FITTING,):
                options = QuantizeOptions(calibrate=train, full_range=weights == FULL, measure_speed=False)
                target = folder / weights
                for made in pipeline.quantize(
                    source, target, PRECISIONS[source.format], options, keep_failed=True
                ).results:
                    artifact = made.artifact
                    progress(f"{title}: {artifact.name}, {weights}")
                    yield {
                        "format": artifact.format,
                        "precision": artifact.precision,
                        "weights": weights,
                        "engines": {engine: _engine(artifact, engine) for engine in ENGINES[artifact.format]},
                        "simulated": _simulated(artifact),
                    }


def _engine(artifact: Artifact, runtime: str) -> dict[str, float | None]:
    """Signal to noise in an engine here and on the other processor, in dB; None where it is not installed."""
    if RUNTIMES[runtime].missing():
        return {"here": None, "emulated": None}
    outputs = emulated.answers(artifact, runtime)
    here = vit_deploy.verify(artifact.directory, runtime=runtime, quick=True).parity.snr_db
    return {"here": here, "emulated": None if outputs is None else _snr_db(outputs, artifact)}


def _simulated(artifact: Artifact) -> float | None:
    if not has_products(artifact):
        return None
    return vit_deploy.verify(artifact.directory, simulate="no-vnni").parity.snr_db


def _snr_db(outputs: Any, artifact: Artifact) -> float:
    expected = read_golden(artifact).outputs
    return float(10 * np.log10(np.square(expected).mean() / np.square(outputs - expected).mean()))
