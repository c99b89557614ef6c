"""`vit-deploy quantize`: from a proven fp32 artifact to smaller and faster ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.options import KNOWN_PRECISIONS, QUANTIZED, Force, KeepFailed, OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import Option, QuantizeOptions


@command
def quantize(
    artifact: Annotated[
        Path,
        typer.Argument(
            metavar="ARTIFACT", help="An fp32 artifact made by export, or a folder of artifacts.", show_default=False
        ),
    ],
    precision: Annotated[
        tuple[str, ...],
        Option(names=("--precision", "-p"), help=QUANTIZED, commas=True, values=KNOWN_PRECISIONS),
    ],
    output: Annotated[Path, Option(names=("--output", "-o"), metavar="DIR", help="Where the artifacts go.")],
    force: Force = False,
    keep_failed: KeepFailed = False,
    *,
    quantizing: QuantizeOptions,
    printing: OutputOptions,
) -> int:
    """Quantize an fp32 artifact, prove what comes out, and compare size, speed and accuracy with fp32."""
    from vit_deploy import api
    from vit_deploy.cli.output import Output
    from vit_deploy.cli.quantizing import show_artifacts

    out = Output("quantize", printing)
    with out.progress() as progress:
        done = api.quantize(
            artifact,
            output,
            precisions=precision,
            quantizing=quantizing,
            force=force,
            keep_failed=keep_failed,
            check=False,
            progress=progress,
        )
    return show_artifacts(out, done)
