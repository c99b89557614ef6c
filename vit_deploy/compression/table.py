"""What a compression achieved: accuracy, zeros, distinct values, size on disk and compressed, speed.

All of it is measured on the exported files, before and after, and said in words where it brought nothing.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vit_deploy.compression.data import Images
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.format import FP32
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.weights import layer_names
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.calibration import COUNT, FEWEST
from vit_deploy.exporters.quantization.pipeline import export
from vit_deploy.performance.bench import Case, Plan, bench
from vit_deploy.performance.latency import Latency
from vit_deploy.verification.accuracy import evaluate

PLAN = Plan(seconds=1.0, rounds=5)
FASTER = 0.9  # times the latency before, below which a method is said to have made the model faster
SMALLER = 0.9  # likewise of the gzipped size
COMPARED = ("tflite", "onnx")
QUANTIZED = ("int8-static", "int8-full")  # what quantization-aware training is for

Progress = Callable[[str], object]


@dataclass(frozen=True)
class Table:
    """What was measured.

    Args:
        rows: one a file that passed its proof.
        failures: files that did not, in words.
        ok: whether every compressed file passed.
    """

    rows: tuple[Row, ...]
    failures: tuple[str, ...]
    ok: bool


@dataclass(frozen=True)
class Row:
    """One exported file.

    Args:
        state: "before" or "after".
        name: `<format>-<precision>`.
        top1: fraction of the held-out images that are right.
        sparsity: fraction of zeros in the kernels of the checkpoint.
        distinct: most distinct values that any kernel of the checkpoint has.
        bytes: the size of the model file.
        gzip_bytes: the size of the gzipped model file.
        latency_ms: the latency of the median call, in milliseconds; None where it was not timed.
        unsteady: why the latency is not to be trusted; empty where it is.
    """

    state: str
    name: str
    top1: float
    sparsity: float
    distinct: int
    bytes: int
    gzip_bytes: int
    latency_ms: float | None
    unsteady: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "unsteady": list(self.unsteady)}


def measure(
    before: Checkpoint,
    after: Checkpoint,
    images: Images,
    folder: Path,
    *,
    quantized: bool,
    speed: bool,
    int8: bool = False,
    calibrate: Images | None = None,
    progress: Progress = lambda doing: None,
) -> Table:
    """Export both models and look at the files.

    Args:
        before: the checkpoint as it was given.
        after: compressed.
        images: held out.
        folder: for the files.
        quantized: whether to make TFLite's calibrated precisions too.
        speed: whether to time the files.
        int8: whether to make both formats' int8 too.
        calibrate: images for the model before, whose ranges nobody has learned.
        progress: called with what is being done.

    Raises:
        VitDeployError: a file cannot be made.
    """
    dataset = images.dataset(folder)
    samples = _calibration(calibrate, folder) if quantized and calibrate is not None else None
    made: list[tuple[str, Checkpoint, Artifact]] = []
    failures: list[str] = []
    for state, checkpoint in (("before", before), ("after", after)):
        jobs, _ = plan(COMPARED, ["fp32"])
        jobs += plan(["tflite"], QUANTIZED)[0] if quantized else []
        jobs += plan(COMPARED, ["int8"])[0] if int8 else []
        # Without images to calibrate with, the learned ranges count.
        options = QuantizeOptions(calibrate=None if checkpoint.ranges else samples, measure_speed=False)
        exported = export(checkpoint, folder / state, jobs, options, progress=progress)
        results = exported.results
        made += [(state, checkpoint, result.artifact) for result in results if result.published]
        failures += [
            f"{state} compression {result.artifact.name} failed its proof: {', '.join(result.parity.failures)}"
            for result in results
            if not result.published
        ]
        failures += [
            f"{state} compression {failed.name} cannot be made: {failed.error.message}" for failed in exported.failed
        ]
    artifacts = [artifact for _, _, artifact in made]
    right = evaluate(artifacts, dataset, progress=progress)
    latencies = _latencies(artifacts, progress) if speed else [None] * len(artifacts)
    rows = [
        Row(
            state,
            artifact.name,
            found.top1,
            sparsity(checkpoint),
            distinct(checkpoint),
            artifact.model_bytes,
            len(gzip.compress(artifact.model_path.read_bytes(), 9, mtime=0)),
            None if latency is None else latency.p50_ms,
            () if latency is None else latency.unsteady,
        )
        for (state, checkpoint, artifact), found, latency in zip(made, right, latencies, strict=True)
    ]
    ok = not any(failure.startswith("after") for failure in failures)
    return Table(tuple(rows), tuple(failures), ok)


def _calibration(images: Images, folder: Path) -> Path | None:
    """Some images as a file to calibrate with, without those that are of one colour; None where they are too few."""
    step = max(len(images) // COUNT, 1)
    pixels = images.read(range(0, len(images), step)[:COUNT])
    chosen = np.array([pixel for pixel in pixels if pixel.min() < pixel.max()], np.uint8)
    if len(chosen) < FEWEST:
        return None
    path = folder / "calibration.npz"
    np.savez(path, images=chosen)
    return path


def _latencies(artifacts: Sequence[Artifact], progress: Progress) -> Sequence[Latency | None]:
    cases = [
        Case(Path(artifact.directory), FORMATS[artifact.format].proving_runtime, batch=artifact.input.batch or 1)
        for artifact in artifacts
    ]
    return bench(cases, PLAN, lambda what, done: progress(what))


def sparsity(checkpoint: Checkpoint) -> float:
    """Fraction of zeros in all kernels of a checkpoint together."""
    kernels = [checkpoint.weights[f"{name}.kernel"] for name in layer_names(checkpoint.config)]
    return sum(int((kernel == 0).sum()) for kernel in kernels) / sum(kernel.size for kernel in kernels)


def distinct(checkpoint: Checkpoint) -> int:
    """Most distinct values that any kernel of a checkpoint has."""
    return max(len(np.unique(checkpoint.weights[f"{name}.kernel"])) for name in layer_names(checkpoint.config))


def speedups(rows: Sequence[Row], asked: float) -> list[str]:
    """The files that are less faster than multiply-adds are fewer, in words."""
    said = []
    for name, (before, after) in _pairs(rows).items():
        if before.latency_ms is not None and after.latency_ms is not None:
            found = before.latency_ms / after.latency_ms
            if found < asked:
                said.append(
                    f"{name}: {found:.2f} times as fast, and {asked:g} was asked for by multiply-adds; what norms, "
                    "softmax and each operator take by themselves goes with blocks alone (--keep-layers)"
                )
    return said


def _pairs(rows: Sequence[Row]) -> Mapping[str, tuple[Row, Row]]:
    return {
        row.name: (row, other)
        for row in rows
        if row.state == "before"
        for other in rows
        if other.state == "after" and other.name == row.name
    }


def verdicts(rows: Sequence[Row]) -> list[str]:
    """Verdicts in words: what the method gained and what it did not, in the requested runtimes."""
    said = []
    for name, (before, after) in _pairs(rows).items():
        share = after.gzip_bytes / before.gzip_bytes
        if share < SMALLER:
            said.append(f"{name}: gzipped it is {share:.2f} of what it was")
        elif name.endswith(FP32):
            said.append(f"{name}: gained nothing in size, gzipped it is {share:.2f} of what it was")
        elif after.top1 <= before.top1:
            said.append(f"{name}: gained nothing in accuracy, {after.top1:.2%} are right and were {before.top1:.2%}")
        if before.latency_ms is not None and after.latency_ms is not None:
            ratio = after.latency_ms / before.latency_ms
            if ratio < FASTER:
                said.append(f"{name}: {ratio:.2f} of the latency")
            elif name.endswith(FP32):
                runtime = FORMATS[name.partition("-")[0]].proving_runtime
                why = _why_not_faster(after)
                said.append(
                    f"{name}: gained nothing in speed on this runtime ({runtime}), {ratio:.2f} of the latency{why}"
                )
    said += [f"{row.name} {row.state}: unsteady, {'; '.join(row.unsteady)}" for row in rows if row.unsteady]
    return said


def _why_not_faster(after: Row) -> str:
    if after.sparsity > SMALLER / 2:
        return "; its kernels are dense and multiply by zeros as by other numbers"
    return "; the file holds float32 kernels of the same shapes"
