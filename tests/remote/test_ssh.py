"""An address is taken apart as ssh would, and what could be taken for something else is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from vit_deploy.errors import ConfigError
from vit_deploy.remote.ssh import SshMachine, ssh_machine


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("user@host", "is no address of a machine"),
        ("http://host", "is no address of a machine"),
        ("ssh://", "is no address of a machine"),
        ("ssh://host/folder", "is no address of a machine"),
        ("ssh://host:port", "is no address of a machine"),
        ("ssh://host:0", "port 0 is not from 1 to 65535"),
        ("ssh://host:65536", "port 65536 is not from 1 to 65535"),
        ("ssh://::1", "is no address of a machine"),
        ("ssh://[::g]", "has a name that no machine has"),
        ("ssh://[::1%-x]", "has a name that no machine has"),
        ("ssh://user:secret@host", "ssh://user@host was given with a password, which is not taken"),
        ("ssh://user:secret@host/folder", "what --on names is no address"),
        ("user:secret@host", "what --on names is no address"),
        ("ssh://-oProxyCommand=x@host", "has a name that no machine has"),
        ("ssh://-host", "has a name that no machine has"),
        ("ssh://%2Dl@host", "has a name that no machine has"),
        ("ssh://a;b@host", "has a name that no machine has"),
        ("ssh://@host", "has a name that no machine has"),
    ],
)
def test_what_is_no_address_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        ssh_machine(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "host", "shown"),
    [
        ("ssh://pi@raspberry.local:2222", SshMachine("pi@raspberry.local", 2222), "pi@raspberry.local:2222"),
        ("ssh://jetson", SshMachine("jetson"), "jetson"),
        ("ssh://Jetson_2/", SshMachine("Jetson_2"), "Jetson_2"),  # aliases in an ssh config tell case apart
        ("ssh://pi@[fe80::1%eth0]:22", SshMachine("pi@fe80::1%eth0", 22), "pi@[fe80::1%eth0]:22"),
        ("ssh://[::1]", SshMachine("::1"), "::1"),
        ("ssh://me@corp.com@host", SshMachine("me@corp.com@host"), "me@corp.com@host"),
        ("ssh://me%40corp.com@host", SshMachine("me@corp.com@host"), "me@corp.com@host"),
        ("ssh://first.last+x@host", SshMachine("first.last+x@host"), "first.last+x@host"),
    ],
)
def test_an_address_is_taken_apart(url: str, host: SshMachine, shown: str) -> None:
    assert ssh_machine(url) == host
    assert str(host) == shown


def test_ssh_is_told_neither_to_ask_nor_to_forward_and_the_user_how_to_get_there() -> None:
    host = ssh_machine("ssh://pi@host:2222", config=Path("my config"))
    command = host.command("true")
    assert command[-3:-1] == ["--", "pi@host"]
    assert {"BatchMode=yes", "ClearAllForwardings=yes"} <= set(command)
    assert host.by_hand == "ssh -p 2222 -F 'my config' pi@host"


@pytest.mark.parametrize("seconds", [math.nan, math.inf, 0.0, -1.0])
def test_a_timeout_is_a_number_of_seconds(seconds: float) -> None:
    with pytest.raises(ConfigError, match="the timeout is"):
        ssh_machine("ssh://host", timeout_s=seconds)
