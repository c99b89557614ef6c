"""`vit-deploy bundle`: artifacts as one file that proves and times them on a device."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.options import Force, OutputOptions
from vit_deploy.cli.signature import command


@command
def bundle(
    artifacts: Annotated[
        list[Path], typer.Argument(metavar="ARTIFACT…", help="Bundles made by export.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE.tar.gz", help="What to write.", show_default=False)
    ],
    force: Force = False,
    *,
    printing: OutputOptions,
) -> int:
    """Pack artifacts with golden data and a runner that needs only Python, NumPy and the engine."""
    from vit_deploy.cli.output import Output
    from vit_deploy.core.artifact_folders import each_bundle
    from vit_deploy.core.quantities import megabytes
    from vit_deploy.core.staging import check_targets
    from vit_deploy.remote.device import OLDEST
    from vit_deploy.remote.packing import ROOT, pack

    if not output.name.endswith((".tar.gz", ".tgz")):
        raise typer.BadParameter(f"--output is {output.name!r}; expected a name that ends in .tar.gz")
    check_targets([output], force=force)
    out = Output("bundle", printing)
    artifacts = each_bundle(artifacts)
    with out.progress() as progress:
        progress(f"writing {output}")
        pack(artifacts, output, force=force)
    size = output.stat().st_size
    there = f"tar -xzf {shlex.quote(output.name)} && python3 {ROOT}/run.py verify && python3 {ROOT}/run.py bench"
    out.note(f"on the device, with Python {'.'.join(map(str, OLDEST))} or later, NumPy and the engine: {there}")
    return out.finish(
        [{"path": str(output), "bytes": size, "artifacts": [str(path) for path in artifacts]}],
        ok=True,
        columns=("file", "size", "artifacts"),
        rows=[(str(output), megabytes(size), str(len(artifacts)))],
    )
