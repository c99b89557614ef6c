"""Commands run on other machines and tell of all in one table; artifacts are packed for one."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.remote.sshd import SSHD, Server, free_port, serve

needs_sshd = pytest.mark.skipif(SSHD is None, reason="needs OpenSSH's server")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@needs_sshd
def test_commands_run_on_several_machines_in_one_table(
    run: Any, server: Server, bundles: dict[str, Path], tmp_path: Path
) -> None:
    python = ["--remote-python", sys.executable, "--ssh-config", server.config, "--timeout", 90]
    other = server.url.replace("127.0.0.1", "localhost")
    said = run("bench", bundles["onnx"], "--on", server.url, "--on", other, "--runs", 4, *python, "--json")
    assert said.code == 0, said.err
    assert [each["on"] for each in said.document["results"]] == [server.url, other]
    assert all(len(each["samples_ns"]) == 4 for each in said.document["results"])
    said = run("verify", bundles["onnx"], bundles["tflite"], "--on", server.url, *python)
    assert said.code == 0, said.err
    assert said.out.count(server.url) == 2 and "same" in said.out
    away = f"ssh://{getpass.getuser()}@127.0.0.1:{free_port()}"
    said = run("verify", bundles["onnx"], "--on", server.url, "--on", away, *python, "--json")
    assert said.code == 1 and len(said.document["results"]) == 1 and "cannot be reached" in said.err
    assert run("verify", bundles["onnx"], "--on", away, *python).code == 2


def test_the_command_packs(run: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    said = run("bundle", bundles["onnx"], "-o", tmp_path / "models.tar.gz", "--json")
    assert said.code == 0
    [result] = said.document["results"]
    assert result["bytes"] == (tmp_path / "models.tar.gz").stat().st_size
    assert json.dumps(result["artifacts"]) == json.dumps([str(bundles["onnx"])])
    assert run("bundle", bundles["onnx"], "-o", tmp_path / "models.tar.gz").code == 2
    assert run("bundle", bundles["onnx"], "-o", tmp_path / "models.zip").code == 2
    assert [each.name for each in tmp_path.iterdir()] == ["models.tar.gz"]
