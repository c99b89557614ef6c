"""JavaScript of the package, run by Node; its tests are skipped where there is none."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node")


def module(name: str) -> str:
    """Address of one of the package's modules, for an import."""
    return Path(str(files("vit_deploy.web") / name)).as_uri()


def run(script: str, *arguments: str) -> bytes:
    """What a script writes; `process.argv.slice(1)` are its arguments."""
    command = ["node", "--input-type=module", "--eval", script, "--", *arguments]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
