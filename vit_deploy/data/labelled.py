"""Labelled images of any source, decoded ahead for the models that are evaluated on them."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.datasets import Classes, Dataset, Pixels, natural_order, read_dataset
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.data.addresses import is_address, parsed, shown
from vit_deploy.data.decoding import Decoder, Kind
from vit_deploy.data.finding import find_source
from vit_deploy.data.folders import Files
from vit_deploy.data.items import Item, Joined, Source
from vit_deploy.data.pipeline import FEW, decoded
from vit_deploy.errors import DataError

Label = int | str | None


@runtime_checkable
class Labelled(Protocol):
    """A source that knows the classes without reading the images."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by their numbers; empty where it says none."""

    def labels(self) -> Iterator[Label]:
        """The class of each image."""


@dataclass
class LabelledStream:
    """A data set whose images are read once for all models, by processes ahead of them.

    Attributes:
        dataset: what is known of the images: their classes, and how these are a model's.
        source: where the images are; None where the data set reads them itself.
        workers: processes that decode.
        broken: why images could not be read, by their places; of those that were asked for so far.
    """

    dataset: Dataset
    source: Source | None
    workers: int
    broken: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._kinds: list[Kind] = []
        self._waiting: list[deque[Pixels]] = []
        self._groups: Iterator[None] | None = None
        self._open = contextlib.ExitStack()

    def __enter__(self) -> LabelledStream:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes; empty where labels are numbers."""
        return self.dataset.names

    def classes(self, artifact: Artifact) -> Classes:
        """The model's class of each image `(n,)`; see `Dataset.classes`."""
        return self.dataset.classes(artifact)

    def batches(self, preprocess: Preprocess, image_size: tuple[int, int], size: int) -> Iterator[Pixels]:
        """All images in order, at most `size` at a time, without those that are broken.

        What is asked for before the first is taken is decoded together.
        """
        if self.source is None:
            return self.dataset.batches(preprocess, image_size, size)
        self._kinds.append((preprocess, image_size))
        self._waiting.append(deque())
        return self._of_kind(len(self._kinds) - 1, size)

    def _of_kind(self, kind: int, size: int) -> Iterator[Pixels]:
        if self._groups is None:
            self._groups = self._read(size)
        waiting = self._waiting[kind]
        while True:
            while waiting:
                yield waiting.popleft()
            try:
                next(self._groups)
            except StopIteration:
                return

    def _read(self, size: int) -> Iterator[None]:
        assert self.source is not None
        decoder = Decoder(tuple(self._kinds))
        groups = self._open.enter_context(
            decoded(self.source.items(), decoder, batch=size, workers=self.workers),
        )
        place = 0
        for _, images in groups:
            for part in images.parts(size):
                self.broken |= {place + index: why for index, why in enumerate(part.failures) if why}
                place += len(part)
                for waiting, pixels in zip(self._waiting, part.pixels, strict=True):
                    waiting.append(pixels)
            yield


def labelled_stream(given: Sequence[str], column: str | None, workers: int) -> LabelledStream:
    """The labelled images that texts of the command line stand for.

    Args:
        given: a folder of class folders, an `.npz` with images and labels, or any source whose images have classes:
            in tar and Parquet files beside them, else by the folders that files lie in.
        column: of the images in Parquet files; None finds the only one that can be.
        workers: processes that decode.

    Raises:
        DataError: nothing there, or images without classes.
        UsageError: a column where there is no Parquet file.
        MissingEngineError: what reads them is not installed.
    """
    if len(given) == 1 and column is None and _is_dataset(Path(given[0])):
        dataset = read_dataset(Path(given[0]))
        files = tuple(str(path) for path, _ in dataset.files)
        return LabelledStream(dataset, Files(files) if files else None, workers if len(files) > FEW else 0)
    source = find_source(given, column)
    dataset = _dataset(Path(shown(given[0])), source)
    return LabelledStream(dataset, source, workers if len(dataset) > FEW else 0)


def _is_dataset(path: Path) -> bool:
    """Whether it has the form that `read_dataset` reads, or what it says no to."""
    if path.suffix.lower() == ".npz":
        return True
    if not path.is_dir():
        return False
    return any(entry.is_dir() and not entry.name.startswith(".") for entry in path.iterdir()) or not any(
        entry.suffix.lower() in (".parquet", ".tar", ".tgz", ".gz") for entry in path.iterdir()
    )


def _dataset(path: Path, source: Source) -> Dataset:
    labels = list(_labels(source))
    if not labels:
        raise DataError(f"there are no images in {path}", fix="check what --data stands for")
    if None in labels:
        place = labels.index(None)
        item = next(source.items(place))
        raise DataError(
            f"{item.name} has no class",
            fix="give class folders, tar files with .cls members, or Parquet with a column label",
        )
    numbers = [label for label in labels if isinstance(label, int)]
    if names := _class_names(source):
        return _by_name(path, names, [names[label] if isinstance(label, int) else str(label) for label in labels])
    if len(numbers) == len(labels):
        return Dataset(path, labels=tuple(numbers))
    texts = [str(label) for label in labels]
    return _by_name(path, tuple(sorted(set(texts), key=natural_order)), texts)


def _by_name(path: Path, names: tuple[str, ...], labels: Sequence[str]) -> Dataset:
    """A data set whose classes are named; its images share one entry a class, as their files are the source's."""
    entries = {name: (path, index) for index, name in enumerate(names)}
    return Dataset(path, names, tuple(entries[label] for label in labels))


def _labels(source: Source) -> Iterable[Label]:
    if isinstance(source, Joined):
        return (label for one in source.sources for label in _labels(one))
    if isinstance(source, Labelled):
        return source.labels()
    return map(_label, source.items())


def _label(item: Item) -> Label:
    """The class that its source says, else the name of the folder that its file lies in."""
    if item.label is not None or not item.path or item.size is not None:
        return item.label
    path = parsed(item.path).path if is_address(item.path) else item.path
    return path.rstrip("/").rpartition("/")[0].rpartition("/")[2] or None


def _class_names(source: Source) -> tuple[str, ...]:
    if isinstance(source, Joined):
        named = {_class_names(one) for one in source.sources}
        return named.pop() if len(named) == 1 else ()
    return source.class_names if isinstance(source, Labelled) else ()
