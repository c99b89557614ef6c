"""What do fp16 ONNX files answer on Arm processors that compute in half?

ONNX Runtime keeps the sums of products in half precision there. Models of several depths, with random weights and
trained on scikit-learn's digits: in the engine here, under QEMU on a processor without half arithmetic and on two with
it, by `verify --on qemu://…` (`vit-deploy emulator setup` comes first), and simulated in NumPy by `verify --simulate
arm-fp16`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vit_deploy
from benchmarks.arm_tables import CPUS
from benchmarks.job import Job
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.trained import on_digits
from vit_deploy import checkpoints
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import SCALE_CONFIGS, ViTConfig

DEPTHS = (2, 12)
SEED = 5


def measure(job: Job) -> Iterator[tuple[str, dict[str, Any]]]:
    """A result a model."""
    for depth in DEPTHS[:1] if job.quick else DEPTHS:
        yield f"random-{depth}", measure_model(f"random weights, {depth} blocks", random_model(depth))
    for model in [] if job.quick else on_digits(job):
        yield model.stem, measure_model("trained on digits", checkpoints.load(model))


def random_model(depth: int) -> Checkpoint:
    """A model as wide as ViT-Tiny, for small images."""
    tiny = SCALE_CONFIGS["tiny"]
    config = ViTConfig((64, 64), (16, 16), 3, tiny.embed_dim, tiny.num_heads, depth, tiny.embed_dim * 4, 10)
    return Checkpoint.random(config, seed=SEED)


def measure_model(title: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """Signal to noise of its fp16 file everywhere, in dB, in plain JSON values."""
    facts = run_facts()
    with tempfile.TemporaryDirectory(prefix="vit-deploy-benchmarks-") as name:
        [artifact] = vit_deploy.export(checkpoint, Path(name), formats="onnx", precisions="fp16")
        progress(f"{title}: here and simulated")
        found = {
            "here": vit_deploy.verify(artifact, quick=True).parity.snr_db,
            "simulated": vit_deploy.verify(artifact, simulate="arm-fp16").parity.snr_db,
        }
        progress(f"{title}: under QEMU")
        emulated = vit_deploy.verify(artifact, quick=True, on=[f"qemu://{cpu}" for cpu in CPUS])
        found |= {cpu: result.parity.snr_db for cpu, result in zip(CPUS, emulated, strict=True)}
    return {**facts, "model": title, "snr_db": found}
