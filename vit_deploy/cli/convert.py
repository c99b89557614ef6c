"""`vit-deploy convert`: any checkpoint as our `.keras` or `.safetensors` file."""

from __future__ import annotations

from vit_deploy.cli.options import (
    ActivationName,
    CheckpointFile,
    ConfigFile,
    Epsilon,
    Force,
    Json,
    LabelsFile,
    Mean,
    NoHead,
    NumHeads,
    OutputFile,
    Quiet,
    Std,
    Verbose,
    stated_fields,
)


def convert(
    checkpoint: CheckpointFile,
    output: OutputFile,
    config: ConfigFile = None,
    num_heads: NumHeads = None,
    epsilon: Epsilon = None,
    activation: ActivationName = None,
    mean: Mean = None,
    std: Std = None,
    labels: LabelsFile = None,
    no_head: NoHead = False,
    force: Force = False,
    json: Json = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> int:
    """Read a checkpoint of any known dialect and write it in ours; a fine-tuned head is folded in."""
    from vit_deploy import checkpoints
    from vit_deploy.cli.output import Output
    from vit_deploy.core import documents
    from vit_deploy.core.quantities import megabytes

    checkpoints.check_target(output, force=force)
    out = Output("convert", as_json=json, quiet=quiet)
    with out.progress() as progress:
        progress(f"reading {checkpoint}")
        loaded = checkpoints.load(
            checkpoint, config=stated_fields(config, num_heads, epsilon, activation, mean, std, labels, no_head)
        )
        progress(f"writing {output}")
        checkpoints.save(loaded, output, force=force)
    out.assumed(checkpoint, loaded.provenance)
    record = documents.saved(output, loaded)
    rows = [(str(output), megabytes(record["bytes"]), f"{loaded.num_parameters / 1e6:.2f} M", loaded.digest()[:12])]
    return out.finish([record], ok=True, columns=("checkpoint", "size", "parameters", "digest"), rows=rows)
