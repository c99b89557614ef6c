"""Options of commands that run on other machines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from vit_deploy.core.options.option import Option, panel

PYTHON = "python3"
TIMEOUT_S = 600.0


@panel("Other machines")
@dataclass(frozen=True)
class HostOptions:
    """Machines to run on instead of this one.

    Args:
        on: addresses as `ssh://user@host[:port]`, `qemu://cpu` for an Arm computer that is emulated here, or, to time,
            `adb://serial` for an Android device.
        remote_python: command of the Python there.
        ssh_config: config file of ssh, instead of the user's.
        timeout: seconds for each machine, sending included.
        hosts: file that names machines, with groups and options of each; see `hosts_file.read_hosts`.
        group: of the machines in that file, those that are in one of these; none for all.
    """

    on: Annotated[
        tuple[str, ...],
        Option(
            metavar="ssh://USER@HOST",
            help="Another machine to run on, qemu://CPU for an emulated Arm computer, or adb://SERIAL to time on an "
            "Android device; repeat for more.",
            commas=True,
        ),
    ] = ()
    remote_python: Annotated[str, Option(help="Python there.")] = PYTHON
    ssh_config: Annotated[Path | None, Option(metavar="FILE", help="Of ssh, instead of the user's.")] = None
    timeout: Annotated[float, Option(min=1, help="Seconds for each machine, sending included.")] = TIMEOUT_S
    hosts: Annotated[
        Path | None, Option(metavar="FILE", help="Machines by name, with groups and options of each: TOML, or lines.")
    ] = None
    group: Annotated[tuple[str, ...], Option(help="Of the machines of --hosts; repeat for more.", commas=True)] = ()

    @property
    def elsewhere(self) -> bool:
        """Whether any machine is named."""
        return bool(self.on) or self.hosts is not None or bool(self.group)


@panel("Other machines")
@dataclass(frozen=True)
class AndroidOptions:
    """What times files on Android devices.

    Args:
        benchmark_model: LiteRT's program of that name for the device's processor; None where there is no device.
    """

    benchmark_model: Annotated[
        Path | None, Option(metavar="FILE", help="LiteRT's benchmark_model for the devices of --on adb://SERIAL.")
    ] = None
