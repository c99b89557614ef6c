"""A device has one light runtime and nothing else: artifacts that are copied there are proven and timed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import venv
from pathlib import Path

import pytest

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
HEAVY = ("tensorflow", "keras", "tf2onnx", "onnx", "onnxscript", "h5py", "torch")


def environment(folder: Path, extra: str) -> Path:
    venv.create(folder, with_pip=True)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([binaries / "python", "-m", "pip", "install", "-q", f"{ROOT}[{extra}]"], check=True)
    return binaries


def run(binaries: Path, *arguments: object) -> dict[str, object]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run(
        [binaries / "vit-deploy", *map(str, arguments), "--json"], capture_output=True, text=True, env=clean
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("extra", "format"), [("onnx", "onnx"), ("openvino", "onnx"), ("litert", "tflite")])
def test_a_copied_bundle_is_proven_and_timed_where_only_its_light_runtime_is_installed(
    extra: str, format: str, checkpoint: Checkpoint, tmp_path: Path
) -> None:
    jobs, _ = plan([format], ["fp32"])
    made = export(checkpoint, tmp_path / "made", jobs)[0].artifact.directory
    copied = shutil.copytree(made, tmp_path / "device" / "bundle")
    shutil.rmtree(tmp_path / "made")
    binaries = environment(tmp_path / "venv", extra)

    listing = [binaries / "python", "-m", "pip", "list", "--format", "json"]
    installed = {package["name"].lower() for package in json.loads(subprocess.check_output(listing))}
    assert not installed & set(HEAVY)

    verified = run(binaries, "verify", copied)
    assert verified["ok"]
    timed = run(binaries, "bench", copied, "--runs", 10)["results"]
    assert isinstance(timed, list)
    assert len(timed[0]["samples_ns"]) == 10
    assert timed[0]["p50_ms"] > 0


def test_a_missing_engine_is_an_error_that_names_its_extra(checkpoint: Checkpoint, tmp_path: Path) -> None:
    jobs, _ = plan(["tflite"], ["fp32"])
    bundle = export(checkpoint, tmp_path / "made", jobs)[0].artifact.directory
    binaries = environment(tmp_path / "venv", "onnx")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    done = subprocess.run([binaries / "vit-deploy", "verify", bundle], capture_output=True, text=True, env=clean)
    assert done.returncode == 2
    assert 'pip install "vit-deploy[litert]"' in done.stderr
    assert "Traceback" not in done.stderr
