"""A machine that is gone in the middle of its work stops none of the others, and the table says so meanwhile."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.linear_bundle import write_bundle

pytestmark = pytest.mark.slow

# Runs on this computer what it is to run on another, in a home folder of that; `leaving` is gone once its run is begun,
# and `dropping` while the archive goes there.
SSH = """#!/bin/sh
while [ $# -gt 2 ]; do shift; done
home={folder}/home-$1
mkdir -p $home
[ -e $home/gone ] && {{ echo "connect to host $1: No route to host" >&2; exit 255; }}
case "$1 $2" in
  leaving*detached*) HOME=$home sh -c "$2"; touch $home/gone; exit 255;;
  dropping*"cat >>"*) touch $home/gone; head -c 100 > /dev/null; exit 255;;
  absent*) exit 255;;
esac
HOME=$home exec sh -c "$2"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text(SSH.format(folder=tmp_path))
    program.chmod(0o755)
    lines = [f'[defaults]\nremote_python = "{sys.executable}"\ntimeout = 60\n']
    for name in ("staying", "leaving", "dropping", "absent"):
        limit = "" if name == "staying" else "timeout = 8\n"
        lines.append(f'[hosts.{name}]\naddress = "ssh://{name}"\n{limit}')
    (tmp_path / "hosts.toml").write_text("".join(lines))
    return {**os.environ, "PATH": os.pathsep.join([str(program.parent), os.environ["PATH"]]), "COLUMNS": "120"}


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_the_others_go_on_and_each_that_is_gone_is_named(tmp_path, environment, command):
    bundle = write_bundle(tmp_path / "onnx-fp32")
    short = ["--runtime=onnxruntime", "--runs=3"] if command == "bench" else ["--quick"]
    line = [sys.executable, "-m", "vit_deploy", command, str(bundle), "--hosts", str(tmp_path / "hosts.toml"), *short]
    terminal, end = pty.openpty()
    shown = b""
    with subprocess.Popen([*line, "--json"], env=environment, stdout=subprocess.PIPE, stderr=end) as process:
        os.close(end)
        while True:
            try:
                piece = os.read(terminal, 1 << 16)
            except OSError:  # how a terminal says that nobody writes to it any more
                break
            if not piece:
                break
            shown += piece
        assert process.stdout is not None
        document = json.loads(process.stdout.read())
    os.close(terminal)
    said = shown.decode("utf-8", "replace")
    assert process.returncode == 1, said
    assert [record["on"] for record in document["results"]] == ["staying"]
    assert [(host["name"], host["ok"]) for host in document["hosts"]] == [
        ("staying", True),
        ("leaving", False),
        ("dropping", False),
        ("absent", False),
    ]
    assert "gave no answer in 8 s" in document["hosts"][1]["error"]["message"]
    assert "No route to host" in document["hosts"][1]["error"]["message"]
    for words in ("machine", "doing", "running on leaving", "sending to dropping", "1 result", "no answer"):
        assert words in said
