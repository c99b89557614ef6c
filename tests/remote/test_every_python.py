"""The archive on every Python that a device may have and that this machine has, with wheels of the engines for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.environments import clean, environment
from vit_deploy.remote.device import OLDEST
from vit_deploy.remote.packing import ROOT

pytestmark = pytest.mark.slow

NEWEST = (3, 14)
PLANTED = "raise SystemExit('the working directory is imported from')\n"


def interpreters() -> Iterator[Path]:
    """One of each version: those of pyenv, then those on the path."""
    found = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.*/bin/python3")
    candidates = {tuple(map(int, path.parents[1].name.split(".")[:2])): path for path in sorted(found)}
    for minor in range(OLDEST[1], NEWEST[1] + 1):
        version = (3, minor)
        if version == sys.version_info[:2]:
            continue  # all other tests run on it
        path = candidates.get(version) or shutil.which(f"python3.{minor}")
        if path is not None:
            yield Path(path)


@pytest.mark.parametrize("interpreter", interpreters(), ids=lambda path: path.parents[1].name)
def test_the_archive_is_proven_and_timed(interpreter: Path, package: Path, tmp_path: Path) -> None:
    wheels = ["numpy", "onnxruntime", "ai-edge-litert"]
    python = environment(tmp_path / "env", "--only-binary=:all:", *wheels, interpreter=interpreter) / "python"
    with tarfile.open(package) as archive:
        archive.extractall(tmp_path, filter="data")
    planted = tmp_path / "planted"
    planted.mkdir()
    for name in ("random", "json", "numpy", "onnxruntime", "multiprocessing", "runpy", "vit_deploy"):
        (planted / f"{name}.py").write_text(PLANTED)

    def run(*arguments: str) -> dict[str, object]:
        command = [python, tmp_path / ROOT / "run.py", *arguments, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, env=clean(), cwd=planted)
        assert done.returncode == 0, done.stdout + done.stderr
        return json.loads(done.stdout)

    proven = run("verify")
    assert [record["verdict"] for record in proven["results"]] == ["same", "same"]
    assert proven["ok"]
    timed = run("bench", "--runs", "5", "--threads", "1", "--profile")
    assert [len(record["samples_ns"]) for record in timed["results"]] == [5, 5]
    assert all(record["profile"] for record in timed["results"])
