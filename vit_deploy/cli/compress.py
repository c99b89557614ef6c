"""`vit-deploy compress`: shrink, prune, cluster, or train for int8, and say what it brought."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from vit_deploy.cli.columns import ranked
from vit_deploy.cli.options import CheckpointFile, Force, OutputFile, OutputOptions
from vit_deploy.cli.signature import command
from vit_deploy.core.options import CheckpointOptions, CompressOptions, Option

if TYPE_CHECKING:  # at run time it would bring NumPy into every `--help`
    from vit_deploy.compression.table import Row

COLUMNS = ranked(
    ("", "file", "top-1", "zeros", "distinct", "size", "gzipped", "latency", "steady"),
    ("size", "steady", "latency", "zeros", "gzipped", "distinct"),
)


@command
def compress(
    checkpoint: CheckpointFile,
    data: Annotated[
        Path,
        Option(
            metavar="DIR|FILE.npz",
            help="To train on: a folder with a folder of images for each class, or uint8 images and labels.",
        ),
    ],
    output: OutputFile,
    held_out_data: Annotated[
        Path | None,
        Option(metavar="DIR|FILE.npz", help="To judge by; without it every fifth image, which is not trained on."),
    ] = None,
    speed: Annotated[bool, Option(help="Time the exported files.")] = True,
    force: Force = False,
    *,
    options: CompressOptions,
    reading: CheckpointOptions,
    printing: OutputOptions,
) -> int:
    """Train a checkpoint to be smaller, pruned, clustered or good in int8. A killed run goes on when started again."""
    from vit_deploy import api
    from vit_deploy.cli.output import Output

    out = Output("compress", printing)
    with out.progress() as progress:
        done = api.compress(
            checkpoint,
            output,
            options,
            data=data,
            held_out_data=held_out_data,
            speed=speed,
            reading=reading,
            force=force,
            progress=progress,
            tell=out.note,
        )
    out.tell_assumed(done)
    for note in done.notes:
        out.note(note)
    table = done.result.table
    for line in done.result.verdicts:
        (out.finding if line in table.failures else out.note)(line)
    return out.show(done, columns=COLUMNS, rows=list(map(_cells, table.rows)))


def _cells(row: Row) -> tuple[str | int, ...]:
    from vit_deploy.core.quantities import megabytes, milliseconds

    return (
        row.state,
        row.name,
        f"{row.top1:.2%}",
        f"{row.sparsity:.1%}",
        row.distinct,
        megabytes(row.bytes),
        megabytes(row.gzip_bytes),
        "-" if row.latency_ms is None else f"{milliseconds(row.latency_ms)} ms",
        "-" if row.latency_ms is None else "NO" if row.unsteady else "yes",
    )
