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
        on: addresses as `ssh://user@host[:port]`, or `qemu://cpu` for an Arm computer that is emulated here.
        remote_python: command of the Python there.
        ssh_config: config file of ssh, instead of the user's.
        timeout: seconds for each machine, sending included.
    """

    on: Annotated[
        tuple[str, ...],
        Option(
            metavar="ssh://USER@HOST",
            help="Another machine to run on, or qemu://CPU for an emulated Arm computer; repeat for more.",
            commas=True,
        ),
    ] = ()
    remote_python: Annotated[str, Option(help="Python there.")] = PYTHON
    ssh_config: Annotated[Path | None, Option(metavar="FILE", help="Of ssh, instead of the user's.")] = None
    timeout: Annotated[float, Option(min=1, help="Seconds for each machine, sending included.")] = TIMEOUT_S
