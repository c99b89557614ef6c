"""Artifacts are proven and timed on another machine, which here is this one behind a real OpenSSH server."""

from __future__ import annotations

import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.remote.sshd import SSHD, Server, cut_line, free_port, serve
from vit_deploy.errors import ConfigError, RemoteError
from vit_deploy.packing import pack
from vit_deploy.remote import CACHE, Host, parse_host, run_on

needs_sshd = pytest.mark.skipif(SSHD is None, reason="needs OpenSSH's server")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serve(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture(scope="module")
def package(bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("package") / "models.tar.gz"
    pack([bundles["onnx"], bundles["tflite"]], path)
    return path


def host(server: Server, **options: Any) -> Host:
    return parse_host(server.url, **{"config": server.config, "python": sys.executable, "timeout_s": 90.0, **options})


def left_behind() -> set[Path]:
    folder = Path.home() / CACHE
    return set(folder.iterdir()) if folder.is_dir() else set()


@needs_sshd
def test_a_bundle_is_proven_there_and_nothing_stays(server: Server, package: Path, bundles: dict[str, Path]) -> None:
    before = left_behind()
    document = run_on(host(server), package, ["verify"])
    assert document["ok"] and document["command"] == "verify"
    assert [each["artifact"] for each in document["results"]] == [str(bundles["onnx"]), str(bundles["tflite"])]
    assert left_behind() == before


@needs_sshd
def test_a_connection_that_drops_is_taken_up_where_it_broke(server: Server, package: Path, tmp_path: Path) -> None:
    size = package.stat().st_size
    padded = tmp_path / "large.tar.gz"
    padded.write_bytes(package.read_bytes() + bytes(12_000_000))  # gzip ends where it ends
    told: list[str] = []
    with cut_line(server.port, after=size + 8_000_000) as (port, cuts):
        target = host(Server(port, server.config))
        document = run_on(target, padded, ["bench", "--runs", "3"], told.append)
    assert len(document["results"]) == 2
    assert len(cuts) == 1
    first, second = (float(each.split()[-2]) for each in told if each.startswith("sending"))
    assert first == pytest.approx((size + 12_000_000) / 1e6, abs=0.1)
    assert 0 < second < first - 3  # the rest, and not all of it again


@needs_sshd
def test_a_run_that_takes_too_long_is_ended_and_taken_away(server: Server, package: Path) -> None:
    before = left_behind()
    started = time.monotonic()
    with pytest.raises(RemoteError, match="gave no answer in 12 s"):
        run_on(host(server, timeout_s=12.0), package, ["bench", "--seconds", "60"])
    assert time.monotonic() - started < 40
    assert left_behind() == before
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert not [line for line in listed.splitlines() if "run.py detached" in line]


@needs_sshd
def test_what_is_missing_there_is_said(server: Server, package: Path, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"/none/python does not run") as caught:
        run_on(host(server, python="/none/python"), package, ["verify"])
    assert "--remote-python" in caught.value.fix
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError(\"No module named 'numpy'\")")
    without = f"env PYTHONPATH={shlex.quote(str(tmp_path))} {sys.executable}"
    with pytest.raises(RemoteError, match="has no NumPy"):
        run_on(host(server, python=without), package, ["verify"])


@needs_sshd
def test_a_key_that_is_not_taken_is_said_at_once(server: Server, package: Path, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace(str(server.config.parent / "user"), str(tmp_path / "other")))
    with pytest.raises(RemoteError, match=r"cannot be reached: (?s:.*)Permission denied") as caught:
        run_on(host(server, config=config), package, ["verify"])
    assert "without a password" in caught.value.fix
    nobody = Server(free_port(), server.config)
    with pytest.raises(RemoteError, match=r"cannot be reached: (?s:.*)refused"):
        run_on(host(nobody), package, ["verify"])


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("user@host", "is no address of a machine"),
        ("http://host", "is no address of a machine"),
        ("ssh://", "is no address of a machine"),
        ("ssh://host/folder", "is no address of a machine"),
        ("ssh://host:port", "is no address"),
        ("ssh://user:secret@host", "was given with a password, which is not taken"),
        ("ssh://-oProxyCommand=x@host", "has a name that no machine has"),
        ("ssh://-host", "has a name that no machine has"),
    ],
)
def test_what_is_no_address_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        parse_host(url)
    assert "secret" not in str(caught.value)


def test_an_address_is_taken_apart() -> None:
    assert parse_host("ssh://pi@raspberry.local:2222") == Host("pi@raspberry.local", 2222)
    assert parse_host("ssh://jetson") == Host("jetson")
