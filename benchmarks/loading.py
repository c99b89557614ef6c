"""What do loading and resizing a checkpoint of timm's layout cost?

Loading beside reading the bytes and building the Keras model, `resize` beside `convert`, each a process of its own, in
turns. The program's own seconds of the processor are told beside those of the clock, which hold what the kernel does
for it too: on a shared machine, finding pages of memory takes several times as long in one process as in the next.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.job import Job
from benchmarks.processes import ROOT, environment
from benchmarks.progress import progress
from benchmarks.records import run_facts
from vit_deploy.checkpoints.containers.safetensors_file import write_safetensors
from vit_deploy.core.child_processes import python
from vit_deploy.core.config import ViTConfig

FULL, MINIATURE = 15, 1  # rounds
LARGER = "384x512"
PAIRS: Mapping[str, tuple[str, str]] = {
    "load, the bytes and the Keras model being 1": ("load", "build"),
    "resize, load and save being 1": ("resize", "convert"),
}
# What an engine does once in a process is done with a model of nearly nothing.
IN_PYTHON = """
import json, os, sys, time
import vit_deploy
vit_deploy.create_vision_transformer("pico", input_shape=(16, 16, 3), num_classes=2)
started, before = time.perf_counter(), os.times()
if sys.argv[1] == "load":
    kept = vit_deploy.load(sys.argv[2])
else:
    kept = open(sys.argv[2], "rb").read(), vit_deploy.create_vision_transformer(sys.argv[3])
after = os.times()
wall_s = time.perf_counter() - started
print(json.dumps({"wall_s": wall_s, "user_s": after.user - before.user, "system_s": after.system - before.system}))
"""


@dataclass(frozen=True)
class Run:
    """Seconds by the clock, and of the processor on all threads together: the program's own and the kernel's."""

    wall_s: float
    user_s: float
    system_s: float


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result a scale."""
    for size in job.chosen("base"):
        with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as folder:
            yield size.scale, measure_scale(size.scale, Path(folder), MINIATURE if job.quick else FULL)


def measure_scale(scale: str, folder: Path, rounds: int) -> dict[str, Any]:
    """All runs in plain JSON values; the first of each only warms the file's pages up and is left out."""
    facts = run_facts()
    path = write(ViTConfig.from_scale(scale), folder / "model.safetensors")
    runs: dict[str, list[Run]] = {way: [] for pair in PAIRS.values() for way in pair}
    for pair, measured in zip(PAIRS.values(), (in_python, command), strict=True):
        for index in range(rounds + 1):
            progress(f"{' and '.join(pair)}: round {index} of {rounds}")
            # Who comes second finds the disk busy with what the first wrote: each is first in every other round.
            for way in pair[:: 1 if index % 2 else -1]:
                run = measured(way, path, scale)
                runs[way] += [run] if index else []
    return {
        **facts,
        "scale": scale,
        "bytes": path.stat().st_size,
        "runs": {way: [asdict(run) for run in each] for way, each in runs.items()},
    }


def in_python(way: str, path: Path, scale: str) -> Run:
    """One part of a process that has its engine loaded already."""
    run = python("-c", IN_PYTHON, way, str(path), scale)
    answer = subprocess.check_output(run, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
    return Run(**json.loads(answer))


def command(way: str, path: Path, scale: str) -> Run:
    """One whole process of the command line."""
    size = ["--image-size", LARGER] if way == "resize" else []
    target = path.with_name("written.safetensors")
    run = python("-m", "vit_deploy", way, str(path), *size, "-o", str(target), "--force", "--quiet")
    started, before = time.perf_counter(), os.times()
    subprocess.run(run, cwd=ROOT, env=environment(), check=True, stdout=subprocess.DEVNULL)
    wall_s, after = time.perf_counter() - started, os.times()
    user_s = after.children_user - before.children_user
    return Run(wall_s, user_s, after.children_system - before.children_system)


def write(config: ViTConfig, path: Path) -> Path:
    """Random numbers under timm's names."""
    dim, hidden = config.embed_dim, config.mlp_dim
    dense = {"patch_embed.proj": (dim, config.channels, *config.patch_size), "head": (config.num_classes, dim)}
    norms = ["norm"]
    for index in range(config.num_layers):
        block = f"blocks.{index}"
        dense |= {f"{block}.attn.qkv": (3 * dim, dim), f"{block}.attn.proj": (dim, dim)}
        dense |= {f"{block}.mlp.fc1": (hidden, dim), f"{block}.mlp.fc2": (dim, hidden)}
        norms += [f"{block}.norm1", f"{block}.norm2"]
    shapes: dict[str, tuple[int, ...]] = {"cls_token": (1, 1, dim), "pos_embed": (1, config.sequence_length, dim)}
    shapes |= {f"{name}.weight": shape for name, shape in dense.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in dense.items()}
    shapes |= {f"{name}.{role}": (dim,) for name in norms for role in ("weight", "bias")}
    rng = np.random.default_rng(0)
    tensors: dict[str, NDArray[np.float32]] = {
        name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()
    }
    write_safetensors(path, tensors, {})
    return path
