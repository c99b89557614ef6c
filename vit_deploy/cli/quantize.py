"""`vit-deploy quantize`: from a proven fp32 bundle to smaller and faster ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.options import QUANTIZED, Force, KeepFailed, OutputOptions, split_at_commas
from vit_deploy.cli.signature import command
from vit_deploy.core.options import QuantizeOptions


@command
def quantize(
    artifact: Annotated[
        Path,
        typer.Argument(
            metavar="ARTIFACT", help="An fp32 bundle made by export, or a folder of bundles.", show_default=False
        ),
    ],
    precision: Annotated[
        list[str],
        typer.Option(
            "--precision",
            "-p",
            help=QUANTIZED,
            callback=split_at_commas,
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="Where the bundles go.", show_default=False)
    ],
    *,
    quantizing: QuantizeOptions,
    force: Force = False,
    keep_failed: KeepFailed = False,
    printing: OutputOptions,
) -> int:
    """Quantize an fp32 bundle, prove what comes out, and compare size, speed and accuracy with fp32."""
    from vit_deploy.cli.output import Output
    from vit_deploy.cli.quantizing import finish
    from vit_deploy.exporters.quantization.runnable import check_runs
    from vit_deploy.exporters.quantization.sources import plain_bundles, quantize_each

    out = Output("quantize", printing)
    with out.progress() as progress:
        works, skipped = plain_bundles(artifact, precision)
        for source, _ in works:
            check_runs(source)
        made = quantize_each(works, output, quantizing, force=force, keep_failed=keep_failed, progress=progress)
    return finish(out, made, skipped)
