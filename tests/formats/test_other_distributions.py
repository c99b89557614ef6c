"""A format that another distribution adds is a format like any other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from vit_deploy.core.format import GROUP, Formats
from vit_deploy.core.format_table import ONNX, TFLITE
from vit_deploy.errors import ConfigError

TOY = Path(__file__).parent / "toy_format"
ROOT = Path(__file__).parents[2]


def install(folder, name, entry, text=None):
    """A distribution as it lies in `site-packages`, with one entry point and perhaps a module of that text."""
    about = folder / f"{name}-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[{GROUP}]\n{entry}\n")
    if text is not None:
        (folder / f"{name}.py").write_text(text)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    install(folder, "toy_format", "toy = toy_format:TOY")
    shutil.copytree(TOY, folder / "toy_format", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def vit_deploy(site, tmp_path_factory):
    """Runs the command line where the distribution is installed."""
    home = tmp_path_factory.mktemp("home")
    paths = os.pathsep.join((str(site), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": paths, "KERAS_BACKEND": "tensorflow"}

    def run(*arguments, code=0):
        command = [sys.executable, "-m", "vit_deploy", *map(str, arguments), "--json"]
        done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    run.home = home
    return run


@pytest.fixture(scope="module")
def exported(vit_deploy):
    found = vit_deploy("export", "pico", "--image-size", "32x48", "--format", "toy", "-o", "out")
    return found["results"]


def test_it_is_exported_with_its_proof(vit_deploy, exported):
    (result,) = exported
    assert (result["path"], result["format"], result["parity"]["ok"]) == ("out/toy-fp32", "toy", True)
    names = {path.name for path in (vit_deploy.home / "out" / "toy-fp32").iterdir()}
    assert names == {"model.toy", "artifact.json", "golden.npz"}


@pytest.mark.usefixtures("exported")
def test_it_is_verified(vit_deploy):
    (result,) = vit_deploy("verify", "out/toy-fp32")["results"]
    assert (result["runtime"], result["ok"]) == ("toy-numpy", True)
    assert result["metrics"]["cosine"] > 0.999999


@pytest.mark.usefixtures("exported")
def test_it_is_inspected_in_its_artifact_and_alone(vit_deploy):
    for path, kind in (("out/toy-fp32", "bundle"), ("out/toy-fp32/model.toy", "model file")):
        (found,) = vit_deploy("inspect", path)["results"]
        assert (found["kind"], found["format"], found["operators"]) == (kind, "toy", {"ViT": 1})
        assert found["inputs"] == [{"name": "images", "dtype": "float32", "shape": [None, 32, 48, 3]}]
        assert found["accelerators"] is None and found["cuda"] is None


@pytest.mark.usefixtures("exported")
def test_it_is_timed_in_processes_of_its_own(vit_deploy):
    command = ("bench", "out/toy-fp32", "--batch", "2", "--runs", "2", "--profile")
    (result,) = vit_deploy(*command)["results"]
    assert (result["runtime"], result["provider"], result["batch"]) == ("toy-numpy", "cpu", 2)
    assert len(result["samples_ns"]) == 2 and result["profile"] is None
    assert "no profile: NumPy's calls are not timed" in result["notes"]


@pytest.mark.slow
@pytest.mark.usefixtures("exported")
def test_what_it_does_not_have_is_refused_in_words(vit_deploy):
    for arguments, message in {
        ("export", "pico", "-f", "toy", "-p", "int8"): "toy has none of the precisions int8",
        (
            "export",
            "pico",
            "-f",
            "toy",
            "--opset",
            "18",
        ): "--layout, --opset and --for shape ONNX files",
        ("quantize", "out/toy-fp32", "-p", "int8", "-o", "less"): "toy cannot be quantized to 'int8'",
        ("verify", "out/toy-fp32", "--runtime", "litert"): "litert does not run out/toy-fp32/model.toy",
        ("bundle", "out/toy-fp32", "-o", "packed.tar.gz"): "what runs there is in toy_format.engine",
    }.items():
        assert message in vit_deploy(*arguments, code=2)["error"]["message"]


def formats_in(folder, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(
        metadata,
        "entry_points",
        lambda group: metadata.EntryPoints(
            entry for dist in metadata.distributions(path=[str(folder)]) for entry in dist.entry_points
        ).select(group=group),
    )
    return Formats((ONNX, TFLITE))


def test_a_distribution_that_is_out_of_step_is_named(tmp_path, monkeypatch):
    wrong = {
        "away": ("x = away_module:X", None, "cannot be imported: No module named 'away_module'"),
        "bare_of_it": ("x = bare_of_it:X", "", "has no attribute 'X'"),
        "other_kind": ("x = other_kind:X", "X = 3", "names an object of type int as a format"),
        "again": (
            "x = again:X",
            "from vit_deploy.core.format_table import ONNX as X",
            "'onnx', which there is already",
        ),
    }
    for name, (entry, text, message) in wrong.items():
        folder = tmp_path / name
        install(folder, name, entry, text)
        with monkeypatch.context() as patch, pytest.raises(ConfigError) as caught:
            list(formats_in(folder, patch))
        assert message in caught.value.message and f"{name} 1.0" in caught.value.message
        assert caught.value.fix


def test_formats_of_others_come_behind_those_of_the_package(site, monkeypatch):
    assert list(formats_in(site, monkeypatch)) == ["onnx", "tflite", "toy"]
