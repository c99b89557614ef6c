"""The command `vit-deploy emulator`."""

from __future__ import annotations

from typing import Annotated

import typer

from vit_deploy.cli.columns import prose
from vit_deploy.cli.completion import completion
from vit_deploy.cli.options import OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import Option

ACTIONS = ("setup", "show", "remove")


@command
def emulator(
    action: Annotated[
        str,
        typer.Argument(
            metavar="setup|show|remove",
            help="Fetch its parts into the cache (about 165 MB), show them, or remove them.",
            autocompletion=completion("vit_deploy.cli.emulator:ACTIONS"),
            show_default=False,
        ),
    ],
    mirror: Annotated[
        str | None, Option(metavar="URL", help="Of Debian's packages.", show_default="https://deb.debian.org/debian")
    ] = None,
    *,
    printing: OutputOptions,
) -> int:
    """Emulate Arm computers here: after `setup`, verify and bench take --on qemu://cortex-a76.

    QEMU, Python for Arm and the engines' wheels are fetched once; nothing is installed, and no rights are needed.
    """
    from vit_deploy.api import insight as api
    from vit_deploy.cli.output import Output
    from vit_deploy.core.quantities import megabytes

    if action not in ACTIONS:
        raise typer.BadParameter(f"there is no {action!r}; expected one of {', '.join(ACTIONS)}")
    out = Output("emulator", printing)
    with out.progress() as progress:
        found = api.emulator(action, mirror=mirror, progress=progress, note=out.note)
    rows = [
        ("folder", str(found.result.folder)),
        ("size", megabytes(found.result.bytes)),
        *found.result.main_versions.items(),
        ("CPUs", ", ".join(found.records[0]["cpus"])),
    ]
    return out.show(found, columns=("removed" if action == "remove" else "what", prose("found")), rows=rows)
