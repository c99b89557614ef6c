"""The extras for GPUs can be installed, and the real package for GPUs is told apart from one that works."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from vit_deploy.runtimes.cuda.card import count_devices

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


@pytest.mark.skipif(sys.platform != "linux", reason="the packages of CUDA are for Linux")
@pytest.mark.parametrize(
    ("extras", "brought"),
    [
        ("gpu", {"onnxruntime-gpu", "nvidia-cuda-runtime", "nvidia-cudnn-cu13", "nvidia-ml-py"}),
        ("gpu-cuda12", {"onnxruntime-gpu", "nvidia-cuda-runtime-cu12", "nvidia-cudnn-cu12", "nvidia-ml-py"}),
        ("export,gpu", {"onnxruntime-gpu", "tensorflow-cpu", "tf2onnx", "nvidia-cudnn-cu13"}),
        ("gpu-cuda12,gpu-tf", {"onnxruntime-gpu", "tensorflow", "nvidia-cudnn-cu12"}),
        ("tensorrt-rtx", {"tensorrt-rtx", "nvidia-ml-py"}),
    ],
)
def test_an_extra_can_be_installed_and_brings_one_onnx_runtime(extras, brought, tmp_path):
    report = tmp_path / "report.json"
    options = ("--dry-run", "--ignore-installed", "--quiet", "--report", report)
    subprocess.run([sys.executable, "-m", "pip", "install", *options, f"{ROOT}[{extras}]"], check=True)
    found = {
        canonicalize_name(installed["metadata"]["name"]) for installed in json.loads(report.read_text())["install"]
    }
    assert brought <= found
    assert "onnxruntime" not in found


@pytest.mark.skipif(count_devices() > 0, reason="there is a GPU, on which it may work")
def test_the_package_for_gpus_is_said_not_to_work_where_there_is_none(tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv/bin/python"
    subprocess.run([python, "-m", "pip", "install", "-q", f"{ROOT}", "onnxruntime-gpu>=1.28"], check=True)
    done = subprocess.run(
        [python, "-m", "vit_deploy", "doctor", "--json"], capture_output=True, text=True, env=CLEAN, cwd=tmp_path
    )
    assert done.returncode == 1, done.stderr
    (found,) = json.loads(done.stdout)["results"]
    usable = {trial["provider"]: trial["usable"] for trial in found["provider_trials"]}
    assert usable == {
        "TensorrtExecutionProvider": False,
        "CUDAExecutionProvider": False,
        "CPUExecutionProvider": True,
    }
    (conflict,) = found["conflicts"]
    assert conflict["problem"].startswith("CUDAExecutionProvider of onnxruntime-gpu")
    assert "missing" in conflict["problem"] and conflict["fix"]
    assert found["nvidia"]["gpus"] == [] and found["nvidia"]["driver"] is False
