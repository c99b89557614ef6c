"""Scripts run on another machine over the user's own OpenSSH.

Keys, known hosts and everything else are those of the system's ssh, which is told not to ask for passwords. What the
shell there prints by itself, as a `.bashrc` may, is told from the script's output by a mark in front of the latter.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
import shlex
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote

from vit_deploy.errors import ConfigError, RemoteError

DROPPED = 255  # what ssh itself exits with when it cannot connect or loses the connection
CONNECT_S = 15
PAUSE_S = 2.0  # before a dropped connection is taken up again
SLICE_S = 0.5  # how soon a command that is to stop does
SENDING_S = 5.0  # between two reports of how much is sent
MARK = "vit-deploy says:"
REFUSALS = ("permission denied", "host key verification failed", "could not resolve hostname", "no such identity")

# Of a machine and of a user; ssh would take one that begins with a dash for an option.
HOST_NAME = re.compile(r"\w[\w.-]*")
USER_NAME = re.compile(r"\w[\w.@+\\-]*\$?")
URL = re.compile(
    r"ssh://(?:(?P<user>[^/?#]*)@)?(?P<host>\[[^\]/@]*\]|[^\[\]:/?#@]*)(?::(?P<port>[0-9]{1,5}))?/?", re.ASCII
)

Progress = Callable[[str], object]


@dataclass(frozen=True)
class Machine:
    """A machine to run on.

    Args:
        address: the address as ssh takes it, `user@host` or a name of the user's ssh config.
        port: None for ssh's own choice.
        python: command of the Python there, in the words of a shell.
        config: the config of ssh, instead of the user's.
        timeout_s: the limit in seconds for everything together.

    Raises:
        ConfigError: a time that is no number of seconds.
    """

    address: str
    port: int | None = None
    python: str = "python3"
    config: Path | None = None
    timeout_s: float = 600.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.timeout_s) and self.timeout_s > 0):
            raise ConfigError(f"the timeout is {self.timeout_s:g} s", fix="give a number of seconds")

    def command(self, script: str) -> list[str]:
        """The ssh command that runs a shell script in the home folder there; what it makes is the user's alone."""
        # Neither a terminal nor anything else than the script: no forwarding that the user's config asks for.
        options = ["-T", "-a", "-x", "-o", "ClearAllForwardings=yes", "-o", "LogLevel=ERROR"]
        options += ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}", "-o", "ServerAliveInterval=5"]
        script = f"cd; umask 077; echo {shlex.quote(MARK)}; {script}"
        return ["ssh", *options, *self._where(), "--", self.address, f"sh -c {shlex.quote(script)}"]

    @property
    def by_hand(self) -> str:
        """What a user would type to get there."""
        return shlex.join(["ssh", *self._where(), self.address])

    def _where(self) -> list[str]:
        port = ["-p", str(self.port)] if self.port is not None else []
        return [*port, *(["-F", str(self.config)] if self.config is not None else [])]

    def __str__(self) -> str:
        if self.port is None:
            return self.address
        user, at, name = self.address.rpartition("@")
        return f"{user}{at}[{name}]:{self.port}" if ":" in name else f"{self.address}:{self.port}"


def machine_at(url: str, **options: Any) -> Machine:
    """The machine behind `ssh://user@host[:port]`.

    Args:
        url: the user may be written with %40 and the like; an IPv6 address stands in brackets.
        **options: the options of `Machine`.

    Raises:
        ConfigError: another kind of address.
    """
    fix = "give ssh://user@host or ssh://user@host:port"
    match = URL.fullmatch(url)
    user, name = (match["user"], match["host"]) if match else (None, "")
    if user and ":" in user:
        raise ConfigError(
            f"ssh://{user.partition(':')[0]}@{name} was given with a password, which is not taken",
            fix="let ssh use a key: ssh-copy-id puts one there",
        )
    if match is None or not name:
        # The address itself is left out where it may have a password in it.
        said = "what --on names" if ":" in url.rpartition("://")[2].rpartition("@")[0] else repr(url)
        raise ConfigError(f"{said} is no address of a machine", fix=fix)
    port = int(match["port"]) if match["port"] else None
    user = unquote(user) if user is not None else None
    if port is not None and not 0 < port < 1 << 16:
        raise ConfigError(f"{url!r} is no address: port {port} is not from 1 to 65535", fix=fix)
    if name.startswith("["):
        name = name[1:-1]
        known = _is_ipv6(name)
    else:
        known = HOST_NAME.fullmatch(name) is not None
    if not known or (user is not None and not USER_NAME.fullmatch(user)):
        raise ConfigError(f"{url!r} has a name that no machine has", fix=fix)
    return Machine(f"{user}@{name}" if user else name, port, **options)


def _is_ipv6(text: str) -> bool:
    address, percent, zone = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or HOST_NAME.fullmatch(zone) is not None


class Link:
    """The connection to one host, which is made again for each script and may drop at any time.

    Args:
        host: the machine to send to.
        deadline: the end of the time for everything, by `time.monotonic`.
        stop: is set when nobody waits for it any more.
    """

    def __init__(self, host: Machine, deadline: float, stop: threading.Event | None = None) -> None:
        self.host = host
        self.deadline = deadline
        self.stop = stop or threading.Event()

    def run(
        self,
        script: str,
        *,
        stdin: IO[bytes] | None = None,
        retry: bool = True,
        watch: Callable[[], None] = lambda: None,
    ) -> str:
        """The output of a script; a dropped connection is taken up again until the time is over.

        Args:
            script: a script for `sh`, in the home folder there.
            stdin: a file to send, from where it stands; None for nothing.
            retry: whether to go on after the connection dropped.
            watch: called now and then while it runs.

        Raises:
            RemoteError: no connection, or the script failed.
            ConnectionError: it dropped and `retry` is not set.
        """
        dropped = ""
        while True:
            code, out, said = self._once(script, stdin, watch, dropped)
            if code == 0:
                before, mark, answer = out.partition(f"{MARK}\n")
                if mark:
                    return answer
                raise RemoteError(
                    f"{self.host} does not run what it is sent, and answers {before.strip()[:200] or 'nothing'}",
                    fix=f"make `{self.host.by_hand} echo hello` work, with a login shell that takes commands",
                )
            if code != DROPPED:
                raise RemoteError(
                    f"{self.host}: {said or 'a command failed'} (exit {code})",
                    fix="check that the home folder there can be written and has room",
                )
            if any(refusal in said.lower() for refusal in REFUSALS):
                raise RemoteError(
                    f"{self.host} cannot be reached: {said}",
                    fix=f"make `{self.host.by_hand}` work without a password, with a key or an agent",
                )
            if not retry:
                raise ConnectionError(said or "the connection dropped")
            dropped = said
            self.pause()

    def pause(self) -> None:
        """Wait a little before the connection is made again."""
        self.stop.wait(min(PAUSE_S, max(self.deadline - time.monotonic(), 0)))

    def late(self, dropped: str = "") -> RemoteError:
        """The error of a time that is over."""
        last = f"; the last that ssh said: {dropped}" if dropped else ""
        return RemoteError(
            f"{self.host} gave no answer in {self.host.timeout_s:g} s{last}",
            fix="allow more with --timeout, or check it",
        )

    def _once(
        self, script: str, stdin: IO[bytes] | None, watch: Callable[[], None], dropped: str
    ) -> tuple[int, str, str]:
        """Exit code, output and what was said beside it, of one run of ssh, which is killed when it is late."""
        try:
            process = subprocess.Popen(
                self.host.command(script),
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the caller, who then cleans up there
            )
        except FileNotFoundError as error:
            raise RemoteError("there is no ssh on this machine", fix="install OpenSSH's client") from error
        try:
            while True:
                left = self.deadline - time.monotonic()
                if self.stop.is_set():
                    raise RemoteError(f"{self.host}: stopped")
                if left <= 0:
                    raise self.late(dropped)
                try:
                    out, said = process.communicate(timeout=min(left, SLICE_S))
                except subprocess.TimeoutExpired:
                    watch()
                    continue
                return process.returncode, out.decode(errors="replace"), said.decode(errors="replace").strip()
        finally:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


def told_how_much(file: IO[bytes], total: int, tell: Progress) -> Callable[[], None]:
    """A function that says now and then how much of a file was read by the process that it is the input of.

    The place in the file is shared with that process.
    """
    last = time.monotonic()

    def watch() -> None:
        nonlocal last
        if time.monotonic() - last >= SENDING_S:
            last = time.monotonic()
            tell(f"{os.lseek(file.fileno(), 0, os.SEEK_CUR) / total:.0%} of {total / 1e6:.1f} MB")

    return watch
