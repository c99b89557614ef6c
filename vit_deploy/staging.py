"""How does an output appear whole or not at all?

Work happens in a hidden folder beside the target, which is renamed when it is done. A run that is
killed leaves only that folder behind, and the next run beside it takes it away: every run holds a lock
on its own, so that a lock that can be had means that nobody works there any more.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vit_deploy.errors import OutputError

HAS_LOCKS = importlib.util.find_spec("fcntl") is not None  # not on Windows, where stale folders then stay
PREFIX = ".vit-deploy-"
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def check_targets(targets: Iterable[Path], *, force: bool) -> None:
    """Refuse work whose result could not be put where it belongs.

    Raises:
        OutputError: targets exist and `force` is not set, or lie below a file; names all of them.
    """
    targets = list(targets)
    below_file = [path for path in targets if any(parent.is_file() for parent in path.parents)]
    if below_file:
        raise OutputError(
            f"cannot write below a file: {', '.join(map(str, below_file))}", fix="choose another output folder"
        )
    existing = [path for path in targets if path.exists() or path.is_symlink()]
    if existing and not force:
        raise OutputError(
            f"already there: {', '.join(map(str, existing))}", fix="add --force to replace, or choose another output"
        )


@dataclass
class Stage:
    """A folder to work in.

    Attributes:
        folder: to write to.
        published: the name it will get, or got; None if it is dropped.
    """

    folder: Path
    published: Path | None

    def divert(self, target: Path | None) -> None:
        """Publish under another name instead, replacing what is there, or with None not at all."""
        self.published = target


@contextlib.contextmanager
def staged_folder(target: Path, *, force: bool = False) -> Iterator[Stage]:
    """A folder to work in, which becomes `target` if the block ends well and vanishes if it does not.

    Raises:
        OutputError: the target exists and `force` is not set, cannot be written, or the disk is full.
    """
    check_targets([target], force=force)
    with _made_parents(target), explained_os_errors(target), _locked_folder(target.parent) as folder:
        stage = Stage(folder, target)
        yield stage
        if stage.published is not None:
            _publish(folder, stage.published)


@contextlib.contextmanager
def staged_file(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A path to write to, with the target's own name, moved to `target` if the block ends well.

    Raises:
        OutputError: as `staged_folder`.
    """
    check_targets([target], force=force)
    if target.is_dir():
        raise OutputError(f"{target} is a folder", fix="give a file name")
    with _made_parents(target), explained_os_errors(target), _locked_folder(target.parent) as folder:
        yield folder / target.name
        (folder / target.name).replace(target)


@contextlib.contextmanager
def explained_os_errors(target: Path) -> Iterator[None]:
    """Turn what the file system refuses into an `OutputError` that names the target.

    Raises:
        OutputError: no space, no permission, or a read-only disk.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            free = shutil.disk_usage(_existing(target)).free / 1e6
            raise OutputError(
                f"no space left while writing {target} ({free:.0f} MB free)", fix="free some space or write elsewhere"
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise OutputError(f"no permission to write {target}", fix="choose another output folder") from error
        raise


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())


@contextlib.contextmanager
def _made_parents(target: Path) -> Iterator[None]:
    missing = [parent for parent in target.absolute().parents if not parent.exists()]
    with explained_os_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        for parent in missing:  # the deepest first; one that holds anything stays
            with contextlib.suppress(OSError):
                parent.rmdir()


@contextlib.contextmanager
def _locked_folder(parent: Path) -> Iterator[Path]:
    with _lock(parent):
        _remove_stale(parent)
        folder = parent / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        folder.mkdir()
        held = _lock(folder)
        held.__enter__()
    try:
        yield folder
    finally:
        held.__exit__(None, None, None)
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    if not HAS_LOCKS:
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_stale(parent: Path) -> None:
    if not HAS_LOCKS:
        return
    import fcntl

    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
            finally:
                os.close(descriptor)


def _publish(folder: Path, target: Path) -> None:
    # The lock goes with the renamed folder and ends with this block; an old target leaves through the
    # same kind of hidden name, so that a kill in between is cleaned up as well.
    if target.exists() or target.is_symlink():
        old = target.parent / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        target.rename(old)
        folder.rename(target)
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        else:
            old.unlink()
    else:
        folder.rename(target)
