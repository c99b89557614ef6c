"""Environments with a few distributions each, made by the pip of this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

# Only what is imported there gets compiled, by whoever imports it first.
INSTALL = ("install", "--quiet", "--no-compile")


def clean() -> dict[str, str]:
    """The variables of this process without those by which it found its own environment."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


def environment(folder: Path, *wanted: str | Path, interpreter: str | Path = sys.executable) -> Path:
    """The folder of programs of a new environment with nothing but `wanted`, words that `pip install` takes."""
    subprocess.run([interpreter, "-m", "venv", "--without-pip", folder], check=True, env=clean())
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    subprocess.run([*_pip(programs), *INSTALL, *map(str, wanted)], check=True, env=clean())
    return programs


def versions(programs: Path) -> dict[str, str]:
    """Those of the distributions of an environment, by their names in lower case with hyphens."""
    listed = json.loads(subprocess.check_output([*_pip(programs), "list", "--format", "json"], env=clean()))
    return {each["name"].lower().replace("_", "-"): each["version"] for each in listed}


def wheel(project: Path, folder: Path) -> Path:
    """A project's wheel, built once for several environments."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, project]
    subprocess.run(command, check=True, env=clean())
    [built] = folder.glob("*.whl")
    return built


def _pip(programs: Path) -> list[str]:
    return [sys.executable, "-m", "pip", "--python", str(programs / "python")]
