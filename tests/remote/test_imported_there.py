"""An archive holds what is imported on a device, and nothing else: every command is run, every import written down."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from vit_deploy.core.manifest import read_artifact
from vit_deploy.remote.contents import Asked
from vit_deploy.remote.packing import ROOT, pack

pytestmark = pytest.mark.slow

# At the end of the package that travels: it is the first of it that any of its processes imports.
WITNESS = """

import os, sys


class Witness:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.startswith("vit_deploy."):
            with open(os.environ["IMPORTED"], "a") as file:
                file.write(name + "\\n")


sys.meta_path.insert(0, Witness)
"""


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_what_travels_is_imported(format: str, bundles: dict[str, Path], tmp_path: Path) -> None:
    pack([bundles[format]], tmp_path / "models.tar.gz", asked=Asked(on_gpus=False))
    with tarfile.open(tmp_path / "models.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    there = tmp_path / ROOT
    files = {path for path in (there / "vit_deploy").rglob("*.py") if path != there / "vit_deploy" / "__init__.py"}
    with (there / "vit_deploy" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write(WITNESS)
    config = read_artifact(bundles[format]).config
    images = np.random.default_rng(0).integers(0, 256, (2, *config.image_size, config.channels), np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=np.array([0, 1]))
    (tmp_path / "image.png").write_bytes(b"no image, of which the commands tell and go on")
    for words in (
        ("verify",),
        ("bench", "--runs", "2", "--profile"),
        ("bench", "--runs", "2", "--under", "1us"),
        ("predict", str(tmp_path / "image.png")),
        ("evaluate", "--data", str(tmp_path / "data.npz")),
    ):
        code = _run(there, tmp_path / "imported.txt", *words)
        assert code == (1 if words[0] == "predict" else 0)
    seen = set((tmp_path / "imported.txt").read_text().split())
    packed = {".".join(path.relative_to(there).with_suffix("").parts).removesuffix(".__init__") for path in files}
    assert packed - seen == set()
    found_nowhere = {name for name in seen - packed if not (there / Path(*name.split("."))).is_dir()}
    assert found_nowhere == {"vit_deploy.verification.arm_half"}  # which is looked for wherever files are proven


def _run(there: Path, imported: Path, *words: str) -> int:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment = kept | {"IMPORTED": str(imported)}
    done = subprocess.run(
        [sys.executable, "-P", there / "run.py", *words], capture_output=True, text=True, cwd=there, env=environment
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode
