"""The folder of a training, for one run at a time, which stays where there is something to go on from."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vit_deploy.compression.round_state import rounds_in
from vit_deploy.compression.state import FILE
from vit_deploy.core.staging import check_targets, explained_refusal, made_parents, only_run
from vit_deploy.errors import OutputError

LOCK = ".lock"  # a folder
PATIENCE_S = 5  # for the process of a run that was killed, which ends when it notices


@dataclass(frozen=True)
class TrainingFolder:
    """A folder that nobody else trains in.

    Args:
        path: the folder.
        lock: descriptor that holds its lock, for the process that trains to hold it too; None where there are no locks.
    """

    path: Path
    lock: int | None


@contextlib.contextmanager
def training_folder(path: Path) -> Iterator[TrainingFolder]:
    """A folder to train in, which an error takes away again unless there is something in it to go on from.

    Args:
        path: the folder. A run that is killed leaves in it what it trained, and the next one with the same model,
            options and data goes on from there. It is for the caller to remove, in the block, once the result is safe.

    Raises:
        OutputError: another run trains there, or it cannot be written.
    """
    check_targets([path], force=True)
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path}, where the training is to be kept, is a file", fix="move it, or choose another -o")
    with made_parents(path), contextlib.ExitStack() as stack:
        with explained_refusal(path):
            path.mkdir(exist_ok=True)
            (path / LOCK).mkdir(exist_ok=True)
            lock = stack.enter_context(only_run(path, by=path / LOCK, patience_s=PATIENCE_S))
        try:
            yield TrainingFolder(path, lock)
        except BaseException:
            if not (path / FILE).exists() and not rounds_in(path):
                shutil.rmtree(path, ignore_errors=True)
            raise
