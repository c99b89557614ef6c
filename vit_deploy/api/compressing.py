"""The function that compresses a model through training."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vit_deploy import checkpoints
from vit_deploy.api.checkpoints import Saved
from vit_deploy.api.given import PathLike, Tell, silent
from vit_deploy.api.results import Outcome
from vit_deploy.checkpoints.hub.progress import telling
from vit_deploy.checkpoints.stated import stated_fields
from vit_deploy.compression import SHRINK, Augmentation, check
from vit_deploy.compression.history import in_words, is_gained
from vit_deploy.compression.stage import LEARNS_RANGES, Compressed
from vit_deploy.compression.stage import compress as train
from vit_deploy.compression.table import Table, measure, speedups, verdicts
from vit_deploy.compression.training_folder import training_folder
from vit_deploy.core import documents
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.cost import macs
from vit_deploy.core.options import CheckpointOptions, CompressOptions

NOTHING_GAINED = "training gained nothing on the held-out images: the loss was less before the first step"
STATES = ("before", "after")
FLIPPED = "images were flipped: left and right must not matter to the classes"


@dataclass(frozen=True)
class CompressedFile(Saved):
    """A checkpoint file of a compressed model.

    Args:
        training: what each epoch gave, and the images that were used.
        table: size, accuracy and speed of the exported files, before and after.
        verdicts: what was gained and what was not, in words.
    """

    training: Compressed
    table: Table
    verdicts: tuple[str, ...]


@dataclass(frozen=True)
class CompressOutcome(Outcome[CompressedFile]):
    """What `compress` has done.

    Args:
        notes: what has to be known of it, in words.
    """

    notes: tuple[str, ...] = ()
    command: ClassVar[str] = "compress"


def compress(
    checkpoint: PathLike,
    output: PathLike,
    options: CompressOptions,
    *,
    data: PathLike,
    held_out_data: PathLike | None = None,
    speed: bool = True,
    reading: CheckpointOptions = CheckpointOptions(),
    force: bool = False,
    progress: Tell = silent,
    tell: Tell = silent,
) -> CompressOutcome:
    """Train a checkpoint to be smaller, pruned, clustered or good in int8.

    A run that is killed goes on when it is started again: what it trained lies in `<output>.training` until then.

    Args:
        checkpoint: a file, a folder, or the name of a model on a hub.
        output: the file to write, `.keras` or `.safetensors`.
        options: the method, and how it trains.
        data: images to train on: a folder with a folder of images for each class, or an `.npz` of uint8 images and
            labels.
        held_out_data: images to judge by; None takes every fifth image of `data`, which is not trained on.
        speed: time the exported files.
        reading: what the checkpoint does not say.
        force: replace a file that is there.
        progress: called with what is being done.
        tell: called with what each epoch gave, in words.

    Raises:
        CheckpointError: the checkpoint is missing, broken or of no known dialect.
        ConfigError: layers that are not there.
        DataError: images or classes that the model cannot have.
        MissingEngineError: tensorflow-model-optimization or what it needs is not installed.
        EngineError: the training failed.
        OutputError: the file is there, cannot be written, or has a suffix that checkpoints are not written as; another
            run trains for it.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    check(options.method)
    checkpoints.check_target(output, force=force)
    progress(f"reading {checkpoint}")
    with telling(progress):
        before = checkpoints.load(checkpoint, config=stated_fields(reading))
    state = output.with_name(f"{output.name}.training")
    try:
        with training_folder(state) as locked:
            trained = train(
                before,
                options,
                Path(data),
                held_out=None if held_out_data is None else Path(held_out_data),
                state=locked,
                progress=progress,
                on_epoch=lambda record: tell(f"epoch {record['epoch']}: {in_words(record)}"),
            )
            checkpoints.save(trained.checkpoint, output, force=force)
            shutil.rmtree(state, ignore_errors=True)
    except KeyboardInterrupt:
        if state.exists():
            tell(f"what was trained is in {state}; the same command goes on from there")
        raise
    with tempfile.TemporaryDirectory(prefix="vit-deploy-compress-") as folder:
        table = measure(
            before,
            trained.checkpoint,
            trained.held_out,
            Path(folder),
            quantized=options.method == LEARNS_RANGES,
            int8=options.method == SHRINK,
            speed=speed,
            calibrate=trained.trained_on,
            progress=progress,
        )
    gained = [] if is_gained(trained.history) else [NOTHING_GAINED]
    slower = speedups(table.rows, options.speedup) if options.speedup else []
    said = (*gained, *verdicts(table.rows), *slower, *table.failures)
    costs = [macs(model.config) for model in (before, trained.checkpoint)]
    saved = documents.saved(output, trained.checkpoint)
    record = saved | {
        "method": options.method,
        "best_epoch": trained.best_epoch,
        "history": [dict(epoch) for epoch in trained.history],
        "files": [row.to_dict() for row in table.rows],
        "verdicts": list(said),
        **({"multiply_adds": dict(zip(STATES, costs, strict=True))} if options.method == SHRINK else {}),
        **trained.held_out.mapping.record,
    }
    return CompressOutcome(
        (CompressedFile(output, trained.checkpoint, saved["bytes"], trained, table, said),),
        (record,),
        table.ok,
        origins={checkpoint: before.provenance},
        notes=_notes(before, trained, state, options),
    )


def _sizes(before: Checkpoint, after: Checkpoint) -> str:
    config, costs = after.config, [macs(model.config) for model in (before, after)]
    return (
        f"{config.num_layers} of {before.config.num_layers} blocks, of {config.num_heads} heads of "
        f"{before.config.num_heads} and {config.mlp_dim} hidden units of {before.config.mlp_dim}: "
        f"1/{costs[0] / costs[1]:.2f} of the multiply-adds"
    )


def _notes(before: Checkpoint, trained: Compressed, state: Path, options: CompressOptions) -> tuple[str, ...]:
    mappings = dict.fromkeys(labelled.mapping.words for labelled in (trained.trained_on, trained.held_out))
    return (
        *filter(None, mappings),
        *((f"went on from {state}",) if trained.resumed else ()),
        *((_sizes(before, trained.checkpoint),) if options.method == SHRINK else ()),
        *((FLIPPED,) if Augmentation.FLIP in options.augment else ()),
    )
