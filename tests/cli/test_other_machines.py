"""Commands run on other machines and tell of all in one table; artifacts are packed for one."""

from __future__ import annotations

import getpass
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.remote.sshd import SSHD, Server, free_port, serve

needs_sshd = pytest.mark.skipif(SSHD is None, reason="needs OpenSSH's server")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@needs_sshd
@pytest.mark.slow  # on one machine, and by functions, they are quick: see tests/remote
def test_commands_run_on_several_machines_in_one_table(
    run: Any, server: Server, bundles: dict[str, Path], tmp_path: Path
) -> None:
    python = ["--remote-python", sys.executable, "--ssh-config", server.config, "--timeout", 90]
    other = server.url.replace("127.0.0.1", "localhost")
    hosts = ["--on", server.url, "--on", other, *python]
    said = run("bench", bundles["onnx"], *hosts, "--runtime", "onnxruntime", "--runs", 4, "--json")
    assert said.code == 0, said.err
    assert [result["on"] for result in said.document["results"]] == [server.url, other]
    assert all(len(result["samples_ns"]) == 4 for result in said.document["results"])
    away = f"ssh://{getpass.getuser()}@127.0.0.1:{free_port()}"
    hosts = ["--on", server.url, "--on", away, *python]
    said = run("verify", bundles["onnx"], bundles["tflite"], *hosts, "--quick", "--tolerance", "max_abs=1e-9", "-q")
    assert said.code == 1
    assert said.out.count(server.url) == 2 and said.out.count("DIFFERENT") == 2 and "1.0e-09" in said.out
    [line] = [line for line in said.out.splitlines() if away in line]
    assert "no answer" in line and "cannot be reached" in said.err
    reports = {name: tmp_path / f"verify.{name}" for name in ("xml", "md")}
    files = ("--junit", reports["xml"], "--markdown", reports["md"])
    said = run("verify", bundles["onnx"], *hosts, *files, "--github", "--json")
    suites = ElementTree.parse(reports["xml"]).getroot()
    assert (suites.attrib["tests"].isdigit(), suites.attrib["failures"]) == (True, "1")
    assert [suite.attrib["name"] for suite in suites] == [
        f"{bundles['onnx']} on {server.url} in onnxruntime (cpu)",
        f"{away} in no answer (-)",
    ]
    assert "1 of 2 compute the same function" in reports["md"].read_text()
    assert "::warning title=ssh" in said.err
    assert said.code == 1 and [result["on"] for result in said.document["results"]] == [server.url]
    [skipped] = said.document["skipped"]
    assert skipped.startswith(away) and "cannot be reached" in skipped
    nowhere = "ssh://nobody@localhost:1"
    said = run("verify", bundles["onnx"], "--on", away, "--on", nowhere, *python)
    assert said.code == 2
    assert f"{away.removeprefix('ssh://')} cannot be reached" in said.err
    assert "nobody@localhost:1 cannot be reached" in said.err


def test_what_another_machine_has_not_is_refused_before_any_is_asked(run: Any, bundles: dict[str, Path]) -> None:
    said = run("verify", bundles["onnx"], "--on", "ssh://nowhere.invalid", "--against", bundles["tflite"])
    assert said.code == 2 and "--against and --on: another machine has the recorded answers alone" in said.err
    said = run("verify", bundles["onnx"], "--on", "ssh://nowhere.invalid", "--tolerance", "max_abs=often")
    assert said.code == 2 and "is 'often'; expected a finite number" in said.err
    for timeout in ("nan", "inf"):
        said = run("bench", bundles["onnx"], "--on", "ssh://nowhere.invalid", "--timeout", timeout)
        assert said.code == 2 and "timeout" in said.err


def test_the_command_packs(run: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    said = run("bundle", bundles["onnx"], "-o", tmp_path / "models.tar.gz", "--json")
    assert said.code == 0
    [result] = said.document["results"]
    assert result["bytes"] == (tmp_path / "models.tar.gz").stat().st_size
    assert json.dumps(result["artifacts"]) == json.dumps([str(bundles["onnx"])])
    assert run("bundle", bundles["onnx"], "-o", tmp_path / "models.tar.gz").code == 2
    assert run("bundle", bundles["onnx"], "-o", tmp_path / "models.zip").code == 2
    assert [path.name for path in tmp_path.iterdir()] == ["models.tar.gz"]


@needs_sshd
@pytest.mark.slow
@pytest.mark.parametrize("command", ["verify", "bench"])
def test_machines_of_a_file_go_by_their_names_and_one_that_is_gone_stops_none(
    run: Any, server: Server, bundles: dict[str, Path], tmp_path: Path, command: str
) -> None:
    path = tmp_path / "hosts.toml"
    path.write_text(
        f'[defaults]\nremote_python = "{sys.executable}"\nssh_config = "{server.config}"\ntimeout = 90\n'
        f'[hosts.here]\naddress = "{server.url}"\ngroups = ["near", "all"]\n'
        f'[hosts.again]\naddress = "{server.url.replace("127.0.0.1", "localhost")}"\ngroups = ["all"]\n'
        f'[hosts.gone]\naddress = "ssh://{getpass.getuser()}@127.0.0.1:{free_port()}"\ngroups = ["all"]\n'
        '[hosts.other]\naddress = "ssh://nowhere.invalid"\n'
    )
    short = ["--runtime", "onnxruntime", "--runs", 3] if command == "bench" else ["--quick"]
    said = run(command, bundles["onnx"], "--hosts", path, "--group", "all", *short, "--json")
    assert said.code == 1, said.err
    document = said.document
    assert [result["on"] for result in document["results"]] == ["here", "again"]
    assert document["results"][0]["address"] == server.url
    assert [(host["name"], host["ok"], host["results"]) for host in document["hosts"]] == [
        ("here", True, 1),
        ("again", True, 1),
        ("gone", False, 0),
    ]
    assert document["hosts"][0]["groups"] == ["near", "all"]
    assert "cannot be reached" in document["hosts"][2]["error"]["message"]
    assert "gone: no answer" in said.err and "here: 1 result" in said.err
    if command == "verify":
        assert run(command, bundles["onnx"], "--hosts", path, "--group", "near", *short, "-q").code == 0
        assert server.left_behind() == set()
