"""Labelled images and the classes of a model they belong to, without all of them in memory."""

from __future__ import annotations

import contextlib
import re
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.images import SUFFIXES, channels_first, images_in, load_pixels
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.errors import DataError

# What zipfile and NumPy say of a damaged file; the last six of headers, and of a zip that is said to be encrypted.
BROKEN = (
    *(zipfile.BadZipFile, zlib.error, ValueError, EOFError, NotImplementedError, OSError),
    *(SyntaxError, tokenize.TokenError, TypeError, OverflowError, MemoryError, RuntimeError),
)
NAMED = 5  # of many, in an error
FIX = "give a folder with a folder of images for each class, or an .npz with uint8 images (n, h, w, c) and labels (n,)"

Pixels = NDArray[np.uint8]
Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Labelled images on disk.

    Args:
        path: the path of the folder or the `.npz`.
        names: of the classes' folders, sorted with numbers as numbers; empty for an `.npz`, whose labels are numbers.
        files: every image with the index of its folder in `names`; empty for an `.npz`.
        labels: the labels of an `.npz`.
        image_shape: (height, width, channels) of an `.npz`.
    """

    path: Path
    names: tuple[str, ...] = ()
    files: tuple[tuple[Path, int], ...] = ()
    labels: tuple[int, ...] = ()
    image_shape: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.files) or len(self.labels)

    def batches(self, preprocess: Preprocess, image_size: tuple[int, int], size: int) -> Iterator[Pixels]:
        """All images in order, `(at most size, height, width, channels)` at a time, as pixels of a model's size.

        Raises:
            DataError: an image that cannot be read.
        """
        if self.files:
            for start in range(0, len(self.files), size):
                group = self.files[start : start + size]
                yield np.stack([load_pixels(path, preprocess, image_size) for path, _ in group])
            return
        with explained_arrays(self.path), zipfile.ZipFile(self.path) as archive, archive.open("images.npy") as stream:
            shape, _ = read_header(stream, self.path, "images")
            left = shape[0]
            while left:
                count = min(size, left)
                content = stream.read(count * int(np.prod(shape[1:])))
                if len(content) < count * int(np.prod(shape[1:])):
                    raise DataError(f"{self.path} ends in the middle of its images", fix="get it again")
                yield np.frombuffer(content, np.uint8).reshape(count, *shape[1:])
                left -= count

    @property
    def broken(self) -> Mapping[int, str]:
        """Images that are left out of the batches: none, for one that cannot be read is an error."""
        return {}

    def is_by_name(self, artifact: Artifact) -> bool:
        """Whether every folder has the name of one class of the model."""
        labels = artifact.labels
        return bool(self.names) and all(labels.count(name) == 1 for name in self.names)

    def folders(self, artifact: Artifact) -> dict[str, int]:
        """The model's class of each folder: by the recorded labels where all have one, else in order.

        Raises:
            DataError: folders of which it cannot be told.
        """
        labels, count = artifact.labels, artifact.config.num_classes
        if self.is_by_name(artifact):
            return {name: labels.index(name) for name in self.names}
        if len(self.names) != count:
            raise DataError(
                f"{self.path} has {len(self.names)} class folders ({_some(self.names)}), "
                f"{artifact.path} has {count} classes{self._unknown(artifact)}",
                fix="name the folders by the model's labels, or give one folder for each class",
            )
        in_order = {name: index for index, name in enumerate(self.names)}
        if misplaced := [name for name, index in in_order.items() if name in labels and labels[index] != name]:
            raise DataError(
                f"some class folders of {self.path} have names of classes and some have not: {_some(misplaced)} "
                f"would be other classes in order{self._unknown(artifact)}",
                fix="name all folders by the model's labels, or all by their numbers",
            )
        return in_order

    def describe_mapping(self, artifact: Artifact) -> str:
        """The class of each folder, in words; empty where the folders' names say it."""
        if not self.names or self.is_by_name(artifact):
            return ""
        listed = ", ".join(f"{index} {name}" for name, index in self.folders(artifact).items())
        otherwise = "" if sorted(self.names) == list(self.names) else ", numbers by their size"
        return f"class folders in sorted order{otherwise}, since they are not the recorded labels: {listed}"

    def to_dict(self, artifact: Artifact) -> dict[str, Any]:
        """The same for JSON: the class of each folder, and whether by its name or in order; nothing of an `.npz`."""
        if not self.names:
            return {}
        return {"folders": self.folders(artifact), "folders_by": "name" if self.is_by_name(artifact) else "order"}

    def classes(self, artifact: Artifact) -> Classes:
        """The model's class of each image `(n,)`; those of folders are as `folders` says.

        Raises:
            DataError: images or classes that the model cannot have.
        """
        if not artifact.gives_classes:
            raise DataError(
                f"{artifact.path} {artifact.no_classes}, and classes are what is evaluated", fix="give one with a head"
            )
        self.check_size(str(artifact.path), artifact.config)
        if self.labels:
            return self._checked(np.array(self.labels, np.int64), artifact)
        indices = list(self.folders(artifact).values())
        return np.array([indices[folder] for _, folder in self.files], np.int64)

    def names_of_images(self) -> list[str]:
        """The name of each image's class: that of its folder, or the number of its label."""
        if self.labels:
            return [str(label) for label in self.labels]
        return [self.names[folder] for _, folder in self.files]

    def check_size(self, model: str, config: ViTConfig) -> None:
        """Refuse a model that takes images of another size than those of an `.npz`.

        Raises:
            DataError: it does.
        """
        size = (*config.image_size, config.channels)
        if self.image_shape and self.image_shape != size:
            turned = channels_first(self.image_shape, size)
            raise DataError(
                f"{self.path} has images of {_sides(self.image_shape)}, {model} takes {_sides(size)}",
                fix="save them with their channels last: images.transpose(0, 2, 3, 1)"
                if turned
                else "resize them, or give a folder of image files, which are resized as the model asks for",
            )

    def _checked(self, labels: Classes, artifact: Artifact) -> Classes:
        count = artifact.config.num_classes
        if labels.min() < 0 or labels.max() >= count:
            raise DataError(
                f"{self.path} has labels from {labels.min()} to {labels.max()}, {artifact.path} has {count} classes",
                fix=f"expected labels from 0 to {count - 1}",
            )
        return labels

    def _unknown(self, artifact: Artifact) -> str:
        if not artifact.labels:
            return " and no recorded labels"
        unknown = [name for name in self.names if artifact.labels.count(name) != 1]
        return f", and {_some(unknown)} {'is' if len(unknown) == 1 else 'are'} not among its labels"


def read_dataset(path: Path) -> Dataset:
    """What is in a folder with a folder a class, or in an `.npz` with `images` (uint8, NHWC) and `labels`.

    Raises:
        DataError: there is nothing, no classes or no images, or arrays of another kind.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.exists():
        raise DataError(f"there is nothing at {path}", fix=FIX)
    return _read_arrays(path)


def read_chosen(path: Path, choose: Callable[[int], Sequence[int]]) -> tuple[NDArray[Any], Sequence[int]]:
    """Some images of the array `images` of an `.npz`, of any type, and their indices; only they are held in memory.

    Args:
        path: the path of the `.npz`.
        choose: which of so many images are read, by their indices in rising order.

    Raises:
        DataError: nothing there, no `.npz`, or no such array; and what `choose` raises.
    """
    fix = "give a folder of images, or an .npz with images (n, height, width, channels)"
    if not path.exists():
        raise DataError(f"there is nothing at {path}", fix=fix)
    with explained_arrays(path, fix), zipfile.ZipFile(path) as archive:
        if "images.npy" not in archive.namelist():
            raise DataError(f"{path} has no array images", fix=fix)
        with archive.open("images.npy") as stream:
            shape, dtype = read_header(stream, path, "images")
            if len(shape) != 4:
                raise DataError(f"{path} has images of shape {shape}", fix="expected (n, height, width, channels)")
            start, size = stream.tell(), int(np.prod(shape[1:])) * dtype.itemsize
            indices = choose(shape[0])
            content = bytearray()
            for index in indices:
                stream.seek(start + index * size)
                content += stream.read(size)
        if len(content) < len(indices) * size:
            raise DataError(f"{path} ends in the middle of its images", fix="get it again")
        return np.frombuffer(bytes(content), dtype).reshape(len(indices), *shape[1:]), indices


def _read_folder(path: Path) -> Dataset:
    found = (entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    folders = sorted(found, key=lambda entry: natural_order(entry.name))
    if not folders:
        raise DataError(f"{path} has no class folders", fix=FIX)
    files = [(file, index) for index, folder in enumerate(folders) for file in images_in(folder)]
    if not files:
        kinds = ", ".join(SUFFIXES)
        raise DataError(f"the {len(folders)} class folders of {path} hold no images ({kinds})", fix=FIX)
    return Dataset(path, tuple(folder.name for folder in folders), tuple(files))


def natural_order(name: str) -> tuple[list[Any], str]:
    """To sort by: 2 before 10, also inside of names, and otherwise as strings are sorted."""
    parts = re.split(r"([0-9]+)", name)  # texts and numbers in turns
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def _read_arrays(path: Path) -> Dataset:
    with explained_arrays(path), zipfile.ZipFile(path) as archive:
        missing = [name for name in ("images", "labels") if f"{name}.npy" not in archive.namelist()]
        if missing:
            raise DataError(f"{path} has no array {' and no array '.join(missing)}", fix=FIX)
        with archive.open("images.npy") as stream:
            shape, dtype = read_header(stream, path, "images")
        with archive.open("labels.npy") as stream:
            labels = np.lib.format.read_array(stream, allow_pickle=False)
    problems = []
    if dtype != np.uint8 or len(shape) != 4:
        kind = "uint8 pixels 0..255, not yet normalised," if np.issubdtype(dtype, np.floating) else "uint8"
        problems.append(f"images are {dtype} of shape {shape}; expected {kind} of (n, height, width, channels)")
    if not np.issubdtype(labels.dtype, np.integer) or labels.ndim != 1:
        problems.append(f"labels are {labels.dtype} of shape {labels.shape}; expected whole numbers of (n,)")
    elif shape and len(labels) != shape[0]:
        problems.append(f"there are {shape[0]} images and {len(labels)} labels")
    elif not len(labels):
        problems.append("there are no images")
    if problems:
        raise DataError(f"{path}: {'; '.join(problems)}", fix=FIX)
    return Dataset(path, labels=tuple(map(int, labels)), image_shape=shape[1:])


def read_header(stream: IO[bytes], path: Path, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an array in the `.npy` format (`numpy.lib.format`); its values come next in the stream."""
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if fortran:
        raise DataError(f"{path}: {name} are stored column by column", fix="save them with np.ascontiguousarray")
    return tuple(map(int, shape)), dtype


@contextlib.contextmanager
def explained_arrays(path: Path, fix: str = FIX) -> Iterator[None]:
    """A block in which what NumPy says of a damaged `.npz` becomes a `DataError`."""
    try:
        yield
    except BROKEN as error:
        raise DataError(f"{path} cannot be read as .npz: {error}", fix=fix) from error


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
