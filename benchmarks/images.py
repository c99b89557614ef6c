"""Many images through `embed`: its throughput beside the engine's own and other people's loops, and its memory."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.job import Job
from benchmarks.processes import ROOT, environment
from benchmarks.progress import progress
from benchmarks.records import run_facts
from vit_deploy.core.child_processes import python
from vit_deploy.core.config import SCALE_CONFIGS
from vit_deploy.core.synthetic_images import natural_pixels

PHOTO = (375, 500)  # (height, width), as ImageNet's are on average
SMALL = (24, 32)
COUNTS = (1_000, 100_000)
WORKER = Path(__file__).with_name("images_worker.py")
OURS, RAY = "embed", "embed --ray"
SLOWER = {"loader": 2, "pipeline": 6}


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """One result with the throughput of all ways, which take turns, one of a cluster, and one with the memory."""
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
        if job.quick:
            yield "throughput", _throughput(Path(folder), "pico", images=48, rounds=1)
            yield from _cluster(Path(folder), "pico", few=8, images=40, rounds=1)
            yield "memory", _memory(Path(folder), (50, 500))
        else:
            yield "throughput", _throughput(Path(folder), "tiny", images=256, rounds=3)
            yield from _cluster(Path(folder), "tiny", few=64, images=4096, rounds=5)
            yield "memory", _memory(Path(folder), COUNTS)


def _throughput(folder: Path, scale: str, *, images: int, rounds: int) -> dict[str, Any]:
    facts = run_facts()
    photos = _photos(folder / "photos", images)
    artifacts = _exported(folder / scale, scale, ["--format=onnx,tflite", "--precision=fp32,int8"])
    int8, fp32 = str(artifacts / "tflite-int8"), str(artifacts / "onnx-fp32")
    sizes = SCALE_CONFIGS[scale]._asdict()
    shape = {**sizes, "mlp_dim": int(sizes["embed_dim"] * sizes["mlp_ratio"]), "image_size": 224, "patch_size": 16}
    ways = [
        (OURS, "embed", "int8", {"artifact": int8}),
        ("the engine alone", "engine", "int8", {"artifact": int8, "streams": 1}),
        ("the engine alone, 2 streams", "engine", "int8", {"artifact": int8, "streams": 2}),
        (OURS, "embed", "fp32", {"artifact": fp32}),
    ]
    if _is_installed("torch"):
        ways.append(("ONNX Runtime and PyTorch's DataLoader", "loader", "fp32", {"artifact": fp32, "model": shape}))
    if _is_installed("torch", "transformers"):
        ways.append(("transformers' pipeline", "pipeline", "fp32", {"artifact": fp32, "model": shape}))
    entries: list[dict[str, Any]] = [{"name": name, "precision": kind, "rounds": []} for name, _, kind, _ in ways]
    for index in range(rounds):
        order = list(zip(ways, entries, strict=True))
        # Every other round runs backwards, so that nobody always follows the same neighbour.
        for (name, way, kind, options), entry in order if index % 2 == 0 else reversed(order):
            progress(f"images: round {index + 1}/{rounds}, {name}, {kind}")
            few = images // SLOWER.get(way, 1)  # what is slower has fewer images, for as long a time
            found = _run(way, {**options, "photos": str(photos), "images": few})
            entry["rounds"].append({**found, "images_given": few, "load_1m": os.getloadavg()[0]})
    return {**facts, "photo": PHOTO, "images": images, "ways": entries}


def _cluster(folder: Path, scale: str, *, few: int, images: int, rounds: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Whole jobs of few and of many images, with Ray and without, after `_throughput`, whose files they read."""
    if not _is_installed("ray", "pyarrow", "pandas"):
        return
    facts = run_facts()
    photos = sorted((folder / "photos").iterdir())
    lists = {count: folder / f"{count}.txt" for count in (few, images)}
    for count, path in lists.items():
        path.write_text("".join(f"{photos[place % len(photos)]}\n" for place in range(count)))
    ways: list[tuple[str, dict[str, Any]]] = [(OURS, {}), (RAY, {"ray": "local"})]
    entries: list[dict[str, Any]] = [{"name": name, "rounds": []} for name, _ in ways]
    for index in range(rounds):
        order = list(zip(ways, entries, strict=True))
        for (name, options), entry in order if index % 2 == 0 else reversed(order):
            progress(f"images: round {index + 1}/{rounds}, {name}, whole jobs")
            artifact = str(folder / scale / "tflite-int8")
            found = [_run("whole", {"artifact": artifact, "photos": str(lists[n]), **options}) for n in (few, images)]
            seconds = {"few_s": found[0]["ns"][-1] / 1e9, "many_s": found[1]["ns"][-1] / 1e9}
            entry["rounds"].append({**seconds, "load_1m": os.getloadavg()[0]})
    yield "cluster", {**facts, "photo": PHOTO, "few": few, "images": images, "ways": entries}


def _memory(folder: Path, counts: tuple[int, ...]) -> dict[str, Any]:
    facts = run_facts()
    artifacts = _exported(folder / "small", "pico", ["--format=tflite", "--image-size=16x24", "--patch-size=8"])
    entries = []
    for count in counts:
        small = _small(folder / f"small-{count}", count)
        progress(f"images: memory at {count}")
        found = _run("memory", {"artifact": str(artifacts / "tflite-fp32"), "photos": str(small)})
        seconds = found["ns"][-1] / 1e9
        entries.append({"images": count, "peaks": found["peaks"], "seconds": seconds})
    return {**facts, "small": SMALL, "runs": entries}


def _run(way: str, job: dict[str, Any]) -> dict[str, Any]:
    command = python(str(WORKER), way, json.dumps(job))
    done = subprocess.run(command, cwd=ROOT, env=environment(), check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _exported(folder: Path, scale: str, options: list[str]) -> Path:
    command = python("-m", "vit_deploy", "export", scale, *options, "-o", str(folder), "--quiet", "--keep-failed")
    subprocess.run(command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL)
    return folder


def _photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    pictures = natural_pixels(min(count, 32), *PHOTO, 3)
    for place in range(count):
        picture = np.roll(pictures[place % len(pictures)], place, axis=1)
        Image.fromarray(picture).save(folder / f"{place:05}.jpg", quality=90)
    return folder


def _small(folder: Path, count: int) -> Path:
    """Files of few bytes, in folders of a thousand."""
    rng = np.random.default_rng(0)
    for place in range(count):
        path = folder / f"{place // 1000:03}" / f"{place % 1000:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*SMALL, 3), np.uint8)).save(path, compress_level=0)
    return folder


def _is_installed(*names: str) -> bool:
    return all(importlib.util.find_spec(name) for name in names)
