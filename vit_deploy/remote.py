"""How is a packed set of artifacts run on another machine, over the user's own OpenSSH?

Keys, known hosts and everything else are those of the system's ssh, which is told not to ask for passwords. A
connection that drops while artifacts are sent is taken up where it broke; the run itself is detached from the
connection, and is asked now and then whether it has ended.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vit_deploy.device import CODE, LOG, RESULT, STARTED
from vit_deploy.errors import ConfigError, RemoteError
from vit_deploy.packing import ROOT

DROPPED = 255  # what ssh itself exits with when it cannot connect or loses the connection
CONNECT_S = 15
POLL_S = 5  # how long one question whether the run has ended may wait on the other side
PAUSE_S = 2.0  # before a dropped connection is taken up again
OLDEST = (3, 11)
CACHE = ".cache/vit-deploy"  # in the home folder there
PACKAGE = "package.tar.gz"
REFUSALS = ("permission denied", "host key verification failed", "could not resolve hostname", "no such identity")

NAME = re.compile(r"\w[\w.-]*")  # of a machine or a user; ssh would take one that begins with a dash for an option

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Host:
    """A machine to run on.

    Args:
        address: as ssh takes it, `user@host` or a name of the user's ssh config.
        port: None for ssh's own choice.
        python: command of the Python there.
        config: of ssh, instead of the user's.
        timeout_s: for everything together.
    """

    address: str
    port: int | None = None
    python: str = "python3"
    config: Path | None = None
    timeout_s: float = 600.0

    def command(self, script: str) -> list[str]:
        """The ssh command that runs a shell script there."""
        options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}", "-o", "ServerAliveInterval=5"]
        options += ["-p", str(self.port)] if self.port is not None else []
        options += ["-F", str(self.config)] if self.config is not None else []
        return ["ssh", *options, "--", self.address, f"sh -c {shlex.quote(f'cd; {script}')}"]

    def __str__(self) -> str:
        return self.address if self.port is None else f"{self.address}:{self.port}"


def parse_host(url: str, **options: Any) -> Host:
    """The machine behind `ssh://user@host[:port]`.

    Raises:
        ConfigError: another kind of address.
    """
    fix = "give ssh://user@host or ssh://user@host:port"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(f"{url!r} is no address: {error}", fix=fix) from error
    if parts.scheme != "ssh" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ConfigError(f"{url!r} is no address of a machine", fix=fix)
    if parts.password is not None:
        raise ConfigError(
            f"{parts.scheme}://{parts.username}@{parts.hostname} was given with a password, which is not taken",
            fix="let ssh use a key: ssh-copy-id puts one there",
        )
    if not NAME.fullmatch(parts.hostname) or not NAME.fullmatch(parts.username or "any"):
        raise ConfigError(f"{url!r} has a name that no machine has", fix=fix)
    address = f"{parts.username}@{parts.hostname}" if parts.username else parts.hostname
    return Host(address, port, **options)


def run_on(host: Host, package: Path, arguments: Sequence[str], progress: Progress = lambda doing: None) -> Any:
    """Send a packed set of artifacts, run it there, and bring the document back; nothing of it stays there.

    Args:
        host: where.
        package: from `packing.pack`.
        arguments: of its `run.py`.
        progress: is told what is being done.

    Raises:
        RemoteError: it cannot be reached, lacks what it takes, or did not end in time.
    """
    link = _Link(host, time.monotonic() + host.timeout_s)
    work = f"{CACHE}/{secrets.token_hex(8)}"
    progress(f"asking {host}")
    _check_python(link)
    try:
        _send(link, package, work, progress)
        progress(f"running on {host}")
        _start(link, work, arguments)
        return _wait(link, work)
    finally:
        _clean(link, work)


class _Link:
    """The connection to one host, which is made anew for each script and may drop at any time."""

    def __init__(self, host: Host, deadline: float) -> None:
        self.host = host
        self.deadline = deadline

    def run(self, script: str, *, stdin: Any = subprocess.DEVNULL, retry: bool = True) -> str:
        """The output of a script; a dropped connection is taken up again until the time is over.

        Raises:
            RemoteError: no connection, or the script failed.
            ConnectionError: it dropped and `retry` is not set.
        """
        while True:
            left = self.deadline - time.monotonic()
            if left <= 0:
                raise self.late()
            try:
                done = subprocess.run(self.host.command(script), stdin=stdin, capture_output=True, timeout=left)
            except subprocess.TimeoutExpired as error:
                raise self.late() from error
            except FileNotFoundError as error:
                raise RemoteError("there is no ssh on this machine", fix="install OpenSSH's client") from error
            said = done.stderr.decode(errors="replace").strip()
            if done.returncode == 0:
                return done.stdout.decode(errors="replace")
            if done.returncode != DROPPED:
                raise RemoteError(
                    f"{self.host}: {said or 'a command failed'} (exit {done.returncode})",
                    fix="check that the home folder there can be written and has room",
                )
            if any(refusal in said.lower() for refusal in REFUSALS):
                raise RemoteError(
                    f"{self.host} cannot be reached: {said}",
                    fix=f"make `ssh {self.host.address}` work without a password, with a key or an agent",
                )
            if not retry:
                raise ConnectionError(said)
            time.sleep(min(PAUSE_S, max(left, 0)))

    def late(self) -> RemoteError:
        """The error of a time that is over."""
        return RemoteError(
            f"{self.host} gave no answer in {self.host.timeout_s:g} s", fix="allow more with --timeout, or check it"
        )


def _check_python(link: _Link) -> None:
    python = link.host.python
    code = "import sys; print(*sys.version_info[:2], flush=True); import numpy"
    try:
        said = link.run(f"{python} -c {shlex.quote(code)} 2>&1 || true", retry=False).strip()
    except ConnectionError as error:
        raise RemoteError(
            f"{link.host} cannot be reached: {error}", fix=f"try `ssh {link.host.address}` by hand"
        ) from error
    first = said.splitlines()[0] if said else ""
    version = re.fullmatch(r"(\d+) (\d+)", first)
    need = f"Python {'.'.join(map(str, OLDEST))} or later with NumPy and the engine"
    fix = f"install {need} there, and name it with --remote-python"
    if version is None:
        raise RemoteError(f"{link.host}: {python} does not run: {first or 'no answer'}", fix=fix)
    if (int(version[1]), int(version[2])) < OLDEST:
        raise RemoteError(f"{link.host}: {python} is version {version[1]}.{version[2]}", fix=fix)
    if len(said.splitlines()) > 1:
        raise RemoteError(f"{link.host}: {python} has no NumPy", fix=fix)


def _send(link: _Link, package: Path, work: str, progress: Progress) -> None:
    """Append what is not there yet, until all is."""
    total = package.stat().st_size
    digest = hashlib.sha256(package.read_bytes()).hexdigest()
    place = shlex.quote(work)
    part = f"{place}/{PACKAGE}.part"
    sum_code = "import hashlib,sys; print(hashlib.sha256(open(sys.argv[1],'rb').read()).hexdigest())"
    while True:
        there = int(link.run(f"mkdir -p {place} && touch {part} && wc -c < {part}").strip())
        if there < total:
            progress(f"sending to {link.host}: {(total - there) / 1e6:.1f} MB")
            with package.open("rb") as file:
                file.seek(there)
                try:
                    link.run(f"cat >> {part}", stdin=file, retry=False)
                except ConnectionError:
                    time.sleep(PAUSE_S)
        elif link.run(f"{link.host.python} -c {shlex.quote(sum_code)} {part}").strip() == digest:
            link.run(f"mv {part} {place}/{PACKAGE}")
            return
        else:  # what a dropped connection left was not the beginning of it
            link.run(f"rm -f {part}")


def _start(link: _Link, work: str, arguments: Sequence[str]) -> None:
    """Unpack and launch; a start that is repeated, since the connection dropped, finds that it was made."""
    place = shlex.quote(work)
    words = " ".join(map(shlex.quote, ("run.py", "detached", "..", *arguments)))
    launch = f"cd {place} && tar -xzf {PACKAGE} && cd {ROOT} && {link.host.python} {words}"
    link.run(f"[ -d {place}/{STARTED} ] || {{ {launch}; }}")


def _wait(link: _Link, work: str) -> Any:
    place = shlex.quote(work)
    code = ""
    while not code:
        code = link.run(
            f"n=0; while [ $n -lt {POLL_S} ] && [ ! -f {place}/{CODE} ]; do sleep 1; n=$((n+1)); done; "
            f"cat {place}/{CODE} 2> /dev/null || true"
        ).strip()
    text = link.run(f"cat {place}/{RESULT} 2> /dev/null || true")
    try:
        return json.loads(text)
    except ValueError as error:
        log = link.run(f"tail -n 5 {place}/{LOG} 2> /dev/null || true").strip()
        raise RemoteError(
            f"{link.host}: the run ended with exit {code} and no result: {log or 'it said nothing'}",
            fix="check Python, NumPy and the engine there",
        ) from error


def _clean(link: _Link, work: str) -> None:
    """Take everything away, and end what may still run; a machine that is gone keeps it until it is cleaned."""
    place = shlex.quote(work)
    # What it started to time a case ends by itself when it is gone.
    end = f"[ -f {place}/{CODE} ] || kill -s KILL -- -$(cat {place}/{STARTED}/pid) 2> /dev/null"
    last = _Link(link.host, time.monotonic() + CONNECT_S)
    try:
        last.run(f"{end}; rm -rf {place}", retry=False)
    except (RemoteError, ConnectionError):
        return
