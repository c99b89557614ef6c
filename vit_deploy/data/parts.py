"""What a run has finished so far, in a folder beside its output from which the next one goes on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vit_deploy.core.staging import explained_os_errors, only_run
from vit_deploy.data.items import Item, Source
from vit_deploy.data.rows import Rows
from vit_deploy.errors import DataError, OutputError

JOB, TEXT, STAMP = "job.json", "text", "stamp"
FINISHING = "finishing"  # a file that is there once all rows are, and the output is being put in its place
DONE = ".done"  # what the folder's name ends with while it is taken away
PART = re.compile(r"part-(\d{12})-(\d+)\.npz")


@dataclass
class Parts:
    """Finished rows, in files that are each there as a whole or not at all.

    Attributes:
        folder: where they are.
        count: how many rows they hold.
        stamp: digest of the stamps of the images that they are of.
        files: their files, in order.
    """

    folder: Path
    count: int = 0
    stamp: Any = field(default_factory=hashlib.sha256)
    files: list[Path] = field(default_factory=list)

    def saw(self, item: Item) -> None:
        """Count an image into the digest of the stamps."""
        self.stamp.update(item.stamp.encode("utf-8", "surrogateescape") + b"\n" if item.stamp else b"")

    def add(self, rows: Rows) -> None:
        """Write the next rows, whose images `saw` has counted.

        Raises:
            OutputError: the disk is full, or refuses.
        """
        path = self.folder / f"part-{self.count:012d}-{len(rows)}.npz"
        waiting = self.folder / "writing"
        with explained_os_errors(path):
            with waiting.open("wb") as file:
                text = np.frombuffer(rows.text().encode(), np.uint8)
                stamp = np.frombuffer(self.stamp.hexdigest().encode(), np.uint8)
                arrays: dict[str, Any] = {TEXT: text, STAMP: stamp, **rows.values}
                np.savez(file, **arrays)
                file.flush()
                os.fsync(file.fileno())
            waiting.replace(path)
        self.files.append(path)
        self.count += len(rows)

    def rows(self) -> Iterator[Rows]:
        """All rows, a part at a time.

        Raises:
            DataError: a part that was damaged since.
        """
        for path in self.files:
            yield _read(path)[0]

    def finish(self) -> None:
        """Note that all rows are there: from now on a file of the output's name is this job's."""
        with explained_os_errors(self.folder), (self.folder / FINISHING).open("wb") as file:
            os.fsync(file.fileno())

    def discard(self) -> None:
        """Take the folder away; what is left of it where that ends half-way stands for no run."""
        leaving = self.folder.with_name(self.folder.name + DONE)
        self.folder.replace(leaving)
        shutil.rmtree(leaving)


def parts_folder(output: Path) -> Path:
    """Where the parts of an output are kept until it is whole."""
    return output.with_name(f"{output.name}.parts")


def is_finishing(output: Path) -> bool:
    """Whether an earlier run was ended while it put the output in its place."""
    return (parts_folder(output) / FINISHING).exists()


@contextlib.contextmanager
def open_parts(output: Path, job: Mapping[str, Any], source: Source, *, force: bool) -> Iterator[Parts]:
    """The parts of a job, those that an earlier run has finished among them.

    While nothing is finished, nothing is left behind either.

    Args:
        output: the file that is going to be written.
        job: what the rows depend on, in plain JSON values; a run with another job does not go on with these parts.
        source: the images, the first of which have to be those of the finished rows.
        force: whether parts of another job, or of images that have changed, are thrown away.

    Raises:
        OutputError: parts of another job, or of images that have changed; another run that is writing them; no
            permission, or a full disk.
    """
    folder = parts_folder(output)
    shutil.rmtree(folder.with_name(folder.name + DONE), ignore_errors=True)
    made = [parent for parent in folder.absolute().parents if not parent.exists()]
    with explained_os_errors(output):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileNotFoundError, NotADirectoryError, FileExistsError) as error:
            raise OutputError(
                f"no folder can be made beside {output}: {error.strerror}", fix="choose another output folder"
            ) from error
    parts = Parts(folder)
    with only_run(folder):
        try:
            _take_up(parts, json.loads(json.dumps(job)), source, force=force)
            yield parts
        finally:
            if folder.is_dir() and not parts.files and not any(map(PART.fullmatch, os.listdir(folder))):  # noqa: PTH208
                shutil.rmtree(folder)
                for parent in made:
                    with contextlib.suppress(OSError):
                        parent.rmdir()


def _take_up(parts: Parts, job: Mapping[str, Any], source: Source, *, force: bool) -> None:
    path = parts.folder / JOB
    if path.exists():
        before = _job(path)
        if before == job:
            _found(parts)
            if _is_same_so_far(parts, source):
                return
            said = "the images have changed since they were begun"
        else:
            said = f"they were begun with other {_differences(before, job)}"
        if not force:
            raise OutputError(
                f"{parts.folder} holds the parts of a run that was not finished, and {said}",
                fix="finish it with what it was begun with, or begin anew with --force",
            )
        parts.files, parts.count, parts.stamp = [], 0, hashlib.sha256()
    with explained_os_errors(path):
        for entry in parts.folder.iterdir():
            if PART.fullmatch(entry.name) or entry.name == FINISHING:
                entry.unlink()
        waiting = parts.folder / "writing"
        waiting.write_text(json.dumps(job, indent=2) + "\n", encoding="utf-8")
        waiting.replace(path)


def _job(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OutputError(f"{path} cannot be read: {error}", fix=f"remove {path.parent}") from error


def _differences(before: Any, job: Mapping[str, Any]) -> str:
    known = before if isinstance(before, dict) else {}
    differing = [name for name in job if known.get(name) != job[name]]
    said = [
        f"{name} ({known.get(name)!r}, now {job[name]!r})" if isinstance(job[name], str | int | None) else name
        for name in differing
    ]
    return ", ".join(said) or "versions"


def _found(parts: Parts) -> None:
    """The parts that follow one another from the first row on."""
    there = {
        int(found[1]): (int(found[2]), path) for path in parts.folder.iterdir() if (found := PART.fullmatch(path.name))
    }
    while parts.count in there:
        rows, path = there[parts.count]
        parts.files.append(path)
        parts.count += rows


def _is_same_so_far(parts: Parts, source: Source) -> bool:
    """Whether the images of the finished rows are those that they were."""
    if not parts.files:
        return True
    count = 0
    first = next(source.items(), None)
    if first is not None and first.stamp:
        for item in source.items():
            parts.saw(item)
            count += 1
            if count == parts.count:
                break
        if count < parts.count:
            return False
    stamp: bool = parts.stamp.hexdigest() == _read(parts.files[-1])[1]
    return stamp


def _read(path: Path) -> tuple[Rows, str]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            values = {name: archive[name] for name in archive.files if name not in (TEXT, STAMP)}
            return Rows.from_text(archive[TEXT].tobytes().decode(), values), archive[STAMP].tobytes().decode()
    except (zipfile.BadZipFile, OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{path} is damaged: {error}", fix=f"remove {path.parent}, and begin anew") from error
