"""Kinds of files, the commands that read them, and ways in which a file gets damaged."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.performance.report.records import ARTIFACTS, evaluated, measured, verified
from vit_deploy import checkpoints
from vit_deploy.core.documents import document

GOLDEN = Path(__file__).parents[1] / "peers" / "golden"

Command = tuple[str, ...]


@dataclass(frozen=True)
class Target:
    """A file to damage, and the commands that read it.

    Args:
        folder: of the originals, which is copied.
        file: relative to it.
        commands: arguments; `{path}` is what the command takes, `{file}` the file, `{folder}` the copy, `{images}`
            other originals that stay whole, and `{out}` a name to write. Where the first one is costly with a file
            that is valid, it is given one that is cut first.
        path: what stands for it on the command line, relative as well.
    """

    folder: str
    file: str
    commands: tuple[Command, ...]
    path: str


CONVERT = ("convert", "{path}", "-o", "{out}.safetensors")
CHECKPOINT = (
    ("export", "{path}", "--format", "onnx", "-o", "{out}"),
    CONVERT,
    ("inspect", "{path}"),
    ("resize", "{path}", "--image-size", "48x32", "-o", "{out}.safetensors"),
    ("compare", "{path}", "{path}"),
    ("predict", "{path}", "{images}/photo.png"),
    ("verify", "{images}/onnx", "--against", "{path}"),
)
CONFIG = (
    ("export", "{path}", "--format", "onnx", "-o", "{out}", "--config", "{file}"),
    (*CONVERT, "--config", "{file}"),
    ("resize", "{path}", "--patch-size", "4x8", "-o", "{out}.safetensors", "--config", "{file}"),
)
BUNDLE = (
    ("quantize", "{path}", "--precision", "int8", "-o", "{out}"),
    ("verify", "{path}"),
    ("inspect", "{path}"),
    ("bundle", "{path}", "-o", "{out}.tar.gz"),
    ("card", "{path}", "-o", "{out}.md"),
    ("compare", "{path}", "{path}"),
    ("predict", "{path}", "{images}/photo.png"),
    ("evaluate", "{path}", "--data", "{images}/data.npz"),
    ("bench", "{path}", "--runs", "2"),
)
ALONE = (("inspect", "{path}"), ("compare", "{path}", "{path}"), ("inspect", "{path}", "--snippet"))
DATA = (
    ("quantize", "{folder}/onnx", "--precision", "int8-static", "--calibrate", "{path}", "-o", "{out}"),
    ("evaluate", "{folder}/onnx", "--data", "{path}"),
)
RESULTS = (
    ("report", "{path}", "-o", "{out}.html"),
    ("report", "{path}", "-o", "{out}.md"),
    ("report", "{folder}/bench.json", "{path}", "-o", "{out}.csv"),
    ("card", "{images}/onnx", "-o", "{out}.md", "--results", "{path}"),
)
BASELINE = (*RESULTS, ("bench", "{folder}/none", "--baseline", "{path}"))
TARGETS = {
    "keras": Target("checkpoints", "small.keras", CHECKPOINT, "small.keras"),
    "safetensors": Target("checkpoints", "small.safetensors", CHECKPOINT, "small.safetensors"),
    "config": Target("checkpoints", "config.json", CONFIG, "small.safetensors"),
    "google": Target("google", "imagenet21k.npz", CHECKPOINT, "imagenet21k.npz"),
    "timm": Target("timm", "model.safetensors", CHECKPOINT, "."),
    "timm config": Target("timm", "config.json", CHECKPOINT, "."),
    "transformers": Target("huggingface", "model-00001-of-00006.safetensors", CHECKPOINT, "."),
    "transformers index": Target("huggingface", "model.safetensors.index.json", CHECKPOINT, "."),
    "transformers config": Target("huggingface", "config.json", CHECKPOINT, "."),
    "onnx": Target("onnx", "model.onnx", BUNDLE, "."),
    "onnx alone": Target("onnx", "model.onnx", ALONE, "model.onnx"),
    "tflite": Target("tflite", "model.tflite", BUNDLE, "."),
    "tflite alone": Target("tflite", "model.tflite", ALONE, "model.tflite"),
    "savedmodel": Target("savedmodel", "saved_model/saved_model.pb", BUNDLE, "."),
    "savedmodel alone": Target("savedmodel", "saved_model/saved_model.pb", ALONE, "saved_model"),
    "manifest": Target("onnx", "artifact.json", BUNDLE, "."),
    "golden": Target("onnx", "golden.npz", BUNDLE, "."),
    "image": Target("images", "photo.png", (("predict", "{folder}/small.safetensors", "{path}"),), "photo.png"),
    "data": Target("images", "data.npz", DATA, "data.npz"),
    "bench results": Target("results", "bench.json", BASELINE, "bench.json"),
    "evaluate results": Target("results", "evaluate.json", RESULTS, "evaluate.json"),
    "verify results": Target("results", "verify.json", RESULTS, "verify.json"),
}


def write_originals(checkpoint: Any, bundles: dict[str, Path], root: Path) -> dict[str, Path]:
    """A folder for each kind of files."""
    own, images, results = (root / name for name in ("checkpoints", "images", "results"))
    for folder in (own, images, results):
        folder.mkdir()
    for name in ("small.keras", "small.safetensors"):
        checkpoints.save(checkpoint, own / name)
    (own / "config.json").write_text(json.dumps(checkpoint.config.to_dict()))
    shutil.copy(own / "small.safetensors", images)
    shutil.copytree(bundles["onnx"], images / "onnx")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(images / "photo.png")
    np.savez(images / "data.npz", images=pixels, labels=np.arange(40) % 4)
    measurements = {
        "bench": measured(),
        "evaluate": [evaluated(name) for name in ARTIFACTS],
        "verify": [verified(name) for name in ARTIFACTS],
    }
    for command, records in measurements.items():
        (results / f"{command}.json").write_text(json.dumps(document(command, records, ok=True)))
    peers = {"google": GOLDEN / "google", "timm": GOLDEN / "timm" / "plain", "huggingface": GOLDEN / "huggingface/vit"}
    return {"checkpoints": own, "images": images, "results": results, **peers, **bundles}


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(len(data)))]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    found = bytearray(data)
    for place in rng.integers(len(data), size=int(rng.integers(1, 9))):
        found[place] ^= 1 << int(rng.integers(8))
    return bytes(found)


def overwritten(data: bytes, rng: np.random.Generator) -> bytes:
    start, count = int(rng.integers(len(data))), int(rng.integers(1, 33))
    noise = rng.integers(256, size=count, dtype=np.uint8).tobytes() if rng.random() < 0.5 else b"\xff" * count
    return data[:start] + noise + data[start + count :]


def early(data: bytes, rng: np.random.Generator) -> bytes:
    """Headers are at the beginning, and it is they that a reader trusts."""
    found = bytearray(data)
    for place in rng.integers(min(len(data), 256), size=3):
        found[place] = int(rng.integers(256))
    return bytes(found)


def repeated(data: bytes, rng: np.random.Generator) -> bytes:
    start, end = sorted(int(place) for place in rng.integers(len(data), size=2))
    return data[:end] + data[start:]


DAMAGE: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (cut, flipped, overwritten, early, repeated)
