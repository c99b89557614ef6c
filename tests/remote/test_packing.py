"""A packed file proves and times its models where there is Python, NumPy and an engine, and no vit-deploy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

import vit_deploy
from vit_deploy.errors import ArtifactError, ConfigError, OutputError, UsageError
from vit_deploy.remote.contents import Asked, Use, modules_on_device
from vit_deploy.remote.packing import ROOT, pack
from vit_deploy.runtimes import installed_takers


@pytest.fixture(scope="module")
def unpacked(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device")
    pack([bundles["onnx"], bundles["tflite"]], folder / "models.tar.gz")
    with tarfile.open(folder / "models.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / ROOT


def on_device(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -I: neither the environment's variables nor its own folder lead to the vit_deploy that is tested.
    code = (
        "import sys, runpy\n"
        "class Refused:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('typer', 'rich', 'tensorflow', 'keras', 'onnx', 'h5py'):\n"
        "            raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Refused())\n"
        f"sys.argv = ['run.py', *{list(arguments)!r}]\n"
        f"runpy.run_path({str(folder / 'run.py')!r}, run_name='__main__')\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=folder.parent, env=environment
    )


def test_the_same_bundles_give_the_same_bytes(bundles: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a.tar.gz", "b.tar.gz"):
        pack([bundles["onnx"]], tmp_path / name)
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "b.tar.gz").read_bytes()


def test_nothing_of_the_workstation_is_packed(unpacked: Path) -> None:
    packages = {path.name for path in (unpacked / "vit_deploy").iterdir() if path.is_dir()}
    assert packages & {"cli", "model", "exporters", "compression", "checkpoints"} == set()
    assert {"runtimes"} <= packages


@pytest.mark.parametrize(("format", "most"), [("tflite", 62), ("savedmodel", 65), ("tensorrt", 72), ("onnx", 84)])
def test_few_modules_are_packed(format: str, most: int) -> None:
    """Whoever imports another one on a device sees here what that brings there."""
    assert len(modules_on_device(Use((format,)))) <= most


@pytest.mark.parametrize(
    ("format", "most"),
    [
        ("tflite", {"verify": 42, "bench": 50, "predict": 35, "evaluate": 34}),
        ("onnx", {"verify": 52, "bench": 59, "predict": 45, "evaluate": 44}),
    ],
)
def test_no_more_is_sent_than_one_command_imports(format: str, most: dict[str, int]) -> None:
    """By `--on`, which knows what is asked; on a GPU ONNX Runtime takes some more."""
    for command, bound in most.items():
        asked = Asked((command,), on_gpus=False, profiles=False, looks_for_batch=False)
        use = Use((format,), asked, with_images=command in ("predict", "evaluate"))
        assert len(modules_on_device(use)) <= bound, command


def test_an_archive_for_one_command_has_no_other(bundles: dict[str, Path], tmp_path: Path) -> None:
    vit_deploy.bundle(bundles["tflite"], tmp_path / "models.tar.gz", commands=["verify"])
    with tarfile.open(tmp_path / "models.tar.gz") as archive:
        assert sum(name.endswith(".py") for name in archive.getnames()) <= 47
        archive.extractall(tmp_path, filter="data")
    assert on_device(tmp_path / ROOT, "verify").returncode == 0
    done = on_device(tmp_path / ROOT, "bench")
    assert done.returncode == 2 and "invalid choice: 'bench'" in done.stderr
    with pytest.raises(UsageError, match="the runner has no command 'verfy'") as refused:
        vit_deploy.bundle(bundles["tflite"], tmp_path / "other.tar.gz", commands=["verfy"])
    assert refused.value.fix == "did you mean 'verify'?"


def test_models_are_proven_on_the_device(unpacked: Path, bundles: dict[str, Path]) -> None:
    done = on_device(unpacked, "verify", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["command"] == "verify" and document["ok"]
    assert [result["artifact"] for result in document["results"]] == [str(bundles["onnx"]), str(bundles["tflite"])]
    assert all(0 <= result["metrics"]["max_abs"] < 1e-4 for result in document["results"])


def test_models_are_timed_on_the_device_and_told_plainly(unpacked: Path, tmp_path: Path) -> None:
    done = on_device(unpacked, "bench", "--runs", "4", "--batch", "2", "--output", str(tmp_path / "result.json"))
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "result.json").read_text())["results"]
    runtimes = [*installed_takers("onnx"), *installed_takers("tflite")]
    assert {"onnxruntime", "litert"} <= set(runtimes)
    assert [(result["runtime"], result["batch"], len(result["samples_ns"])) for result in results] == [
        (runtime, 2, 4) for runtime in runtimes
    ]
    plain = on_device(unpacked, "bench", "--runs", "2", "--runtime", "onnxruntime")
    assert plain.returncode == 2  # the other one is a TFLite file
    assert "onnxruntime does not run" in plain.stderr
    assert "verify" in on_device(unpacked, "--help").stdout


def test_a_changed_model_fails_on_the_device(bundles: dict[str, Path], tmp_path: Path) -> None:
    pack([bundles["onnx"]], tmp_path / "models.tar.gz")
    with tarfile.open(tmp_path / "models.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    [golden] = (tmp_path / ROOT / "artifacts").glob("*/golden.npz")
    golden.write_bytes(b"other")
    done = on_device(tmp_path / ROOT, "verify", "--json")
    assert done.returncode == 2
    assert "golden.npz has" in json.loads(done.stdout)["error"]["message"]
    assert "Traceback" not in done.stderr


def test_what_cannot_be_packed_is_refused(bundles: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing to pack"):
        pack([], tmp_path / "a.tar.gz")
    with pytest.raises(ArtifactError, match="is not an artifact"):
        pack([tmp_path], tmp_path / "a.tar.gz")
    (tmp_path / "there.tar.gz").touch()
    with pytest.raises(OutputError, match="already there"):
        pack([bundles["onnx"]], tmp_path / "there.tar.gz")
    assert not (tmp_path / "a.tar.gz").exists()
