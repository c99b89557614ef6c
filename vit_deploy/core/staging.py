"""Outputs that appear whole or not at all.

Work happens in a hidden folder beside the target, which is renamed when it is done. A run that is
killed leaves only that folder behind, and the next run beside it takes it away: every run holds a lock
on its own, so that a lock that can be had means that nobody works there any more. What a run replaces is set
aside under a hidden name for the moment of the exchange; if the run is killed just then, the next one puts it back.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vit_deploy.errors import OutputError

# Of network shares, mostly.
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, getattr(errno, "ENOTSUP", errno.EOPNOTSUPP), errno.EINVAL}
HAS_LOCKS = importlib.util.find_spec("fcntl") is not None  # not on Windows, where stale folders then stay
PREFIX = ".vit-deploy-"
ASIDE = ".vit-deploy-replaced-"  # and the target's own name
TRY_S = 0.1  # between two looks at a lock that another has
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_told: list[Path] = []  # where there are no locks, which is said once
NO_PERMISSION = {errno.EACCES, errno.EPERM, errno.EROFS}


def check_targets(targets: Iterable[Path], *, force: bool) -> None:
    """Refuse work whose result could not be put where it belongs.

    Raises:
        OutputError: targets exist and `force` is not set, lie below a file, or have impossible names; names all
            of them.
    """
    targets = list(targets)
    below_file = []
    existing = []
    for path in targets:
        with explained_refusal(path):
            if any(_is_there(parent) and not parent.is_dir() for parent in path.parents):
                below_file.append(path)
            elif _is_there(path):
                existing.append(path)
    if below_file:
        raise OutputError(
            f"cannot write below a file: {', '.join(map(str, below_file))}", fix="choose another output folder"
        )
    if existing and not force:
        raise _already_there(existing)


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()  # raises where lexists would not, as for a name that is too long


def _already_there(existing: Iterable[Path]) -> OutputError:
    return OutputError(
        f"already there: {', '.join(map(str, existing))}", fix="add --force to replace, or choose another output"
    )


@dataclass
class Stage:
    """A folder to work in.

    Attributes:
        folder: the folder to write to.
        published: the name it will get, or got; None if it is dropped.
    """

    folder: Path
    published: Path | None

    def divert(self, target: Path | None) -> None:
        """Publish under another name instead, or with None not at all."""
        self.published = target


@contextlib.contextmanager
def staged_folder(target: Path, *, force: bool = False) -> Iterator[Stage]:
    """A folder to work in, which becomes `target` if the block ends well and vanishes if it does not.

    Raises:
        OutputError: the target exists and `force` is not set, cannot be written, or the disk is full.
    """
    check_targets([target], force=force)
    with made_parents(target), explained_os_errors(target), _locked_folder(target.parent) as folder:
        stage = Stage(folder, target)
        yield stage
        if stage.published is not None:
            _publish(folder, stage.published, force=force)


@contextlib.contextmanager
def staged_file(target: Path, *, force: bool = False) -> Iterator[Path]:
    """A path to write to, with the target's own name, moved to `target` if the block ends well.

    Raises:
        OutputError: as `staged_folder`, or the target is a folder.
    """
    check_file_target(target, force=force)
    with made_parents(target), explained_os_errors(target), _locked_folder(target.parent) as folder:
        yield folder / target.name
        with _lock(target.parent):
            check_file_target(target, force=force)  # another run may have written it meanwhile
            (folder / target.name).replace(target)


def check_file_target(target: Path, *, force: bool) -> None:
    """Refuse a file that could not be written; see `check_targets`.

    Raises:
        OutputError: as `check_targets`, or the target is a folder.
    """
    check_targets([target], force=force or target.is_dir())
    if target.is_dir():
        raise OutputError(f"{target} is a folder", fix="give a file name")


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
        if error.errno in NO_PERMISSION:
            raise OutputError(f"no permission to write {target}", fix="choose another output folder") from error
        raise


@contextlib.contextmanager
def explained_refusal(target: Path) -> Iterator[None]:
    """The same before work begins, when whatever is refused is about the target: a long name, a loop of links.

    Raises:
        OutputError: anything that the file system refuses.
    """
    try:
        with explained_os_errors(target):
            yield
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror}", fix="choose another output") from error


def _existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.absolute().parents) if parent.exists())


@contextlib.contextmanager
def made_parents(target: Path) -> Iterator[None]:
    """The folders that a target lies in, of which those that were made go again where they are empty in the end.

    Raises:
        OutputError: they cannot be made.
    """
    with explained_refusal(target):
        missing = [parent for parent in target.absolute().parents if not parent.exists()]
    try:
        with explained_refusal(target):
            target.parent.mkdir(parents=True, exist_ok=True)
        yield
    finally:
        for parent in missing:  # the deepest first; one that holds anything stays
            with contextlib.suppress(OSError):
                parent.rmdir()


@contextlib.contextmanager
def only_run(folder: Path, *, by: Path | None = None, patience_s: float = 0) -> Iterator[int | None]:
    """A lock for one run at a time in a folder that stays; it ends with the last process that has its descriptor.

    Args:
        folder: a folder that is there.
        by: another folder, whose lock it is; needed where files are staged in the first, which takes that one's lock.
        patience_s: that another run is waited for.

    Yields:
        The descriptor; None where there are no locks.

    Raises:
        OutputError: another run has the lock.
    """
    if not HAS_LOCKS:
        yield None
        return
    locked = by or folder
    descriptor = os.open(locked, os.O_RDONLY)
    try:
        if not _is_had(descriptor, locked, time.monotonic() + patience_s):
            raise OutputError(f"another run is writing {folder}", fix="wait for it, or give another output")
        yield descriptor
    finally:
        os.close(descriptor)


def _is_had(descriptor: int, folder: Path, until: float) -> bool:
    while True:
        try:
            _is_locked(descriptor, folder, wait=False)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(TRY_S)
        else:
            # The run that had it may have taken the folder away.
            return folder.exists() and os.path.samestat(os.fstat(descriptor), folder.stat())


@contextlib.contextmanager
def _locked_folder(parent: Path) -> Iterator[Path]:
    folder = _hidden(parent)
    with contextlib.ExitStack() as stack:
        try:
            with _lock(parent) as held:
                if held:
                    _clear_away(parent)
                with explained_refusal(parent):
                    folder.mkdir()
                stack.enter_context(_lock(folder))
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[bool]:
    """Whether the lock is held: there are systems and disks that have none, and work goes on without it."""
    if not HAS_LOCKS:
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _is_locked(descriptor, folder)
    finally:
        os.close(descriptor)


def _is_locked(descriptor: int, folder: Path, *, wait: bool = True) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        if not _told:
            _told.append(folder)
            said = f"{folder} is on a disk without locks: let no two commands write there at the same time"
            print(said, file=sys.stderr)
        return False
    return True


def _clear_away(parent: Path) -> None:
    """Take away what killed runs left in `parent`, whose lock is held."""
    import fcntl

    for path in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.name.startswith(ASIDE):
                # An exchange happens under the lock that is held here, so whoever set this aside was killed.
                target = parent / path.name.removeprefix(ASIDE)
                if _is_there(target):
                    _discard(path)
                else:
                    path.rename(target)
                continue
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)
            finally:
                os.close(descriptor)


def _publish(folder: Path, target: Path, *, force: bool) -> None:
    with _lock(target.parent) as held:
        if held:
            _clear_away(target.parent)
        if not _is_there(target):
            folder.rename(target)
            return
        if not force:  # another run was faster
            raise _already_there([target])
        aside = target.with_name(f"{ASIDE}{target.name}")
        try:
            target.rename(aside)
            folder.rename(target)
        except BaseException:  # an interrupt too: what was there comes back
            if _is_there(aside) and not _is_there(target):
                aside.rename(target)
            raise
        _discard(aside)


def _discard(aside: Path) -> None:
    if aside.is_dir() and not aside.is_symlink():
        # Half deleted it must not be put back, so it first becomes a stale folder like any other.
        stale = _hidden(aside.parent)
        aside.rename(stale)
        shutil.rmtree(stale)
    else:
        aside.unlink()


def _hidden(parent: Path) -> Path:
    return parent / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
