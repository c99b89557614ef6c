"""Machines by name, with groups and options of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from vit_deploy.errors import ConfigError
from vit_deploy.remote.hosts_file import Host, machines
from vit_deploy.remote.options import HostOptions

TOML = """
[defaults]
timeout = 30
remote_python = "python3.12"

[groups.arm]
remote_python = "venv/bin/python"

[hosts.pi]
address = "ssh://pi@10.0.0.7"
groups = ["arm", "kitchen"]

[hosts.board]
address = "ssh://board:2222"
groups = ["arm"]
remote_python = "python3.10"
timeout = 900
ssh_config = "keys/config"

[hosts.server]
address = "ssh://server"
"""


def named(path: Path, *group: str, **options) -> list[Host]:
    return machines(HostOptions(hosts=path, group=group, **options))


def test_each_machine_has_its_own_options_before_those_of_its_groups_and_of_all(tmp_path):
    path = tmp_path / "hosts.toml"
    path.write_text(TOML)
    assert named(path) == [
        Host("pi", "ssh://pi@10.0.0.7", ("arm", "kitchen"), "venv/bin/python", None, 30),
        Host("board", "ssh://board:2222", ("arm",), "python3.10", tmp_path / "keys/config", 900),
        Host("server", "ssh://server", (), "python3.12", None, 30),
    ]


def test_groups_choose_and_options_of_the_command_line_stand_behind_those_of_the_file(tmp_path):
    path = tmp_path / "hosts.toml"
    path.write_text(TOML)
    assert [host.name for host in named(path, "kitchen")] == ["pi"]
    assert [host.name for host in named(path, "kitchen", "arm")] == ["pi", "board"]
    both = machines(HostOptions(on=("ssh://x",), hosts=path, group=("kitchen",), timeout=5.0))
    assert [(host.name, host.timeout) for host in both] == [("ssh://x", 5.0), ("pi", 30)]
    with pytest.raises(ConfigError, match="has no group 'amr'") as error:
        named(path, "amr")
    assert "arm" in error.value.fix
    with pytest.raises(ConfigError, match="--group chooses from the machines of --hosts"):
        machines(HostOptions(group=("arm",)))


def test_lines_name_machines_too(tmp_path):
    path = tmp_path / "hosts.txt"
    path.write_text("# ours\n\npi ssh://pi@10.0.0.7 arm, kitchen  # by the window\nssh://server\n")
    assert named(path, remote_python="python3.11") == [
        Host("pi", "ssh://pi@10.0.0.7", ("arm", "kitchen"), "python3.11"),
        Host("ssh://server", "ssh://server", (), "python3.11"),
    ]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("h.toml", "[hosts.a]\nadress = 'ssh://a'\n[host.b]\n", "unknown table 'host'; hosts.a has no address"),
        (
            "h.toml",
            "[hosts.a]\naddress = 'ssh://a'\nport = 3\ntimeout = '9'\n",
            "'port', which is no option; hosts.a.tim",
        ),
        ("h.toml", "[hosts.a]\naddress = 'ssh://a'\ngroups = 'x'\n", "expected a list of names"),
        ("h.toml", "[hosts", "is no TOML"),
        ("h.toml", "", "names no machine"),
        ("h.txt", "pi 10.0.0.7\n", "line 1 of .* has no address"),
        ("h.txt", "a ssh://a\na ssh://b\n", "names a twice"),
    ],
)
def test_a_file_that_says_what_no_machine_has_is_refused(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=said) as error:
        named(tmp_path / name)
    assert error.value.fix
    with pytest.raises(ConfigError, match="cannot be read"):
        named(tmp_path / "absent.toml")
