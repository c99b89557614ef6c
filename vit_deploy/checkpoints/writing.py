"""Checkpoints written: as a file, by its suffix, or as the folder that another program saves."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.core.staging import check_targets, explained_os_errors, staged_file, staged_folder
from vit_deploy.errors import OutputError

# By the suffix of the file that is to be written.
WRITERS = Registry(
    "checkpoint suffix",
    {
        ".keras": Plugin("vit_deploy.checkpoints.keras.writer:write", extra="cpu", needs=("keras", "h5py")),
        ".safetensors": Plugin("vit_deploy.checkpoints.safetensors:write"),
    },
)

# Programs as whose folder a checkpoint can be written, and the files of which such a folder consists.
DIALECTS = Registry("dialect", {"timm": Plugin("vit_deploy.checkpoints.timm.writer:write")})
FILES_OF_DIALECTS = {"timm": frozenset({"model.safetensors", "config.json"})}
MOST_NAMES = 5  # of what else is in a folder


def check_target(path: str | Path, *, force: bool = False) -> None:
    """Refuse a target that `save` could not write, before any work is done for it.

    Raises:
        OutputError: its suffix is not one of `WRITERS`, it exists and `force` is not set, or it is a folder.
        MissingEngineError: writing it takes a library that is not installed.
    """
    path = Path(path)
    if path.suffix not in WRITERS:
        raise OutputError(
            f"a checkpoint cannot be written as {path.name}", fix=f"give a name that ends in {' or '.join(WRITERS)}"
        )
    if path.is_dir():
        raise OutputError(f"{path} is a folder", fix="give a file name")
    check_targets([path], force=force)
    WRITERS.check(path.suffix)


def save(checkpoint: Checkpoint, path: str | Path, *, force: bool = False) -> None:
    """Write a checkpoint, whole or not at all.

    Args:
        checkpoint: config, weights, preprocessing, labels and provenance all go into the file.
        path: ends in `.safetensors`, which needs no engine, or `.keras`.
        force: whether a file that is there is replaced.

    Raises:
        OutputError: as `check_target`, or the disk refuses.
        MissingEngineError: as `check_target`.
    """
    path = Path(path)
    check_target(path, force=force)
    write = WRITERS.load(path.suffix)
    with staged_file(path, force=force) as staged:
        write(checkpoint, staged)


def check_folder_target(
    folder: str | Path, dialect: str, *, force: bool = False, read: Iterable[str | Path] = ()
) -> None:
    """Refuse a folder that `save_as` could not write or must not replace, before any work is done for it.

    Args:
        folder: that is to be written.
        dialect: the program, one of `DIALECTS`.
        force: whether a folder that it wrote before is replaced.
        read: files and folders that the work reads, none of which may go with the folder that is replaced.

    Raises:
        ConfigError: there is no such dialect.
        OutputError: the folder is there and `force` is not set, holds anything else than what is written, or is read.
    """
    DIALECTS.check(dialect)
    folder = Path(folder)
    check_targets([folder], force=force)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OutputError(f"{folder} is a file", fix="give the name of a folder")
    with explained_os_errors(folder):
        inside = {
            path.name for path in folder.iterdir() if path.name not in FILES_OF_DIALECTS[dialect] or path.is_dir()
        }
    if inside:
        shown = ", ".join(sorted(inside)[:MOST_NAMES]) + (", …" if len(inside) > MOST_NAMES else "")
        raise OutputError(
            f"{folder} holds more than a folder of {dialect}'s, and is not replaced: {shown}",
            fix="choose another output, or empty it first",
        )
    if own := [str(path) for path in read if Path(path).resolve().is_relative_to(folder.resolve())]:
        raise OutputError(f"{folder} is read, as {', '.join(own)}, and is not replaced", fix="choose another output")


def save_as(checkpoint: Checkpoint, folder: str | Path, dialect: str, *, force: bool = False) -> None:
    """Write a checkpoint as the folder that another program saves, whole or not at all.

    Args:
        checkpoint: config, weights, preprocessing and labels go into the folder.
        folder: for its weights and its config.json.
        dialect: the program, one of `DIALECTS`.
        force: whether a folder that holds nothing but what such a program saves is replaced.

    Raises:
        ConfigError: there is no such dialect.
        OutputError: the program has no such model, the folder exists and `force` is not set or holds anything else, or
            the disk refuses.
    """
    check_folder_target(folder, dialect, force=force)
    with staged_folder(Path(folder), force=force) as stage:
        DIALECTS.load(dialect)(checkpoint, stage.folder)
        check_folder_target(folder, dialect, force=force)  # what has come into it meanwhile stays
