"""Another machine that the user's own OpenSSH reaches.

Keys, known hosts and everything else are those of the system's ssh, which is told not to ask for passwords.
"""

from __future__ import annotations

import ipaddress
import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from vit_deploy.errors import ConfigError
from vit_deploy.remote.link import MARK

CONNECT_S = 15

# Of a machine and of a user; ssh would take one that begins with a dash for an option.
HOST_NAME = re.compile(r"\w[\w.-]*")
USER_NAME = re.compile(r"\w[\w.@+\\-]*\$?")
URL = re.compile(
    r"ssh://(?:(?P<user>[^/?#]*)@)?(?P<host>\[[^\]/@]*\]|[^\[\]:/?#@]*)(?::(?P<port>[0-9]{1,5}))?/?", re.ASCII
)


@dataclass(frozen=True)
class SshMachine:
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


def ssh_machine(url: str, **options: Any) -> SshMachine:
    """The machine behind `ssh://user@host[:port]`.

    Args:
        url: the user may be written with %40 and the like; an IPv6 address stands in brackets.
        **options: the options of `SshMachine`.

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
    return SshMachine(f"{user}@{name}" if user else name, port, **options)


def _is_ipv6(text: str) -> bool:
    address, percent, zone = text.partition("%")
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return not percent or HOST_NAME.fullmatch(zone) is not None
