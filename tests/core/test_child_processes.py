"""No process that a command starts imports what lies in the working directory."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import vit_deploy
from tests.linear_bundle import write_bundle
from vit_deploy.cli import run
from vit_deploy.compression.stage import _run
from vit_deploy.compression.training_folder import TrainingFolder
from vit_deploy.core.child_processes import ending, isolated_spawning, python, was_killed
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import EngineError
from vit_deploy.performance.bench import Case, Plan, bench
from vit_deploy.performance.process import WORKER, CaseProcess
from vit_deploy.performance.profilers import profile
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.verification import checks
from vit_deploy.verification.golden import read_golden

PLANTED = """
open(__file__.rpartition("/")[0] + "/ran.txt", "ab").write(__name__.encode() + b"\\n")
raise SystemExit("the working directory's " + __name__)
"""
# What Python has loaded before it looks at any path of its own cannot be taken from elsewhere.
BUILT_IN = {"sys", "builtins", "_frozen_importlib", *sys.builtin_module_names}


@pytest.fixture
def planted(tmp_path, monkeypatch) -> Path:
    """A working directory with a module of every installed library's name, and of every one of Python's own."""
    folder = tmp_path / "planted"
    folder.mkdir()
    names = {*packages_distributions(), *sys.stdlib_module_names} - BUILT_IN - {"vit_deploy", "tests"}
    for name in names:
        if name.isidentifier():
            (folder / f"{name}.py").write_text(PLANTED)
    monkeypatch.chdir(folder)
    return folder / "ran.txt"


def test_a_case_that_is_timed_or_profiled_runs_nothing_of_the_working_directory(planted, tmp_path):
    case = Case(write_bundle(tmp_path / "onnx-fp32"), "onnxruntime", "cpu", batch=2)
    assert bench([case], Plan(seconds=None, runs=1, rounds=1, warmup=1))
    assert profile(case).operators
    assert not planted.exists()


def test_doctor_runs_nothing_of_the_working_directory(planted, capfd):
    assert run(["doctor", "--json"]) in (0, 1)
    assert not planted.exists()


def test_a_process_that_is_spawned_runs_nothing_of_the_working_directory(planted, tmp_path, monkeypatch):
    # Engines that take their threads once are asked in such a process, and any will do to see what that imports.
    keeping = dataclasses.replace(FORMATS.runtimes()["onnxruntime"], keeps_threads=True)
    monkeypatch.setitem(FORMATS._records, "onnx", dataclasses.replace(FORMATS["onnx"], runtimes=(keeping,)))
    artifact = read_artifact(write_bundle(tmp_path / "onnx-fp32"))
    images = read_golden(artifact).images
    assert len(checks._answer_with(artifact, "onnxruntime", RuntimeOptions(threads=1), images)) == len(images)
    assert not planted.exists()


@pytest.mark.slow
@pytest.mark.skipif("tensorflow_model_optimization" not in packages_distributions(), reason="needs what trains")
def test_compress_runs_nothing_of_the_working_directory(planted, tmp_path):
    # Without a job there the worker says so, once all that it needs is imported.
    with pytest.raises(EngineError, match="training ended") as error:
        _run(TrainingFolder(tmp_path, None), lambda doing: None, lambda record: None)
    assert "FileNotFoundError" in str(error.value)
    assert not planted.exists()


def test_the_modules_that_are_planted_would_run_without_this(planted):
    for program in (WORKER[2:], ["-c", "import keras"]):
        subprocess.run([sys.executable, *program], capture_output=True, env={"PATH": "/bin"})
    assert "keras" in planted.read_text()


def test_spawning_leaves_the_environment_as_it_was(monkeypatch):
    for before in ({}, {"PYTHONSAFEPATH": "0"}):
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        for name, value in before.items():
            monkeypatch.setenv(name, value)
        with isolated_spawning():
            assert os.environ["PYTHONSAFEPATH"] == "1"
        assert os.environ.get("PYTHONSAFEPATH") == before.get("PYTHONSAFEPATH")


def test_one_module_makes_the_commands_of_all_processes():
    root = Path(vit_deploy.__file__).parent
    makes = re.compile(r"\[\s*\*?\(?sys\.executable|\(\s*sys\.executable,\s*[\"*]")
    found = [path for folder in (root, root.parent / "benchmarks") for path in folder.rglob("*.py")]
    assert [path.name for path in found if makes.search(path.read_text(encoding="utf-8"))] == ["child_processes.py"]
    spawning = [path.name for path in root.rglob("*.py") if "ProcessPoolExecutor(" in path.read_text(encoding="utf-8")]
    assert spawning == ["checks.py"]
    assert python("-m", "this")[1] == "-P"


def test_how_a_process_ended_is_told_on_systems_with_other_signals(monkeypatch):
    assert ending(3) == "exit 3" and ending(-9) == "killed by SIGKILL" and was_killed(-9) and not was_killed(3)
    assert ending(-40) == "killed by signal 40"  # of real time, which has no name
    assert ending(0xC0000005) == "exit 0xC0000005"
    monkeypatch.delattr(signal, "SIGKILL")  # as on Windows
    assert not was_killed(1) and not was_killed(-9)


def test_a_worker_that_dies_on_a_system_without_sigkill_is_an_error(monkeypatch, tmp_path):
    with CaseProcess("the case", 60, python("-c", "import sys; sys.exit(3)")) as process:
        process._process.wait()
        process._process.kill = lambda: None
        monkeypatch.delattr(signal, "SIGKILL")
        with pytest.raises(EngineError, match=r"the case: .*exit 3"):
            process.ask({})
