"""Streams that are closed, full or interrupted, and names of files that are no UTF-8."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def environment(**changes):
    return {**os.environ, **changes}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("arguments", [["--version"], ["verify", "--help"], ["verify", "nowhere", "--json"]])
def test_output_that_cannot_be_written_is_bad_output_and_no_traceback(arguments, stream):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "vit_deploy", *arguments], text=True, **{**streams, stream: full})
    said = done.stderr or ""
    assert "Traceback" not in said
    if stream == "stdout":
        assert done.returncode == 2
        assert "vit-deploy: cannot write the output: No space left on device\n  fix: " in said
    else:
        assert done.returncode == (2 if "nowhere" in arguments else 0)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell of POSIX")
def test_streams_that_the_caller_closed_take_nothing_away():
    program = f"{sys.executable} -m vit_deploy"
    assert subprocess.run(f"{program} --version >&- 2>&- <&-", shell=True).returncode == 0
    done = subprocess.run(f"{program} verify nowhere --json >&-", shell=True, stderr=subprocess.PIPE)
    assert done.returncode == 2 and b"Traceback" not in done.stderr


@pytest.mark.parametrize("module", ["vit_deploy.cli.output", "typer", "vit_deploy.cli.app", "vit_deploy.core.staging"])
def test_an_interrupt_while_modules_are_imported_is_one_line_and_exit_130(module, tmp_path):
    program = f"""
import sys
class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupting())
from vit_deploy.cli import main
main(["bundle", "nowhere", "-o", {str(tmp_path / "out.tar.gz")!r}])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "interrupted; nothing half-written was left behind\n")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are text there")
def test_names_of_files_that_are_no_utf8_are_bad_input(run, bundles, tmp_path):
    for format in ("onnx", "tflite", "savedmodel"):
        odd = tmp_path / os.fsdecode(b"caf\xe9") / format
        shutil.copytree(bundles[format], odd)
        for command in (["verify", odd], ["verify", odd, "--json"], ["bench", odd, "--seconds", "0.1"]):
            result = run(*command)
            assert result.code == 2, command
            assert "no UTF-8" in result.err and "Traceback" not in result.err
        assert run("inspect", odd).code == 0
    result = run("quantize", bundles["tflite"], "-p", "int8", "-o", tmp_path / os.fsdecode(b"caf\xe9") / "out")
    assert result.code == 2 and "no UTF-8" in result.err
    assert not (tmp_path / os.fsdecode(b"caf\xe9") / "out").exists()
