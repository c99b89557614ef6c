"""Work and its files on their way to the nodes of a cluster, and the images that a node takes."""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import MANIFEST, read_artifact
from vit_deploy.data.items import Item, Source
from vit_deploy.data.spreading import Work
from vit_deploy.errors import ArtifactError, DataError, UsageError
from vit_deploy.runtimes import RUNTIMES

ONWARDS = 4_096  # images that are read and passed over, where else all of a file before them would be


@dataclass(frozen=True)
class Shipment:
    """Work with the files that it takes, as it travels.

    Args:
        work: what is done.
        files: of each artifact, by their paths in it.
        source: the images, where each group is read by whoever works on it; None where items say where they are.
        folder: that relative paths are in.
    """

    work: Work
    files: tuple[Mapping[str, bytes], ...]
    source: Source | None
    folder: str

    @contextlib.contextmanager
    def open(self) -> Iterator[Callable[[bytes, int, int], Any]]:
        """Load the artifacts on this node; gives what takes a group of items, or the place and length of one.

        Raises:
            MissingEngineError, EngineError: this node has no engine for them, or it refuses.
        """
        with contextlib.suppress(OSError):  # another machine may have no such folder
            os.chdir(self.folder)
        for runtime in self.work.runtimes:
            RUNTIMES.check(runtime)
        there = [
            _on_this_node(artifact, files) for artifact, files in zip(self.work.artifacts, self.files, strict=True)
        ]
        reading = None if self.source is None else Onwards(self.source)
        with self.work.open(there) as run:

            def answer(packed: bytes, start: int, count: int) -> Any:
                if reading is not None:
                    items = reading.take(start, count)
                    _check_seen(items, listed_here=True)
                else:
                    items = pickle.loads(packed)
                    _check_seen(items)
                return run(items)

            yield answer


class Onwards:
    """Images of a source, which is read on from where the last ones ended.

    Args:
        source: the images.
    """

    def __init__(self, source: Source) -> None:
        self._source, self._place = source, 0
        self._items = source.items()

    def take(self, start: int, count: int) -> list[Item]:
        """So many images from one on."""
        if not self._place <= start < self._place + ONWARDS:
            self._items, self._place = self._source.items(start), start
        for _ in islice(self._items, start - self._place):
            pass
        self._place = start + count
        return list(islice(self._items, count))


def ship(work: Work, source: Source) -> Shipment:
    """Work and its files, ready to travel.

    Raises:
        UsageError: what is no artifact, or images that each worker would have to read from the first on.
    """
    if others := [str(artifact.path) for artifact in work.artifacts if artifact.is_checkpoint]:
        raise UsageError(f"--ray runs artifacts, and {', '.join(others)} is none", fix="export it first")
    files = tuple(
        {
            path.relative_to(artifact.directory).as_posix(): path.read_bytes()
            for path in artifact.directory.rglob("*")
            if path.is_file()
        }
        for artifact in work.artifacts
    )
    return Shipment(work, files, source if source.carries_content else None, os.getcwd())  # noqa: PTH109


def _on_this_node(artifact: Artifact, files: Mapping[str, bytes]) -> Artifact:
    """The artifact where it lies, if this node sees it there, else in a folder of this node that its files go to."""
    manifest = files[MANIFEST]
    with contextlib.suppress(OSError):
        if (artifact.directory / MANIFEST).read_bytes() == manifest:
            return artifact
    folder = Path(tempfile.gettempdir()) / f"vit-deploy-{hashlib.sha256(manifest).hexdigest()[:32]}-{getpass.getuser()}"
    if not folder.is_dir():
        waiting = Path(tempfile.mkdtemp(prefix="vit-deploy-"))
        for name, content in files.items():
            (waiting / name).parent.mkdir(parents=True, exist_ok=True)
            (waiting / name).write_bytes(content)
        with contextlib.suppress(OSError):  # another worker of this node was faster
            waiting.rename(folder)
    if (folder / MANIFEST).read_bytes() != manifest:  # others may write there too
        raise ArtifactError(f"{folder} is not what was sent there", fix="remove it from this node")
    return read_artifact(folder).at(artifact.config.image_size)


def _check_seen(items: Sequence[Item], *, listed_here: bool = False) -> None:
    """Refuse files that are not there on this node: they would all be broken images.

    Args:
        items: the images.
        listed_here: whether this node has listed them, and cannot tell one that is nowhere from one that is elsewhere.
    """
    for item in items:
        if item.is_file and not os.path.exists(item.path):  # noqa: PTH110
            if item.stamp.endswith("\0absent") and not listed_here:  # nor where they were listed
                continue
            raise DataError(f"{item.path} is not there", fix="give images on a disk that all nodes share, or s3://…")
