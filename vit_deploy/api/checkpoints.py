"""Functions that write checkpoint files: build, convert and resize."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vit_deploy import checkpoints
from vit_deploy.api.given import PathLike, Tell, silent
from vit_deploy.api.models import Size, sides
from vit_deploy.api.results import Outcome
from vit_deploy.checkpoints.hub.progress import telling
from vit_deploy.checkpoints.stated import stated_fields
from vit_deploy.core import documents
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.options import ArchitectureOptions, CheckpointOptions
from vit_deploy.core.resize import as_convention, assumed_convention, convention_of, sizes
from vit_deploy.core.resize import resize as resized_checkpoint
from vit_deploy.errors import UsageError
from vit_deploy.verification.drift import Drift, drift
from vit_deploy.verification.targets import read_again

SAME_SIZES = "the checkpoint has these sizes already; nothing was resampled"


@dataclass(frozen=True)
class Saved:
    """A checkpoint file that was written.

    Args:
        path: path of the file.
        checkpoint: what is in it.
        bytes: size of the file.
    """

    path: Path
    checkpoint: Checkpoint
    bytes: int


@dataclass(frozen=True)
class Resized(Saved):
    """A checkpoint file of a resized model.

    Args:
        before: `image_size` and `patch_size` as (height, width), as they were.
        after: the same as they are.
        convention: whose way of resampling was followed.
        drift: how far the features are from those before; None where that was not requested.
        resampled: whether anything was; not where the checkpoint has these sizes already.
    """

    before: dict[str, list[int]]
    after: dict[str, list[int]]
    convention: str
    drift: Drift | None
    resampled: bool


@dataclass(frozen=True)
class BuildOutcome(Outcome[Saved]):
    """What `build` has done."""

    command: ClassVar[str] = "build"


@dataclass(frozen=True)
class ConvertOutcome(Outcome[Saved]):
    """What `convert` has done."""

    command: ClassVar[str] = "convert"


@dataclass(frozen=True)
class ResizeOutcome(Outcome[Resized]):
    """What `resize` has done.

    Args:
        notes: what has to be known of it, in words.
    """

    notes: tuple[str, ...] = ()
    command: ClassVar[str] = "resize"


def build(
    scale: str,
    output: PathLike,
    *,
    image_size: Size = 224,
    patch_size: Size = 16,
    num_classes: int | None = None,
    seed: int = 0,
    architecture: ArchitectureOptions = ArchitectureOptions(),
    force: bool = False,
    progress: Tell = silent,
) -> BuildOutcome:
    """Write a ViT with seeded random weights, the same on every machine.

    Args:
        scale: "pico", "tiny", "small", "base", "large" or "huge".
        output: the file to write, `.keras` or `.safetensors`.
        image_size: pixels of a side, or (height, width).
        patch_size: pixels of a side, or (height, width).
        num_classes: outputs of the head; None for 1000.
        seed: of the weights.
        architecture: what the model has in place of what the scale says.
        force: replace a file that is there.
        progress: called with what is being done.

    Raises:
        ConfigError: no such scale, or values that no ViT can have.
        OutputError: the file is there, cannot be written, or has a suffix that checkpoints are not written as.
        MissingEngineError: a `.keras` file is written by Keras.
    """
    given = {} if num_classes is None else {"num_classes": num_classes}
    config = ViTConfig.from_scale(
        scale, image_size=sides(image_size), patch_size=sides(patch_size), **architecture.fields(), **given
    )
    output = Path(output)
    checkpoints.check_target(output, force=force)
    progress(f"drawing the weights of {scale}")
    checkpoint = Checkpoint.random(config, seed)
    progress(f"writing {output}")
    checkpoints.save(checkpoint, output, force=force)
    record = documents.saved(output, checkpoint)
    return BuildOutcome((Saved(output, checkpoint, record["bytes"]),), (record,))


def convert(
    checkpoint: PathLike,
    output: PathLike,
    *,
    dialect: str | None = None,
    reading: CheckpointOptions = CheckpointOptions(),
    force: bool = False,
    progress: Tell = silent,
) -> ConvertOutcome:
    """Read a checkpoint of any known dialect and write it in ours, or in timm's; a fine-tuned head is folded in.

    Args:
        checkpoint: a file, a folder, or the name of a model on a hub, as "timm:NAME.TAG" or "hf:org/name".
        output: the file to write, `.keras` or `.safetensors`; the folder to write where a dialect is given.
        dialect: "timm" for a folder that timm loads; None for a file of ours.
        reading: what the checkpoint does not say.
        force: replace a file that is there; of folders one that holds nothing but what is written, and is not read.
        progress: called with what is being done.

    Raises:
        CheckpointError: the checkpoint is missing, broken or of no known dialect.
        OutputError: the file is there, cannot be written, or has a suffix that checkpoints are not written as; or the
            program of the dialect has no such model, or the folder must not be replaced.
        MissingEngineError: a container or a `.keras` file takes a library that is not installed.
    """
    checkpoint, output = Path(checkpoint), Path(output)
    if dialect is None:
        checkpoints.check_target(output, force=force)
    else:
        read = [checkpoint, *(value for value in vars(reading).values() if isinstance(value, Path))]
        checkpoints.check_folder_target(output, dialect, force=force, read=read)
    progress(f"reading {checkpoint}")
    with telling(progress):
        loaded = checkpoints.load(checkpoint, config=stated_fields(reading))
    progress(f"writing {output}")
    if dialect is None:
        checkpoints.save(loaded, output, force=force)
    else:
        checkpoints.save_as(loaded, output, dialect, force=force)
    record = documents.saved(output, loaded)
    origins = {checkpoint: loaded.provenance}
    return ConvertOutcome((Saved(output, loaded, record["bytes"]),), (record,), origins=origins)


def resize(
    checkpoint: PathLike,
    output: PathLike,
    *,
    image_size: Size | None = None,
    patch_size: Size | None = None,
    like: str | None = None,
    report: bool = False,
    reading: CheckpointOptions = CheckpointOptions(),
    force: bool = False,
    progress: Tell = silent,
) -> ResizeOutcome:
    """Resample the position table and the patch kernel, as the program does that the checkpoint came from.

    Args:
        checkpoint: a file, a folder, or the name of a model on a hub, as "timm:NAME.TAG" or "hf:org/name".
        output: the file to write, `.keras` or `.safetensors`.
        image_size: pixels of a side, or (height, width); None leaves it as it is.
        patch_size: likewise; one of the two is needed.
        like: whose way of resampling: "timm", "huggingface", "google", "dinov2", "dinov2-registers", "siglip2" or "pe";
            None for that of the checkpoint's own family, else timm's.
        report: measure how far the features drift on the sample images.
        reading: what the checkpoint does not say.
        force: replace a file that is there.
        progress: called with what is being done.

    Raises:
        UsageError: neither size is given.
        ConfigError: no such convention, or sizes that the model cannot have.
        CheckpointError, OutputError, MissingEngineError: as `convert`.
    """
    if image_size is None and patch_size is None:
        raise UsageError("nothing to resize to; give --image-size, --patch-size or both")
    checkpoint, output = Path(checkpoint), Path(output)
    asked = as_convention(like) if like is not None else None
    checkpoints.check_target(output, force=force)
    progress(f"reading {checkpoint}")
    with telling(progress):
        pixels, patch = (None if size is None else sides(size) for size in (image_size, patch_size))
        own = checkpoints.load(checkpoint, config=stated_fields(reading))
        loaded = own
        if asked is None:
            loaded = checkpoints.read_at(pixels, own, checkpoint, config=stated_fields(reading))
    progress("resizing")
    resized = resized_checkpoint(loaded, pixels, patch, asked)
    progress(f"writing {output}")
    checkpoints.save(resized, output, force=force)
    drifted = None
    if report:
        progress("comparing the features")
        drifted = drift(own, resized)
    saved = documents.saved(output, resized)
    result = Resized(
        output,
        resized,
        saved["bytes"],
        before=sizes(own.config),
        after=sizes(resized.config),
        convention=str(convention_of(loaded, asked)),
        drift=drifted,
        resampled=resized is not own,
    )
    record = saved | {
        "from": result.before,
        "to": result.after,
        "convention": result.convention,
        "drift": drifted.to_dict() if drifted else None,
    }
    note = assumed_convention(loaded, asked) if result.resampled else SAME_SIZES
    if loaded is not own:
        note = read_again(loaded.config.image_size)
    notes = (note,) if note else ()
    return ResizeOutcome((result,), (record,), origins={checkpoint: loaded.provenance}, notes=notes)
