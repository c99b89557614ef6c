"""A file whose weights lie beside it, in a browser: whether it is right there, and what loading it takes."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, environment
from benchmarks.progress import progress
from benchmarks.records import run_facts
from benchmarks.sizes import Size
from vit_deploy.core.child_processes import python
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import EngineError
from vit_deploy.exporters.onnx.write import EXTERNAL_LIMIT
from vit_deploy.runtimes import ClockedSession, RuntimeOptions, open_session
from vit_deploy.verification.golden import read_golden
from vit_deploy.verification.verifying import verify

FILE = "onnx-fp32"


def is_large(size: Size) -> bool:
    """Whether the weights of the model in fp32 are written beside its file."""
    config = size.config
    return 4 * 12 * config.num_layers * config.embed_dim**2 >= EXTERNAL_LIMIT


def measure_large(size: Size, folder: Path, runtime: str) -> dict[str, Any]:
    """The verdict of the file in fp32, and what opening it takes.

    Args:
        size: the model.
        folder: for its file.
        runtime: that opens a browser.
    """
    facts = run_facts()
    progress(f"{size.name}: making {FILE}")
    command = python("-m", "vit_deploy", "export", *size.arguments, "--format", "onnx", "--no-speed", "-o", str(folder))
    subprocess.run([*command, "--quiet"], cwd=ROOT, env=environment(), check=True, capture_output=True)
    artifact = read_artifact(folder / FILE)
    beside = [path for path in artifact.directory.iterdir() if path.name.startswith(f"{artifact.model_path.name}.")]
    entry: dict[str, Any] = {"file": FILE, "bytes": artifact.model_bytes}
    entry |= {"beside_bytes": sum(path.stat().st_size for path in beside), "error": None}
    progress(f"{size.name}: {FILE} in a browser")
    try:
        found = verify(artifact, runtime=runtime)
    except EngineError as error:
        refused = {**entry, "verdict": "refused", "error": error.message.replace(f"{artifact.model_path} ", "")}
        return {**facts, "size": size.name, "browser": "", "packages": [], "files": [refused], "calls": []}
    metrics = {"max_abs": found.parity.max_abs, "tolerance": found.parity.tolerance.held()["max_abs"]}
    entry |= {"verdict": found.verdict, **metrics, "verify_s": found.seconds, **_opened(artifact, runtime)}
    return {
        **{**facts, "size": size.name, "browser": found.engine["browser"], "packages": found.engine["packages"]},
        **{"files": [entry], "calls": []},
    }


def _opened(artifact: Any, runtime: str) -> dict[str, Any]:
    """Milliseconds of loading and of one call, and the most memory of all processes of the browser."""
    images = read_golden(artifact).images[:1]
    with open_session(artifact, runtime, RuntimeOptions()) as session:
        assert isinstance(session, ClockedSession)
        begun = time.perf_counter()
        session.infer(images)
        call_ms = (time.perf_counter() - begun) * 1e3
        return {"load_ms": session.load_ns / 1e6, "call_ms": call_ms, "peak_mb": session.peak_mb()}
