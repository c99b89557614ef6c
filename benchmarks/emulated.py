"""An artifact in its engine on a processor without VNNI, under QEMU's user mode: `OUT.npy` of its golden images.

ONNX Runtime is run plainly, as by somebody who knows nothing of `session.x64quantprecision`.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import ROOT, environment
from benchmarks.progress import progress
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.child_processes import python
from vit_deploy.core.manifest import read_artifact
from vit_deploy.runtimes import RUNTIMES
from vit_deploy.runtimes.values import as_stored
from vit_deploy.verification.golden import read_golden

CPU = "Haswell"
QEMU = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")


def answers(artifact: Artifact, runtime: str) -> NDArray[np.float32] | None:
    """Outputs to the golden images; None where there is no QEMU, or where it fails."""
    if QEMU is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.npy"
        program = python("-m", "benchmarks.emulated", str(artifact.directory), runtime, str(out))
        command = [QEMU, "-cpu", CPU, *program]
        done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, errors="replace")
        if done.returncode != 0:  # the emulator does not run every program of many threads to its end
            progress(f"{artifact.name} in {runtime} under QEMU ended with {done.returncode}: {done.stderr[-500:]}")
            return None
        found: NDArray[np.float32] = np.load(out)
        return found


def main(bundle: str, runtime: str, out: str) -> None:
    """Answer, and write the outputs."""
    artifact = read_artifact(Path(bundle))
    images: NDArray[Any] = read_golden(artifact).images
    if runtime != "onnxruntime":
        with RUNTIMES.load(runtime)().open(artifact) as session:
            outputs = session.infer(images)
    else:
        import onnxruntime

        engine = onnxruntime.InferenceSession(str(artifact.model_path), providers=["CPUExecutionProvider"])
        given, size = as_stored(images, artifact.input), artifact.input.batch or len(images)
        rounds = [engine.run(None, {"images": given[at : at + size]})[0] for at in range(0, len(given), size)]
        outputs = np.concatenate(rounds)
    np.save(out, outputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
