"""Whatever is wrong with a file, a command says it in one error: no traceback, no hang, no half of an output.

Every kind of file is cut, has bits flipped, bytes overwritten or pieces repeated, at places that a seed draws, and is
given to each command that takes it. A file may still be valid after that; then the command does its work.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vit_deploy import checkpoints
from vit_deploy.artifact import write_manifest
from vit_deploy.bench_worker import peak_rss_mb

GOLDEN = Path(__file__).parents[1] / "peers" / "golden"
DAMAGES = 5  # of each file
HANG_S = 30
MEMORY_MB = 600  # that all of it together may take beyond what the process had


@dataclass(frozen=True)
class Target:
    """A file to damage, and the commands that read it.

    Args:
        file: relative to the folder that is copied.
        commands: arguments; `{path}` is what the command takes, `{out}` a name to write.
        path: what stands for it on the command line, relative as well.
    """

    folder: str
    file: str
    commands: tuple[tuple[str, ...], ...]
    path: str


CHECKPOINT = (("convert", "{path}", "-o", "{out}.safetensors"), ("inspect", "{path}"))
CONFIG = (("convert", "{path}", "-o", "{out}.safetensors", "--config", "{file}"),)
BUNDLE = (("verify", "{path}"), ("inspect", "{path}"), ("bundle", "{path}", "-o", "{out}.tar.gz"))
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
    "onnx alone": Target("onnx", "model.onnx", (("inspect", "{path}"),), "model.onnx"),
    "tflite": Target("tflite", "model.tflite", BUNDLE, "."),
    "tflite alone": Target("tflite", "model.tflite", (("inspect", "{path}"),), "model.tflite"),
    "savedmodel": Target("savedmodel", "saved_model/saved_model.pb", BUNDLE, "."),
    "savedmodel alone": Target("savedmodel", "saved_model/saved_model.pb", (("inspect", "{path}"),), "saved_model"),
    "manifest": Target("onnx", "artifact.json", BUNDLE, "."),
    "golden": Target("onnx", "golden.npz", BUNDLE, "."),
    "image": Target("images", "photo.png", (("predict", "{folder}/small.safetensors", "{path}"),), "photo.png"),
    "data": Target("images", "data.npz", (("evaluate", "{folder}/onnx", "--data", "{path}"),), "data.npz"),
    "baseline": Target("images", "bench.json", (("bench", "{folder}/none", "--baseline", "{path}"),), "bench.json"),
}


@pytest.fixture(scope="module")
def originals(
    make_checkpoint: Any, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A folder for each kind of files."""
    root = tmp_path_factory.mktemp("originals")
    own, images = root / "checkpoints", root / "images"
    own.mkdir()
    checkpoint = make_checkpoint()
    for name in ("small.keras", "small.safetensors"):
        checkpoints.save(checkpoint, own / name)
    (own / "config.json").write_text(json.dumps(checkpoint.config.to_dict()))
    images.mkdir()
    shutil.copy(own / "small.safetensors", images)
    shutil.copytree(bundles["onnx"], images / "onnx")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (4, 24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels[0]).save(images / "photo.png")
    np.savez(images / "data.npz", images=pixels, labels=np.arange(4))
    (images / "bench.json").write_text(json.dumps({"schema": 1, "command": "bench", "results": []}))
    peers = {"google": GOLDEN / "google", "timm": GOLDEN / "timm" / "plain", "huggingface": GOLDEN / "huggingface/vit"}
    return {"checkpoints": own, "images": images, **peers, **bundles}


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
    start, end = sorted(int(each) for each in rng.integers(len(data), size=2))
    return data[:end] + data[start:]


DAMAGE: tuple[Callable[[bytes, np.random.Generator], bytes], ...] = (cut, flipped, overwritten, early, repeated)


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    before = peak_rss_mb() or 0
    yield
    assert (peak_rss_mb() or 0) < before + MEMORY_MB


def assert_answered(run: Any, target: Target, folder: Path, tmp_path: Path) -> None:
    """Each command ends in time with an exit code of the contract, and an error is one, with nothing written."""
    names = {"path": folder / target.path, "file": folder / target.file, "folder": folder, "out": tmp_path / "out"}
    for command in target.commands:
        begun = time.monotonic()
        said = run(*(word.format(**names) for word in command))
        assert time.monotonic() - begun < HANG_S
        written = [each.name for each in tmp_path.iterdir() if each.name.startswith("out")]
        hidden = [each.name for each in tmp_path.iterdir() if each.name.startswith(".")]
        assert said.code in (0, 1, 2), said.err
        assert not hidden
        if said.code == 2:
            assert said.err.count("vit-deploy: ") == 1, said.err
            assert "Traceback" not in said.err
            assert not written, command
        for name in written:
            (tmp_path / name).unlink()


@pytest.mark.parametrize("kind", TARGETS)
def test_a_damaged_file_is_one_error_or_still_a_file(
    run: Any, originals: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    target = TARGETS[kind]
    folder = shutil.copytree(originals[target.folder], tmp_path / "copied")
    file = folder / target.file
    data = file.read_bytes()
    rng = np.random.default_rng([*kind.encode()])
    for number in range(DAMAGES):
        file.write_bytes(DAMAGE[number % len(DAMAGE)](data, rng))
        assert_answered(run, target, folder, tmp_path)


@pytest.mark.parametrize("kind", ["onnx", "tflite", "savedmodel"])
def test_a_damaged_model_whose_manifest_was_made_anew_is_one_error_or_fails_its_proof(
    run: Any, originals: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    # Past the digests an engine meets the bytes; metadata at the end of a file leave it valid.
    from vit_deploy.artifact import read_artifact

    folder = shutil.copytree(originals[kind], tmp_path / "copied")
    artifact = read_artifact(folder)
    file = folder / TARGETS[kind].file
    data = file.read_bytes()
    commands: list[tuple[str, ...]] = [("verify", "{path}", "--quick")]
    if kind != "savedmodel":
        commands.append(("quantize", "{path}", "--precision", "int8", "-o", "{out}"))
    middle = len(data) // 2  # an ONNX file has names and shapes there, and a TFLite file weights
    other = data[:middle] + bytes(byte ^ 0x55 for byte in data[middle : middle + 40]) + data[middle + 40 :]
    for damaged in (*(data[: int(share * len(data))] for share in (0.0, 0.3, 0.9)), other):
        file.write_bytes(damaged)
        write_manifest(artifact)
        assert_answered(run, Target(kind, TARGETS[kind].file, tuple(commands), "."), folder, tmp_path)


@given(text=st.text() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(json.dumps))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("kind", ["config", "timm config", "transformers config", "manifest", "baseline"])
def test_any_text_in_place_of_json_is_one_error(
    run: Any, originals: dict[str, Path], tmp_path: Path, kind: str, text: str
) -> None:
    target = TARGETS[kind]
    folder = tmp_path / "copied"
    if not folder.exists():
        shutil.copytree(originals[target.folder], folder)
    (folder / target.file).write_text(text, encoding="utf-8", errors="surrogatepass")
    assert_answered(run, target, folder, tmp_path)
