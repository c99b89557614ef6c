"""Loading base from timm's names costs little more than its bytes and the model that they go into."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import state_dicts
from numpy.typing import NDArray

from tests.checkpoints import torch_writer
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.weights import weight_specs

pytestmark = pytest.mark.slow

ROUNDS = 3
TIMES = 1.5  # of reading the bytes and building the Keras model
MEMORY = 2.5  # of the weights
PROCESS = """
import json, sys, time
from pathlib import Path
import vit_deploy
from vit_deploy.core.memory import peak_rss_mb

def build(path):
    return Path(path).read_bytes(), vit_deploy.create_vision_transformer("base")

# What the engine does once in a process is done with a model of nearly nothing.
vit_deploy.create_vision_transformer("pico", input_shape=(16, 16, 3), num_classes=2)
before_mb = peak_rss_mb()
started = time.perf_counter()
kept = {"load": vit_deploy.load, "build": build}[sys.argv[1]](sys.argv[2])
print(json.dumps({"seconds": time.perf_counter() - started, "mb": peak_rss_mb() - before_mb}))
"""


@pytest.fixture(scope="module")
def tensors() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    dim, hidden = 768, 3072
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 197, dim),
        "patch_embed.proj.weight": (dim, 3, 16, 16),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "head.weight": (1000, dim),
        "head.bias": (1000,),
    }
    sides = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "mlp.fc1": (hidden, dim), "mlp.fc2": (dim, hidden)}
    for index in range(12):
        for name, shape in sides.items():
            shapes |= {f"blocks.{index}.{name}.weight": shape, f"blocks.{index}.{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{index}.{name}.weight": (dim,), f"blocks.{index}.{name}.bias": (dim,)}
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


WRITERS: dict[str, Callable[..., Path]] = {
    "model.safetensors": state_dicts.write,
    "zip.pth": torch_writer.write_zip,
    "legacy.pth": torch_writer.write_legacy,
}


@pytest.fixture(scope="module", params=WRITERS)
def base(
    request: pytest.FixtureRequest, tensors: dict[str, NDArray[np.float32]], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return WRITERS[request.param](tmp_path_factory.mktemp("base") / request.param, tensors)


def measured(what: str, path: Path) -> dict[str, float]:
    command = [sys.executable, "-c", PROCESS, what, str(path)]
    values: dict[str, float] = json.loads(subprocess.check_output(command, stderr=subprocess.DEVNULL))
    return values


def test_loading_base_costs_little_more_than_its_bytes_and_its_model(base: Path) -> None:
    rounds = [(measured("build", base), measured("load", base)) for _ in range(ROUNDS)]
    build, load = (min(run["seconds"] for run in runs) for runs in zip(*rounds, strict=True))
    weights_mb = 4 * sum(np.prod(spec.shape) for spec in weight_specs(ViTConfig()).values()) / 1e6
    peak_mb = max(loaded["mb"] for _, loaded in rounds)
    print(f"load {load:.2f} s of {build:.2f} s, peak {peak_mb:.0f} MB of {weights_mb:.0f} MB")
    assert load <= TIMES * build
    assert peak_mb <= MEMORY * weights_mb
