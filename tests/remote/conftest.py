"""Fixtures of the tests on another machine, which is this one behind a real OpenSSH server."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.remote.sshd import SSHD, Server, serve
from vit_deploy.remote.packing import pack

ON_A_DEVICE = ("numpy", "onnxruntime", "ai-edge-litert", "flatbuffers", "typing_extensions")


def environment(folder: Path, *distributions: str) -> Path:
    """The Python of an environment that has these alone, out of those that are installed here."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    [site] = folder.glob("lib/python*/site-packages")
    for name in distributions:
        files = importlib.metadata.distribution(name).files or ()
        for top in {file.parts[0] for file in files if not file.parts[0].startswith((".", "__"))}:
            original = Path(str(importlib.metadata.distribution(name).locate_file(top)))
            (site / top).symlink_to(original)
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def device_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python, NumPy and two engines; neither TensorFlow nor Pillow nor what the command line takes."""
    return environment(tmp_path_factory.mktemp("device") / "env", *ON_A_DEVICE)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for a file of tests."""
    if SSHD is None:
        pytest.skip("needs OpenSSH's server")
    with serve(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="session")
def package(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two artifacts, packed."""
    path = tmp_path_factory.mktemp("package") / "models.tar.gz"
    pack([bundles["onnx"], bundles["tflite"]], path)
    return path
