"""Tensors read from HDF5 files that are not trusted.

HDF5 can refer to other files (external links, external storage, virtual datasets) and can declare
terabytes that it does not store; neither has a place in a checkpoint, and both are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from vit_deploy.checkpoints.containers.floats import widened
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

MAX_DEPTH = 32
MAX_OBJECTS = 200_000
GET_AGAIN = "the file is damaged: get it again"


@contextmanager
def open_h5(path: Path) -> Iterator[H5Tensors]:
    """The tensors of an HDF5 file."""
    with path.open("rb") as stream, open_stream(stream, path, "h5", {}) as tensors:
        yield tensors


@contextmanager
def open_stream(stream: BinaryIO, path: Path, container: str, documents: Mapping[str, Any]) -> Iterator[H5Tensors]:
    """The tensors of the HDF5 file that a seekable stream gives.

    Raises:
        CheckpointError: it is broken, or refers to other files.
    """
    with ExitStack() as stack:
        with _explained("its HDF5 file"):
            file = stack.enter_context(h5py.File(stream, "r"))
            tensors = H5Tensors(file, path, container, documents)
        yield tensors


class H5Tensors:
    """A `TensorFile` over HDF5; names are paths with slashes."""

    def __init__(self, file: Any, path: Path, container: str, documents: Mapping[str, Any]) -> None:
        self.path = path
        self.container = container
        self.documents = dict(documents)
        self._datasets = dict(_datasets(file))

    def names(self) -> Iterable[str]:
        """Paths of all datasets."""
        return self._datasets.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The declared shape of a tensor."""
        return tuple(int(side) for side in self._datasets[name].shape)

    def dtype(self, name: str) -> str:
        """NumPy's name of the stored type; |V2 is bfloat16."""
        return str(self._datasets[name].dtype)

    def read(self, name: str) -> Float32:
        """One dataset as float32; bfloat16 is what Keras stores as two opaque bytes."""
        dataset = self._datasets[name]
        with _explained(name):
            kind, stored_bytes = dataset.dtype, dataset.id.get_storage_size()
            if stored_bytes < dataset.nbytes:
                raise CheckpointError(
                    f"{name} declares {dataset.nbytes} bytes and stores {stored_bytes}",
                    fix="save the weights without compression, or get the file again if it was not compressed",
                )
            if kind.kind == "V" and kind.itemsize == 2 and kind.names is None:
                return widened(np.asarray(dataset[()]).view(np.uint16))
            if kind.kind != "f" or kind.itemsize > 8:
                raise CheckpointError(f"{name} is {kind}; expected float", fix="save the model unquantized")
            values = np.empty(dataset.shape, np.float32)
            if values.size:
                dataset.read_direct(values)
            return values

    def words(self, name: str) -> NDArray[np.uint32]:
        """One dataset of whole numbers from 0 on, which Keras stores in 64 bits."""
        dataset = self._datasets[name]
        with _explained(name):
            if dataset.dtype.kind not in "iu" or dataset.id.get_storage_size() < dataset.nbytes:
                raise CheckpointError(f"{name} is {dataset.dtype}; expected whole numbers", fix=GET_AGAIN)
            values = np.asarray(dataset[()])
            if values.size and not 0 <= int(values.min()) <= int(values.max()) <= np.iinfo(np.uint32).max:
                raise CheckpointError(f"{name} has numbers from {values.min()} to {values.max()}", fix=GET_AGAIN)
            return values.astype(np.uint32)


def _datasets(file: Any) -> Iterator[tuple[str, Any]]:
    groups, seen = [("", file, 0)], 0
    while groups:
        path, group, depth = groups.pop()
        for name in group:
            seen += 1
            if seen > MAX_OBJECTS or depth > MAX_DEPTH:
                raise CheckpointError(f"its HDF5 file has more than {MAX_OBJECTS} objects, or a loop", fix=GET_AGAIN)
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                raise CheckpointError(f"{path}{name} is a link to elsewhere, which is not followed", fix=GET_AGAIN)
            found = group[name]
            if isinstance(found, h5py.Group):
                groups.append((f"{path}{name}/", found, depth + 1))
            elif isinstance(found, h5py.Dataset):
                if found.is_virtual or found.external:
                    raise CheckpointError(f"{path}{name} takes its values from another file", fix=GET_AGAIN)
                yield f"{path}{name}", found


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except CheckpointError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        detail = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{what} cannot be read: {detail}", fix=GET_AGAIN) from error
