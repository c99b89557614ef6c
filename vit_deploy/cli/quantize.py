"""`vit-deploy quantize`: from a proven fp32 bundle to smaller and faster ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.options import QUANTIZED, Force, Json, KeepFailed, Quiet, Verbose, split_at_commas
from vit_deploy.cli.quantizing import (
    AttentionBits,
    BiasCorrection,
    Calibrate,
    Clip,
    Data,
    FullRange,
    HalfIO,
    KeepFloat,
    MaxDrop,
    MinCosine,
    Percentile,
    ResidualBits,
    ShowSensitivity,
    Smoothing,
    Speed,
)


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
    calibrate: Calibrate = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="By which images are chosen.", show_default="0")
    ] = None,
    clipping: Clip = None,
    percentile: Percentile = None,
    smoothing: Smoothing = None,
    bias_correction: BiasCorrection = None,
    attention_bits: AttentionBits = None,
    residual_bits: ResidualBits = None,
    half_io: HalfIO = False,
    full_range: FullRange = False,
    keep_float: KeepFloat = None,
    max_drop: MaxDrop = None,
    min_cosine: MinCosine = None,
    data: Data = None,
    sensitivity: ShowSensitivity = False,
    speed: Speed = True,
    force: Force = False,
    keep_failed: KeepFailed = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Quantize an fp32 bundle, prove what comes out, and compare size, speed and accuracy with fp32."""
    from vit_deploy.cli.output import Output
    from vit_deploy.cli.quantizing import finish, quantize_options
    from vit_deploy.exporters.quantization.runnable import check_runs
    from vit_deploy.exporters.quantization.sources import plain_bundles, quantize_each

    options = quantize_options(
        calibrate=calibrate,
        seed=seed,
        clipping=clipping,
        percentile=percentile,
        smoothing=smoothing,
        bias_correction=bias_correction,
        attention_bits=attention_bits,
        residual_bits=residual_bits,
        half_io=half_io,
        full_range=full_range,
        keep_float=keep_float,
        max_drop=max_drop,
        min_cosine=min_cosine,
        data=data,
        sensitivity=sensitivity,
        speed=speed,
    )
    out = Output("quantize", as_json=json, quiet=quiet)
    with out.progress() as progress:
        works, skipped = plain_bundles(artifact, precision)
        for source, _ in works:
            check_runs(source)
        made = quantize_each(works, output, options, force=force, keep_failed=keep_failed, progress=progress)
    return finish(out, made, skipped)
