"""Artifacts of every precision on emulated Arm computers: a Raspberry Pi 3's CPU, a 5's, and a server's."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

import vit_deploy
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.errors import VitDeployError
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export
from vit_deploy.remote.emulation.setup import set_up

pytestmark = [pytest.mark.slow, pytest.mark.arm]

CPUS = ("cortex-a53", "cortex-a76", "neoverse-n2")
PRECISIONS = {
    "tflite": ("fp32", "fp16", "int8", "int8-static", "int8-full", "int16x8", "int4"),
    "onnx": ("fp32", "fp16", "int8", "int8-static", "int4"),
}


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    config = ViTConfig((32, 48), (8, 8), 3, embed_dim=64, num_heads=4, num_layers=2, mlp_dim=128, num_classes=10)
    folder = tmp_path_factory.mktemp("arm")
    found = []
    for format, precisions in PRECISIONS.items():
        jobs, skipped = plan([format], precisions)
        assert not skipped
        found += [made.artifact.directory for made in export(Checkpoint.random(config, seed=5), folder, jobs)]
    return found


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With an emulator in a cache of its own, or in the one that VIT_DEPLOY_ARM_CACHE names."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        pytest.skip("Arm is emulated on x86-64 Linux")
    cache = os.environ.get("VIT_DEPLOY_ARM_CACHE") or str(tmp_path_factory.mktemp("cache"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIT_DEPLOY_CACHE", cache)
        try:
            set_up(note=lambda text: None)
        except VitDeployError as error:
            pytest.skip(f"the emulator cannot be had: {error.message}")
    return {**os.environ, "VIT_DEPLOY_CACHE": cache}


@pytest.mark.parametrize("cpu", CPUS)
def test_every_precision_is_proven(cpu: str, artifacts: list[Path], environment: dict[str, str]) -> None:
    words = [sys.executable, "-P", "-m", "vit_deploy", "verify", *map(str, artifacts)]
    words += ["--on", f"qemu://{cpu}", "--quick", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    records = json.loads(done.stdout)["results"]
    assert len(records) == sum(map(len, PRECISIONS.values()))
    assert {record["verdict"] for record in records} == {"same"}
    assert all(record["emulated"] for record in records)
    snr = {Path(record["artifact"]).name: record["metrics"]["snr_db"] for record in records}
    # ONNX Runtime computes fp16 files in half where the CPU can, which an A53 cannot.
    in_half = cpu != "cortex-a53"
    assert snr["onnx-fp16"] > (40 if in_half else 60)
    if in_half:
        [fp16] = [path for path in artifacts if path.name == "onnx-fp16"]
        [simulated] = vit_deploy.verify(fp16, simulate="arm-fp16")
        assert simulated.parity.snr_db == pytest.approx(snr["onnx-fp16"], abs=2.0)
    assert snr["tflite-fp16"] > 60
