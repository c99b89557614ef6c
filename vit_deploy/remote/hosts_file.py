"""Files that name machines, with their groups and the options of each."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.errors import ConfigError, did_you_mean
from vit_deploy.remote.options import HostOptions

HOSTS, GROUPS, DEFAULTS = "hosts", "groups", "defaults"
ADDRESS, MEMBER_OF = "address", "groups"
KINDS: Mapping[str, tuple[type, ...]] = {"remote_python": (str,), "ssh_config": (str,), "timeout": (int, float)}
FIX = 'write [hosts.NAME] with address = "ssh://user@host" for each machine'


@dataclass(frozen=True)
class Host:
    """A machine to run on.

    Args:
        name: what it is called in results.
        address: as `ssh://user@host[:port]`, or `qemu://cpu`.
        groups: that it is in.
        remote_python: command of the Python there.
        ssh_config: config file of ssh, instead of the user's.
        timeout: seconds for everything, sending included.
    """

    name: str
    address: str
    groups: tuple[str, ...] = ()
    remote_python: str = HostOptions.remote_python
    ssh_config: Path | None = None
    timeout: float = HostOptions.timeout


def machines(options: HostOptions) -> list[Host]:
    """The machines that options name: those of `--on` by their addresses, and those of the file by their names.

    Args:
        options: whose Python, ssh config and timeout count where the file says nothing else.

    Raises:
        ConfigError: a file that cannot be read or says what no machine has, or a group that is not there.
    """
    usual = Host("", "", (), options.remote_python, options.ssh_config, options.timeout)
    found = [dataclasses.replace(usual, name=url, address=url) for url in options.on]
    if options.hosts is None:
        if options.group:
            raise ConfigError("--group chooses from the machines of --hosts, and there is none", fix="add --hosts FILE")
        return found
    named = read_hosts(options.hosts, usual)
    known = sorted({group for host in named for group in host.groups})
    if unknown := [group for group in options.group if group not in known]:
        raise ConfigError(f"{options.hosts} has no group {unknown[0]!r}", fix=did_you_mean(unknown[0], known))
    chosen = [host for host in named if not options.group or set(options.group) & set(host.groups)]
    return found + chosen


def read_hosts(path: Path, usual: Host) -> list[Host]:
    """The machines that a file names, in its order.

    A `.toml` has `[hosts.NAME]` with `address`, `groups` and options for each, `[groups.NAME]` with options of all that
    are in it, and `[defaults]` with options of all. Any other file has a machine a line: its address, or its name and
    its address, and the groups that it is in; what follows a `#` is left out.

    Args:
        path: of the file.
        usual: whose options count where the file says nothing else.

    Raises:
        ConfigError: it cannot be read, names nothing, or says what no machine has; all problems are named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", fix="check the path") from error
    found = _of_toml(path, text, usual) if path.suffix == ".toml" else _of_lines(path, text, usual)
    if not found:
        raise ConfigError(f"{path} names no machine", fix=FIX)
    names = [host.name for host in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"{path} names {', '.join(twice)} twice", fix="give each machine a name of its own")
    return found


def _of_lines(path: Path, text: str, usual: Host) -> list[Host]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        place = next((place for place, word in enumerate(words[:2]) if "://" in word), None)
        if place is None:
            raise ConfigError(
                f"line {number} of {path} has no address: {line.strip()!r}", fix="write NAME ssh://user@host GROUP …"
            )
        groups = tuple(word.strip(",") for word in words[place + 1 :])
        found.append(dataclasses.replace(usual, name=words[0], address=words[place], groups=groups))
    return found


def _of_toml(path: Path, text: str, usual: Host) -> list[Host]:
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is no TOML: {error}", fix=FIX) from error
    problems = [f"unknown table {name!r}" for name in values if name not in (HOSTS, GROUPS, DEFAULTS)]
    hosts, groups = values.get(HOSTS, {}), values.get(GROUPS, {})
    defaults = _options(DEFAULTS, values.get(DEFAULTS, {}), problems)
    of_groups = {name: _options(f"{GROUPS}.{name}", given, problems) for name, given in groups.items()}
    found = []
    for name, given in hosts.items():
        where = f"{HOSTS}.{name}"
        if not isinstance(given, dict) or not isinstance(given.get(ADDRESS), str):
            problems.append(f"{where} has no address")
            continue
        member = given.get(MEMBER_OF, [])
        if not isinstance(member, list) or not all(isinstance(group, str) for group in member):
            problems.append(f"{where}.{MEMBER_OF} is {member!r}; expected a list of names")
            continue
        own = _options(where, {key: value for key, value in given.items() if key not in (ADDRESS, MEMBER_OF)}, problems)
        options: dict[str, Any] = dict(defaults)
        for group in member:
            options |= of_groups.get(group, {})
        options |= own
        if "ssh_config" in options:
            options["ssh_config"] = path.parent / options["ssh_config"]
        found.append(dataclasses.replace(usual, name=name, address=given[ADDRESS], groups=tuple(member), **options))
    if problems:
        raise ConfigError(f"{path}: {'; '.join(problems)}", fix=f"{FIX}; options are {', '.join(KINDS)}")
    return found


def _options(where: str, given: Any, problems: list[str]) -> dict[str, Any]:
    """The options that a table gives, as far as they can be."""
    if not isinstance(given, dict):
        problems.append(f"{where} is {given!r}; expected a table")
        return {}
    right: dict[str, Any] = {}
    for name, value in given.items():
        if name not in KINDS:
            problems.append(f"{where} has {name!r}, which is no option")
        elif not isinstance(value, KINDS[name]) or isinstance(value, bool):
            problems.append(f"{where}.{name} is {value!r}; expected {'a number' if name == 'timeout' else 'a text'}")
        else:
            right[name] = value
    return right
