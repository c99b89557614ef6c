"""`vit-deploy convert`: any checkpoint as our `.keras` or `.safetensors` file."""

from __future__ import annotations

from vit_deploy.cli.columns import paths, ranked
from vit_deploy.cli.options import CheckpointFile, Dialect, Force, OutputFile, OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import CheckpointOptions


@command
def convert(
    checkpoint: CheckpointFile,
    output: OutputFile,
    dialect: Dialect = None,
    force: Force = False,
    *,
    reading: CheckpointOptions,
    printing: OutputOptions,
) -> int:
    """Read a checkpoint of any known dialect and write it in ours, or in timm's; a fine-tuned head is folded in."""
    from vit_deploy import api
    from vit_deploy.cli.output import Output
    from vit_deploy.core.quantities import megabytes

    out = Output("convert", printing)
    with out.progress() as progress:
        converted = api.convert(checkpoint, output, dialect=dialect, reading=reading, force=force, progress=progress)
    out.tell_assumed(converted)
    file = converted.result
    if dialect == "timm" and (width := file.checkpoint.config.head_width):
        out.note(f"timm makes attention heads {width} wide by a class of its user's alone: see docs/sources.md, timm")
    digest, count = file.checkpoint.digest()[:12], f"{file.checkpoint.num_parameters / 1e6:.2f} M"
    columns = ranked((paths("checkpoint"), "size", "parameters", "digest"), ["size", "parameters", "digest"])
    row = (str(file.path), megabytes(file.bytes), count, digest)
    return out.show(converted, columns=columns, rows=[row])
