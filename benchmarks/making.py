"""How are all precisions of a model made, as a user makes them?"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.processes import ROOT, environment
from vit_deploy.core.child_processes import python

FORMATS = ("onnx", "tflite")
PRECISIONS = ("fp32", "fp16", "int8", "int8-static", "int8-full", "int16x8", "int4")


def make_all(model: Sequence[str], folder: Path, calibrate: Path | None = None) -> list[dict[str, Any]]:
    """Every precision of every format in `folder`.

    Args:
        model: a checkpoint file, or a scale's name with its options.
        folder: for the artifacts.
        calibrate: images; None for the bundled sample images.

    Returns:
        What `vit-deploy export --json` says of each.

    Raises:
        CalledProcessError: it failed; `output` holds what it said.
    """
    asked = [*(f"--format={each}" for each in FORMATS), *(f"--precision={precision}" for precision in PRECISIONS)]
    images = [] if calibrate is None else ["--calibrate", str(calibrate)]
    command = python("-m", "vit_deploy", "export", *model, *asked, *images, "-o", str(folder))
    said = subprocess.run(
        [*command, "--force", "--json", "--quiet", "--no-speed"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
    )
    if said.returncode == 2 or not said.stdout:
        raise subprocess.CalledProcessError(said.returncode, command, output=said.stderr)
    results: list[dict[str, Any]] = json.loads(said.stdout)["results"]
    return results


def name_of(result: dict[str, Any]) -> str:
    """`<format>-<precision>`."""
    return f"{result['format']}-{result['precision']}"
