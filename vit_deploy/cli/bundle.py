"""`vit-deploy bundle`: artifacts as one file that proves and times them on a device."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.columns import paths, ranked
from vit_deploy.cli.options import Force, OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import Option


@command
def bundle(
    artifacts: Annotated[
        list[Path], typer.Argument(metavar="ARTIFACT…", help="Artifacts made by export.", show_default=False)
    ],
    output: Annotated[Path, Option(names=("--output", "-o"), metavar="FILE.tar.gz", help="What to write.")],
    force: Force = False,
    commands: Annotated[
        tuple[str, ...],
        Option(
            names=("--command",),
            help="What the runner is for; repeat for more, or join by commas.",
            show_default="all that it can do",
            commas=True,
            values="vit_deploy.remote.work:COMMANDS",
        ),
    ] = (),
    *,
    printing: OutputOptions,
) -> int:
    """Pack artifacts with golden data and a runner that needs only Python, NumPy and the engine."""
    from vit_deploy.api import insight as api
    from vit_deploy.cli.output import Output
    from vit_deploy.core.quantities import megabytes
    from vit_deploy.remote.device import OLDEST
    from vit_deploy.remote.packing import ROOT

    out = Output("bundle", printing)
    with out.progress() as progress:
        found = api.bundle(artifacts, output, commands=commands or (), force=force, progress=progress)
    calls = [f"python3 {ROOT}/run.py {name}" for name in commands or ("verify", "bench")]
    there = " && ".join((f"tar -xzf {shlex.quote(output.name)}", *calls))
    out.note(f"on the device, with Python {'.'.join(map(str, OLDEST))} or later, NumPy and the engine: {there}")
    [record] = found.records
    row = (record["path"], megabytes(record["bytes"]), str(len(record["artifacts"])))
    return out.show(found, columns=ranked((paths("file"), "size", "artifacts"), ["size", "artifacts"]), rows=[row])
