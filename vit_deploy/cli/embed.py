"""The command `vit-deploy embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.columns import paths, prose, ranked
from vit_deploy.cli.options import Force, OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options.option import Option
from vit_deploy.core.options.streaming import EmbedOptions, StreamOptions

SHOWN = 20  # broken images that are named


@command
def embed(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="What is run.", show_default=False)],
    data: Annotated[
        tuple[str, ...],
        Option(
            metavar="DIR|GLOB|FILE",
            help="Images: a folder, a pattern, a .txt list, .npz, .parquet or .tar files, s3://…; repeat for more.",
        ),
    ],
    file: Annotated[Path, Option(names=("--file", "-o"), metavar="FILE.parquet|FILE.npy", help="What to write.")],
    *,
    running: EmbedOptions,
    reading: StreamOptions,
    force: Force = False,
    printing: OutputOptions,
) -> int:
    """Write what an artifact gives for each image of many; a run that was ended goes on where it was."""
    from vit_deploy.api import embedding as api
    from vit_deploy.cli.output import Output

    out = Output("embed", printing)
    options = {**vars(running), **vars(reading)}
    with out.progress() as progress:
        found = api.embed(artifact, data, file, **options, force=force, progress=progress, note=out.note)
    result = found.result
    for failure in result.failures[:SHOWN]:
        out.finding(f"broken: {failure}")
    if result.broken > SHOWN:
        out.finding(f"and {result.broken - SHOWN} more, which {result.path} names")
    columns = ranked((paths("written"), prose("runtime"), "images", "broken", "images/s"), ["images", "runtime"])
    done = result.images - result.resumed
    speed = f"{done / result.seconds:.1f}" if done and result.seconds else "-"
    row = (str(result.path), f"{result.runtime} ({result.provider or '-'})", result.images, result.broken, speed)
    return out.show(found, columns=columns, rows=[row])
