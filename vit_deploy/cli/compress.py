"""`vit-deploy compress`: prune, cluster, or train for int8, and say what it brought."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vit_deploy.cli.options import CheckpointFile, Force, OutputFile, OutputOptions, split_at_commas
from vit_deploy.cli.signature import command
from vit_deploy.core.options import CheckpointOptions

Data = Annotated[
    Path,
    typer.Option(
        metavar="DIR|FILE.npz",
        help="To train on: a folder with a folder of images for each class, or uint8 images and labels.",
        show_default=False,
    ),
]
TRAINING, METHOD = "Training", "The method"


@command
def compress(
    checkpoint: CheckpointFile,
    method: Annotated[str, typer.Option(metavar="prune|cluster|qat", help="What to do.", show_default=False)],
    data: Data,
    output: OutputFile,
    held_out_data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE.npz", help="To judge by; without it every fifth image, which is not trained on."
        ),
    ] = None,
    sparsity: Annotated[float, typer.Option(help="prune: fraction of zeros.", rich_help_panel=METHOD)] = 0.6,
    schedule: Annotated[
        str, typer.Option(help="prune: polynomial or constant.", rich_help_panel=METHOD)
    ] = "polynomial",
    pattern: Annotated[
        str, typer.Option(help="prune: any, or 2:4 along the inputs (half are zeros).", rich_help_panel=METHOD)
    ] = "any",
    clusters: Annotated[int, typer.Option(help="cluster: values a kernel.", rich_help_panel=METHOD)] = 16,
    centroids: Annotated[
        str, typer.Option(help="cluster: kmeans++, linear, density or random.", rich_help_panel=METHOD)
    ] = "kmeans++",
    keep: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="Leave alone, as head or block_0.*; repeat for more.",
            rich_help_panel=METHOD,
            callback=split_at_commas,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="At most.", rich_help_panel=TRAINING)] = 20,
    batch: Annotated[int, typer.Option(help="Images a step.", rich_help_panel=TRAINING)] = 64,
    lr: Annotated[
        float | None,
        typer.Option(min=1e-12, help="Of AdamW, after the warm-up; 1e-4 for qat, else 5e-4.", rich_help_panel=TRAINING),
    ] = None,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.", rich_help_panel=TRAINING)] = 1e-4,
    warmup: Annotated[float, typer.Option(help="Fraction of all steps.", rich_help_panel=TRAINING)] = 0.1,
    patience: Annotated[
        int, typer.Option(help="Epochs without gain until it ends; 0 for never.", rich_help_panel=TRAINING)
    ] = 8,
    distill: Annotated[
        float, typer.Option(help="Share of the loss that follows the original's answers.", rich_help_panel=TRAINING)
    ] = 0.9,
    temperature: Annotated[float, typer.Option(help="Of both models' answers.", rich_help_panel=TRAINING)] = 2.0,
    augment: Annotated[
        str, typer.Option(help="crop, flip, randaugment, mixup, with commas; or none.", rich_help_panel=TRAINING)
    ] = "crop",
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.", rich_help_panel=TRAINING)] = 0,
    speed: Annotated[bool, typer.Option("--speed/--no-speed", help="Time the exported files.")] = True,
    *,
    reading: CheckpointOptions,
    force: Force = False,
    printing: OutputOptions,
) -> int:
    """Train a checkpoint to be pruned, clustered or good in int8. A killed run goes on when it is started again."""
    import shutil
    import tempfile

    from vit_deploy import checkpoints
    from vit_deploy.checkpoints.stated import stated_fields
    from vit_deploy.cli.output import Output
    from vit_deploy.compression import USUAL, Augmentation, CompressOptions, check
    from vit_deploy.compression.history import in_words, is_gained
    from vit_deploy.compression.stage import compress as run
    from vit_deploy.compression.table import measure, verdicts
    from vit_deploy.core import documents
    from vit_deploy.core.quantities import megabytes, milliseconds

    options = CompressOptions(
        method=method,
        sparsity=sparsity,
        schedule=schedule,  # type: ignore[arg-type]  # settled there
        pattern=pattern,  # type: ignore[arg-type]
        clusters=clusters,
        centroids=centroids,  # type: ignore[arg-type]
        keep=tuple(keep or ()),
        epochs=epochs,
        batch=batch,
        learning_rate=USUAL if lr is None else lr,
        weight_decay=weight_decay,
        warmup=warmup,
        patience=patience,
        distill=distill,
        temperature=temperature,
        augment=() if augment == "none" else tuple(augment.replace(" ", "").split(",")),  # type: ignore[arg-type]
        seed=seed,
    )
    check(method)
    checkpoints.check_target(output, force=force)
    out = Output("compress", printing)
    with out.progress() as progress:
        progress(f"reading {checkpoint}")
        before = checkpoints.load(checkpoint, config=stated_fields(reading))
        state = output.with_name(f"{output.name}.training")
        try:
            result = run(
                before,
                options,
                data,
                held_out=held_out_data,
                state=state,
                progress=progress,
                told=lambda record: out.note(f"epoch {record['epoch']}: {in_words(record)}"),
            )
        except KeyboardInterrupt:
            if state.exists():
                out.note(f"what was trained is in {state}; the same command goes on from there")
            raise
        checkpoints.save(result.checkpoint, output, force=force)
        shutil.rmtree(state, ignore_errors=True)
        with tempfile.TemporaryDirectory(prefix="vit-deploy-compress-") as folder:
            table = measure(
                before,
                result.checkpoint,
                result.held_out,
                Path(folder),
                quantized=method == "qat",
                speed=speed,
                calibrate=result.trained_on,
                progress=progress,
            )
    out.assumed(checkpoint, before.provenance)
    said = [*verdicts(table.rows), *table.failures]
    if not is_gained(result.history):
        said.insert(0, "training gained nothing on the held-out images: the loss was less before the first step")
    for words in dict.fromkeys(each.mapping.words for each in (result.trained_on, result.held_out)):
        if words:
            out.note(words)
    if result.resumed:
        out.note(f"went on from {state}")
    if Augmentation.FLIP in options.augment:
        out.note("images were flipped: left and right must not matter to the classes")
    for line in said:
        (out.finding if line in table.failures else out.note)(line)
    record = documents.saved(output, result.checkpoint) | {
        "method": method,
        "best_epoch": result.best_epoch,
        "history": [dict(each) for each in result.history],
        "files": [each.to_dict() for each in table.rows],
        "verdicts": said,
        **result.held_out.mapping.record,
    }
    return out.finish(
        [record],
        ok=table.ok,
        columns=("", "file", "top-1", "zeros", "distinct", "size", "gzipped", "latency", "steady"),
        rows=[
            (
                each.state,
                each.name,
                f"{each.top1:.2%}",
                f"{each.sparsity:.1%}",
                each.distinct,
                megabytes(each.bytes),
                megabytes(each.gzip_bytes),
                "-" if each.latency_ms is None else f"{milliseconds(each.latency_ms)} ms",
                "-" if each.latency_ms is None else "NO" if each.unsteady else "yes",
            )
            for each in table.rows
        ],
    )
