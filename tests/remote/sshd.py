"""A real OpenSSH server on the loopback, with a key of its own, and a line to it that can be cut."""

from __future__ import annotations

import contextlib
import getpass
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vit_deploy.remote.run import CACHE

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/bin")


@dataclass(frozen=True)
class Server:
    """Where it listens, the ssh config that leads there, and what is the home folder there."""

    port: int
    config: Path
    home: Path

    @property
    def url(self) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"

    def left_behind(self) -> set[str]:
        """Names of what runs there have not taken away."""
        folder = self.home / CACHE
        return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serve(folder: Path) -> Iterator[Server]:
    """Start a server that takes one key, and end it."""
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    port = free_port()
    home = folder / "home"  # of its own, so that servers of other tests do not meet there
    home.mkdir()
    settings = folder / "sshd_config"
    settings.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized\n"
        f"PidFile {folder}/pid\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nUsePAM no\n"
        f"StrictModes no\nPermitRootLogin prohibit-password\nSetEnv HOME={home}\n"
    )
    config = folder / "ssh_config"
    config.write_text(
        f"Host *\n  IdentityFile {folder}/user\n  IdentitiesOnly yes\n  StrictHostKeyChecking accept-new\n"
        f"  UserKnownHostsFile {folder}/known\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)  # it separates privileges there
    assert SSHD is not None
    process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(settings)], stderr=(folder / "log").open("wb"))
    try:
        _await(port)
        yield Server(port, config, home)
    finally:
        process.terminate()
        process.wait(10)


def _await(port: int) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError("sshd did not start")


@contextlib.contextmanager
def cut_line(target: int, after: int) -> Iterator[tuple[int, list[int]]]:
    """A port that leads to `target`, and cuts the first connection that sends more than `after` bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    cuts: list[int] = []

    def carry(source: socket.socket, sink: socket.socket, *, counted: bool) -> None:
        sent = 0
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sent += len(data)
                if counted and not cuts and sent > after:
                    cuts.append(sent)
                    break
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(("127.0.0.1", target))
                for source, sink, counted in ((here, there, True), (there, here, False)):
                    threading.Thread(
                        target=carry, args=(source, sink), kwargs={"counted": counted}, daemon=True
                    ).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield int(listener.getsockname()[1]), cuts
    finally:
        listener.close()
