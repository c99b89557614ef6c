"""The packed runner says what a device lacks, whatever its Python, and packs nothing but the artifacts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from tests.remote.conftest import environment
from vit_deploy.remote.device import OLDEST
from vit_deploy.remote.packing import ROOT, RUNNER, pack


def unpacked(package: Path, folder: Path) -> Path:
    with tarfile.open(package) as archive:
        archive.extractall(folder, filter="data")
    return folder / ROOT / "run.py"


def said(python: Path | str, *words: object) -> tuple[int, str, str]:
    done = subprocess.run([python, *map(str, words)], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_device_may_have_a_python_older_than_what_exports() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == ">=3.11"
    assert OLDEST == (3, 10)


def test_an_older_python_is_told_so(tmp_path: Path) -> None:
    # What decides is in front of everything that an older one could not read.
    script = tmp_path / "run.py"
    script.write_text(f"import sys\nsys.version_info = (3, 9, 2)\n{RUNNER}")
    code, out, err = said(sys.executable, script, "verify")
    assert code == 2 and not out
    assert f"{sys.executable} is Python 3.9\n  fix: run it with Python 3.10 or later" in err
    beginning = RUNNER.partition("try:")[0]
    assert "f'" not in beginning and 'f"' not in beginning and "pathlib" not in beginning


def test_what_a_device_lacks_is_said(package: Path, tmp_path: Path) -> None:
    script = unpacked(package, tmp_path)
    bare = environment(tmp_path / "bare")
    code, _, err = said(bare, script, "verify")
    assert code == 2 and f"{bare} has no NumPy that it can import" in err and f"{bare} -m pip install numpy" in err
    counting = environment(tmp_path / "counting", "numpy")
    for command in ("verify", "bench"):
        code, _, err = said(counting, script, command)
        assert code == 2
        assert f"{counting} has no ai_edge_litert, onnxruntime" in err
        assert f"{counting} -m pip install ai-edge-litert onnxruntime" in err


def test_options_that_cannot_be_are_refused(
    package: Path, tmp_path: Path, device_python: Path, bundles: dict[str, Path]
) -> None:
    script = unpacked(package, tmp_path)
    code, _, err = said(device_python, script, "bench", "--batch", "1,x")
    assert code == 2 and "'1,x'; expected positive numbers as 1 or 1,2,8" in err
    code, _, err = said(device_python, script, "verify", "--runtime", "onnx")
    assert code == 2 and "unknown runtime 'onnx'" in err
    code, _, err = said(device_python, script, "verify", "--runtime", "litert")
    assert code == 2 and f"litert does not run {bundles['onnx']}/model.onnx" in err  # as it was called at home
    code, out, err = said(device_python, script, "verify", "--quick", "--threads", "1")
    assert code == 0, err
    assert len(re.findall(r": same, largest difference \d\.\de-\d\d, tolerance \d\.\de-\d\d$", out, re.MULTILINE)) == 2


def test_what_operators_take_is_told_plainly_too(package: Path, tmp_path: Path, device_python: Path) -> None:
    code, out, err = said(device_python, unpacked(package, tmp_path), "bench", "--runs", "2", "--profile")
    assert code == 0, err
    assert re.search(r"^  MatMul: \d+\.\d{3} ms \(\d+%\) in \d+ calls$", out, re.MULTILINE)


@pytest.mark.slow
def test_a_batch_is_searched_and_cases_are_freed_in_turn_there_too(
    package: Path, tmp_path: Path, device_python: Path
) -> None:
    script, result = unpacked(package, tmp_path), tmp_path / "result.json"
    options = ["--runs", 2, "--timeout", 900, "--output", result]
    code, _, err = said(device_python, script, "bench", "--under", "1us", *options)
    assert code == 0, err
    records = json.loads(result.read_text())["results"]
    assert [record["largest_under"]["batch"] for record in records] == [None, None]
    code, _, err = said(device_python, script, "bench", "--one-at-a-time", *options)
    assert code == 0, err
    plans = [each["plan"] for each in json.loads(result.read_text())["results"]]
    assert [(plan["one_at_a_time"], plan["timeout_s"]) for plan in plans] == [(True, 900.0)] * 2
    code, _, err = said(device_python, script, "bench", "--cuda-graph")
    assert code == 2 and "no case runs on a GPU" in err
    assert said(device_python, script, "bench", "--under", "soon")[0] == 2


def test_only_what_the_manifest_lists_is_packed(bundles: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(bundles["onnx"], tmp_path / "bundle")
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "notes.txt").write_text("notes")
    pack([folder], tmp_path / "models.tar.gz")
    with tarfile.open(tmp_path / "models.tar.gz") as archive:
        names = {Path(name).name for name in archive.getnames() if "/artifacts/0-bundle/" in name}
        assert all(getmember.isfile() for getmember in archive.getmembers())
    assert names == {"artifact.json", "golden.npz", "model.onnx"}
