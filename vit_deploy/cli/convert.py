"""`vit-deploy convert`: any checkpoint as our `.keras` or `.safetensors` file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.options import Force, Json, Quiet, Verbose


def convert(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint file or folder.", show_default=False)],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE.keras|FILE.safetensors", help="What to write.", show_default=False
        ),
    ],
    config: Annotated[
        Path | None, typer.Option(metavar="FILE.json", help="The config, where the checkpoint has none.")
    ] = None,
    force: Force = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Read a checkpoint of any known dialect and write it in ours; a fine-tuned head is folded in."""
    from vit_deploy import checkpoints
    from vit_deploy.cli.output import Output
    from vit_deploy.report import megabytes

    checkpoints.check_target(output, force=force)
    out = Output("convert", as_json=json, quiet=quiet)
    with out.progress() as progress:
        progress(f"reading {checkpoint}")
        loaded = checkpoints.load(checkpoint, config=checkpoints.read_config(config) if config else None)
        progress(f"writing {output}")
        checkpoints.save(loaded, output, force=force)
    size = output.stat().st_size
    record = {
        "path": str(output),
        "bytes": size,
        "parameters": loaded.num_parameters,
        "config": loaded.config.to_dict(),
        "weights_digest": loaded.digest(),
    }
    rows = [(str(output), megabytes(size), f"{loaded.num_parameters / 1e6:.2f} M", loaded.digest()[:12])]
    return out.finish([record], ok=True, columns=("checkpoint", "size", "parameters", "digest"), rows=rows)
