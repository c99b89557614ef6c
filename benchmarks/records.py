"""What does a stored result say about the run that made it, and how is it kept?"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import versions
from vit_deploy.core.host import read_host

Result = Mapping[str, Any]
"""What one file under `results` holds, in plain JSON values."""

RESULTS = Path(__file__).parent / "results"
SCHEMA = 1
LIBRARIES = (
    "keras",
    "tensorflow-cpu",
    "tensorflow",
    "tf2onnx",
    "onnx",
    "onnxruntime",
    "onnxruntime-gpu",
    "ai-edge-litert",
    "torch",
    "timm",
    "transformers",
    "open_clip_torch",
    "onnxscript",
    "litert-quantizer",
    "scikit-learn",
    "tf_keras",
    "tensorflow-model-optimization",
)


def run_facts() -> dict[str, Any]:
    """When and where, read before anything is measured: the host with its load, and what is installed."""
    return {
        "schema": SCHEMA,
        "started": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "host": read_host().to_dict(),
        "versions": versions(*LIBRARIES),
    }


def store(result: Result, path: Path) -> None:
    """Write it, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")
    partial.replace(path)


def read(folder: Path) -> dict[str, Result]:
    """All results of a folder by their names, in the order of these."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}


def facts_line(result: Result) -> str:
    """When, on what, under which load and with which versions, for readers."""
    host = result["host"]
    loads = [load for entry in result.get("latency", ()) for load in entry.get("load_1m", ())]
    if loads:
        load = f", load average {min(loads):.1f} to {max(loads):.1f} while timing (the timed process included)"
    else:
        load = "" if host.get("load_1m") is None else f", load average {host['load_1m']:.1f} at the start"
    took = f", measured in {result['took_s'] / 60:.1f} minutes" if "took_s" in result else ""
    installed = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    machine = f"{host['cpu']}, {host['cores']:g} cores, Python {host['python']}"
    return f"{result['started']}{took}, {machine}{load}. {installed}."
