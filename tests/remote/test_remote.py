"""Artifacts are proven and timed on another machine, which here is this one behind a real OpenSSH server."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.remote.conftest import environment
from tests.remote.sshd import Server, cut_line, free_port
from vit_deploy.errors import RemoteError
from vit_deploy.remote.engines import needs
from vit_deploy.remote.packing import pack
from vit_deploy.remote.run import CACHE, run_on
from vit_deploy.remote.ssh import SshMachine, ssh_machine


@pytest.fixture
def host(device_python: Path) -> Any:
    """The machine behind a server, with the Python of a device."""

    def make(server: Server, **options: Any) -> SshMachine:
        usual = {"config": server.config, "python": shlex.quote(str(device_python)), "timeout_s": 90.0}
        return ssh_machine(server.url, **{**usual, **options})

    return make


def test_the_device_has_neither_tensorflow_nor_what_the_command_line_takes(device_python: Path) -> None:
    code = "import importlib.util as u; print([name for name in {names!r} if u.find_spec(name)])"
    names = ("numpy", "onnxruntime", "tensorflow", "keras", "PIL", "typer", "rich", "h5py", "vit_deploy")
    done = subprocess.run(
        [device_python, "-I", "-c", code.format(names=names)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "['numpy', 'onnxruntime']"


def test_a_bundle_is_proven_there_and_nothing_stays(
    host: Any, server: Server, bundles: dict[str, Path], tmp_path: Path
) -> None:
    odd = tmp_path / "mo dèl '$(touch there)\" ;#"
    shutil.copytree(bundles["onnx"], odd)
    pack([odd, bundles["tflite"]], tmp_path / "odd.tar.gz")
    (server.home / ".bashrc").write_text("echo welcome\n")
    abandoned, running = (server.home / CACHE / name for name in ("abandoned", "running"))
    for folder, days in ((abandoned, 5), (running, 0)):
        folder.mkdir(parents=True)
        then = time.time() - days * 86400
        os.utime(folder, (then, then))
    warned: list[str] = []
    document = run_on(host(server), tmp_path / "odd.tar.gz", ["verify"], warn=warned.append)
    assert document["ok"] and document["command"] == "verify"
    assert [result["artifact"] for result in document["results"]] == [str(odd), str(bundles["tflite"])]
    assert server.left_behind() == {"running"} and not warned
    assert not list(server.home.rglob("there"))
    shutil.rmtree(server.home / CACHE)
    (server.home / ".bashrc").unlink()


@pytest.mark.slow
def test_a_connection_that_drops_is_taken_up_where_it_broke(
    host: Any, server: Server, package: Path, tmp_path: Path
) -> None:
    size = package.stat().st_size
    padded = tmp_path / "large.tar.gz"
    padded.write_bytes(package.read_bytes() + bytes(12_000_000))  # gzip ends where it ends
    told: list[str] = []
    with cut_line(server.port, after=size + 8_000_000) as (port, cuts):
        target = host(dataclasses.replace(server, port=port))
        document = run_on(target, padded, ["bench", "--runs", "3"], told.append)
    assert len(document["results"]) == 2
    assert len(cuts) == 1
    first, second = (float(each.split()[-2]) for each in told if each.startswith("sending"))
    assert first == pytest.approx((size + 12_000_000) / 1e6, abs=0.1)
    assert 0 < second < first - 3  # the rest, and not all of it again


def running(server: Server) -> int:
    """The process that a run on a server is, once it has begun."""
    for _ in range(600):
        for file in server.home.glob(f"{CACHE}/*/started/pid"):
            return int(file.read_text())
        time.sleep(0.05)
    raise AssertionError("nothing runs there")


def has_ended(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_ended_and_taken_away(host: Any, server: Server, package: Path) -> None:
    found: list[int] = []
    watcher = threading.Thread(target=lambda: found.append(running(server)))
    watcher.start()
    started = time.monotonic()
    with pytest.raises(RemoteError, match="gave no answer in 8 s"):
        run_on(host(server, timeout_s=8.0), package, ["bench", "--seconds", "60"])
    assert time.monotonic() - started < 30
    watcher.join()
    assert has_ended(found[0])
    assert server.left_behind() == set()


def own_ssh() -> list[int]:
    """The ssh processes that this one has started."""
    found = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            head, _, tail = file.read_text().rpartition(")")
            number, _, name = head.partition(" (")
            if name == "ssh" and int(tail.split()[1]) == os.getpid():
                found.append(int(number))
    return found


@pytest.mark.slow
def test_a_connection_that_drops_while_it_runs_is_made_again(host: Any, server: Server, package: Path) -> None:
    dropped: list[int] = []

    def drop() -> None:
        there = running(server)
        while not dropped and not has_ended(there):
            for process in own_ssh():
                os.kill(process, signal.SIGTERM)  # which ssh tells as it tells a lost connection
                dropped.append(process)
            time.sleep(0.05)

    threading.Thread(target=drop).start()
    document = run_on(host(server), package, ["bench", "--seconds", "1"])
    assert document["ok"] and len(document["results"]) == 2
    assert dropped
    assert server.left_behind() == set()


@pytest.mark.slow
def test_a_run_that_is_killed_there_is_told_at_once(host: Any, server: Server, package: Path) -> None:
    threading.Thread(target=lambda: os.kill(running(server), signal.SIGKILL)).start()
    started = time.monotonic()
    with pytest.raises(RemoteError, match="the run was killed there"):
        run_on(host(server), package, ["bench", "--seconds", "60"])
    assert time.monotonic() - started < 30
    assert server.left_behind() == set()


@pytest.mark.slow
def test_a_command_that_is_interrupted_ends_what_runs_there(
    device_python: Path, server: Server, bundles: dict[str, Path]
) -> None:
    words = ["bench", bundles["onnx"], "--on", server.url, "--seconds", "60", "--remote-python", device_python]
    command = [sys.executable, "-m", "vit_deploy", *map(str, words), "--ssh-config", str(server.config)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        there = running(server)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in said and "Traceback" not in said
    assert has_ended(there)
    assert server.left_behind() == set()


def test_what_cannot_be_cleaned_up_is_named(host: Any, server: Server, package: Path) -> None:
    warned: list[str] = []
    stop = threading.Event()

    def cut(doing: str) -> None:
        if doing.startswith("sending"):
            server.config.rename(server.config.with_name("away"))  # from now on ssh finds no way there
            stop.set()

    try:
        with pytest.raises(RemoteError, match="stopped"):
            run_on(host(server), package, ["verify"], cut, warn=warned.append, stop=stop)
    finally:
        server.config.with_name("away").rename(server.config)
    [name] = server.left_behind()
    assert len(warned) == 1 and f"could not be cleaned up, and keeps ~/{CACHE}/{name}" in warned[0]
    shutil.rmtree(server.home / CACHE)


@pytest.mark.slow
def test_what_is_missing_there_is_said(host: Any, server: Server, package: Path, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match=r"/none/python does not run: .*not found") as caught:
        run_on(host(server, python="/none/python"), package, ["verify"])
    assert "--remote-python" in caught.value.fix
    (tmp_path / "old").write_text("#!/bin/sh\necho python 3.9\n")
    (tmp_path / "old").chmod(0o755)
    with pytest.raises(RemoteError, match=r"old is version 3\.9") as caught:
        run_on(host(server, python=str(tmp_path / "old")), package, ["verify"])
    assert "Python 3.10 or later" in caught.value.fix
    without = environment(tmp_path / "without")
    with pytest.raises(RemoteError, match=r"has no NumPy that it can import: .*No module named 'numpy'"):
        run_on(host(server, python=str(without)), package, ["verify"])
    # A relative path is one from the home folder, where a login would find it.
    (server.home / "env").symlink_to(environment(tmp_path / "no engine", "numpy").parents[1])
    told: list[str] = []
    with pytest.raises(RemoteError, match="env/bin/python has no ai_edge_litert, onnxruntime") as caught:
        wanted = needs(["onnx", "tflite"], (), ("cpu",))
        run_on(host(server, python="env/bin/python"), package, ["verify"], told.append, needed=wanted)
    assert caught.value.fix.endswith("env/bin/python -m pip install ai-edge-litert onnxruntime")
    assert [each for each in told if not each.startswith("asking")] == []
    # The runner says it too, where nobody has asked before.
    document = run_on(host(server, python="env/bin/python"), package, ["verify"])
    assert not document["ok"] and document["error"]["type"] == "MissingEngineError"
    assert "no ai_edge_litert, onnxruntime" in document["error"]["message"]
    assert server.left_behind() == set()


def test_a_key_that_is_not_taken_is_said_at_once(host: Any, server: Server, package: Path, tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "other"], check=True)
    config = tmp_path / "config"
    config.write_text(server.config.read_text().replace(str(server.config.parent / "user"), str(tmp_path / "other")))
    with pytest.raises(RemoteError, match=r"cannot be reached: (?s:.*)Permission denied") as caught:
        run_on(host(server, config=config), package, ["verify"])
    assert "without a password" in caught.value.fix
    nobody = dataclasses.replace(server, port=free_port())
    with pytest.raises(RemoteError, match=r"cannot be reached: (?s:.*)refused"):
        run_on(host(nobody), package, ["verify"])
