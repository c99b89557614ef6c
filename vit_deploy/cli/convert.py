"""`vit-deploy convert`: any checkpoint as our `.keras` or `.safetensors` file."""

from __future__ import annotations

from vit_deploy.cli.options import CheckpointFile, Force, OutputFile, OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import CheckpointOptions


@command
def convert(
    checkpoint: CheckpointFile,
    output: OutputFile,
    *,
    reading: CheckpointOptions,
    force: Force = False,
    printing: OutputOptions,
) -> int:
    """Read a checkpoint of any known dialect and write it in ours; a fine-tuned head is folded in."""
    from vit_deploy import checkpoints
    from vit_deploy.checkpoints.stated import stated_fields
    from vit_deploy.cli.output import Output
    from vit_deploy.core import documents
    from vit_deploy.core.quantities import megabytes

    checkpoints.check_target(output, force=force)
    out = Output("convert", printing)
    with out.progress() as progress:
        progress(f"reading {checkpoint}")
        loaded = checkpoints.load(checkpoint, config=stated_fields(reading))
        progress(f"writing {output}")
        checkpoints.save(loaded, output, force=force)
    out.assumed(checkpoint, loaded.provenance)
    record = documents.saved(output, loaded)
    rows = [(str(output), megabytes(record["bytes"]), f"{loaded.num_parameters / 1e6:.2f} M", loaded.digest()[:12])]
    return out.finish([record], ok=True, columns=("checkpoint", "size", "parameters", "digest"), rows=rows)
