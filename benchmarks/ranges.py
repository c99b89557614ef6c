"""Which way of finding ranges, and of moving outliers, keeps most of what a trained model says?

The models of `benchmarks.accuracy`, plain and with outliers planted, quantized as the recipe says and with one thing
done otherwise at a time. What is calibrated is calibrated several times, on images drawn again: one draw and another
differ by more than most ways do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vit_deploy
from benchmarks.accuracy import planted
from benchmarks.job import Job
from benchmarks.progress import progress
from benchmarks.ranges_tables import RECIPE
from benchmarks.records import run_facts
from benchmarks.trained import on_digits, on_photographs
from vit_deploy import checkpoints
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.datasets import read_dataset
from vit_deploy.exporters.quantization import QuantizeOptions, pipeline
from vit_deploy.exporters.quantization.recipes import Clipping
from vit_deploy.verification.accuracy import evaluate

PARTS = ("train", "test")  # what is calibrated on, and what is answered
CLIPPINGS: dict[str, dict[str, Any]] = {str(each): {"clipping": each} for each in Clipping}
NOTHING_MOVED: dict[str, dict[str, Any]] = {"nothing moved": {"smoothing": 0.0}}
SMOOTHED: dict[float, dict[str, dict[str, Any]]] = {
    alpha: {f"smoothed by {alpha}": {"smoothing": alpha}} for alpha in (0.35, 0.5, 0.65)
}
CORRECTED: dict[str, dict[str, Any]] = {"biases corrected": {"bias_correction": True}}
CASES: dict[tuple[str, str], dict[str, dict[str, Any]]] = {
    ("onnx", "int8"): {RECIPE: {}, **NOTHING_MOVED, **SMOOTHED[0.5]},
    ("onnx", "int8-static"): {RECIPE: {}, **CLIPPINGS, **NOTHING_MOVED, **SMOOTHED[0.35], **SMOOTHED[0.65]},
    ("tflite", "int8"): {RECIPE: {}, **NOTHING_MOVED},
    ("tflite", "int8-static"): {RECIPE: {}, **CLIPPINGS, **NOTHING_MOVED, **CORRECTED},
    ("tflite", "int8-full"): {RECIPE: {}, **CLIPPINGS, **NOTHING_MOVED, **CORRECTED},
}
"""What is done otherwise, by format and precision."""

DRAWS = 3  # of the images to calibrate on


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result a trained model."""
    models = [*on_digits(job), *on_photographs(job)]
    for model in models[:1] if job.quick else models:
        yield model.stem, measure_model(model)


def measure_model(model: Path) -> dict[str, Any]:
    """Every case of one trained model, in plain JSON values; `<kind>-train.npz` and `<kind>-test.npz` lie beside it."""
    facts, kind = run_facts(), model.stem.rpartition("-")[0]
    checkpoint = checkpoints.load(model)
    found = {
        name: _measured(f"{model.stem}, {name}", variant, *(model.with_name(f"{kind}-{part}.npz") for part in PARTS))
        for name, variant in (("plain", checkpoint), ("planted", planted(checkpoint)))
    }
    return {**facts, "model": model.stem, "data": kind, **found}


def _measured(title: str, checkpoint: Checkpoint, train: Path, test: Path) -> list[dict[str, Any]]:
    dataset = read_dataset(test)
    found = []
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as name:
        folder = Path(name)
        sources = vit_deploy.export(checkpoint, folder, formats=sorted({format for format, _ in CASES}))
        for source in sources:
            made = []
            for (format, precision), ways in CASES.items():
                if format != source.format:
                    continue
                for way, changes in ways.items():
                    for draw in range(DRAWS):
                        progress(f"{title}: {format} {precision}, {way}, draw {draw}")
                        target = folder / str(len(made)) / format
                        options = QuantizeOptions(calibrate=train, seed=draw, measure_speed=False, **changes)
                        made.append((precision, way, draw, *_quantized(source, target, precision, options)))
            answers = evaluate([source, *(artifact for *_, artifact, _ in made)], dataset)
            for (precision, way, draw, _, proven), answer in zip(made, answers[1:], strict=True):
                found.append(
                    {
                        "format": source.format,
                        "precision": precision,
                        "way": way,
                        "draw": draw,
                        "proven": proven,
                        "lost": 100 * (answers[0].top1 - answer.top1),
                        "agreement": answer.agreement,
                    }
                )
    return found


def _quantized(source: Artifact, target: Path, precision: str, options: QuantizeOptions) -> tuple[Artifact, bool]:
    (result,) = pipeline.quantize(source, target, [precision], options, keep_failed=True).results
    return result.artifact, result.parity.ok
