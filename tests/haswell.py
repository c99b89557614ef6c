"""ONNX Runtime as it computes on a processor with AVX2 and without VNNI, which QEMU's user mode executes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
PROGRAM = """
import sys
import numpy as np
import onnxruntime

settings = onnxruntime.SessionOptions()
settings.log_severity_level = 4
if sys.argv[4] == "exact":
    settings.add_session_config_entry("session.x64quantprecision", "1")
engine = onnxruntime.InferenceSession(sys.argv[1], settings, providers=["CPUExecutionProvider"])
given = np.load(sys.argv[2])
np.save(sys.argv[3], engine.run(None, {engine.get_inputs()[0].name: given})[0])
"""


def on_haswell(model: Path, given: Path, mode: str) -> np.ndarray:
    """What a model answers to one array of inputs; `mode` is "usual" or "exact"."""
    found = given.with_name(f"{mode}.npy")
    command = [str(QEMU), "-cpu", "Haswell", sys.executable, "-c", PROGRAM, str(model), str(given), str(found), mode]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return np.load(found)
