"""Files that `torch.save` wrote, in its zip format or the one before it, and TorchScript archives, without torch.

The file is mapped, and a tensor's numbers are copied out of it when they are asked for. Of TorchScript the tensors are
read, and its code never.
"""

from __future__ import annotations

import mmap
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vit_deploy.checkpoints.containers.torch_pickle import Stream, unpickled
from vit_deploy.checkpoints.containers.torch_state import state_dicts
from vit_deploy.checkpoints.containers.torch_tensors import GET_AGAIN, ITEM_BYTES, Storage, Tensor
from vit_deploy.checkpoints.containers.torch_training import training_of
from vit_deploy.checkpoints.containers.zip_members import checked_members
from vit_deploy.checkpoints.source import KEY_END, MODULES, TRAINING
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

ZIP = b"PK\3\4"
PICKLE = "data.pkl"
LOCAL_HEADER = struct.Struct("<4s22xHH")  # of a member: its signature, and the lengths of its name and of what follows
MAX_PICKLE_BYTES = 1 << 28
MAGIC = 0x1950A86A20F9469CFC6C  # torch's own, of the older format
PROTOCOL = 1001
COUNT_BYTES = 8  # of how many numbers a storage has
SAVE_AGAIN = "save it again: torch.save(model.state_dict(), …)"

Spans = Mapping[str, tuple[int, int]]
"""Of each storage, by its key, where its bytes begin in the file and how many they are."""


@contextmanager
def open_torch(path: Path) -> Iterator[TorchTensors]:
    """The tensors of a file of torch.

    Raises:
        CheckpointError: damaged, of another byte order, or without tensors. Nothing in it is ever run.
    """
    try:
        with path.open("rb") as file:
            # Not closed by hand: it goes with the last view of it, which may be in the traceback of an error.
            buffer = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}", fix=GET_AGAIN) from error
    value, spans = _zip(path, buffer) if buffer[:4] == ZIP else _legacy(buffer)
    found = state_dicts(value)
    documents = {MODULES: found.modules, TRAINING: training_of(value)}
    yield TorchTensors(path, found.tensors, buffer, spans, {name: said for name, said in documents.items() if said})


@dataclass(frozen=True)
class TorchTensors:
    """A `TensorFile` over the state dicts of a file.

    Args:
        path: of the file.
        tensors: by name; those under a key begin with the key and `source.KEY_END`.
        buffer: the whole file.
        spans: of the storages.
        documents: what pickled modules say besides their tensors, under `MODULES`, and what the training says of
            itself, under `TRAINING`.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    buffer: memoryview
    spans: Spans
    documents: Mapping[str, Any]
    container: str = "torch"

    def names(self) -> Iterable[str]:
        """Names of all tensors."""
        return self.tensors.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of one tensor."""
        return self.tensors[name].shape

    def dtype(self, name: str) -> str:
        """Torch's name of the stored type, such as float32; of what holds no plain numbers what it is."""
        return self.tensors[name].kind or self.tensors[name].dtype

    def read(self, name: str) -> Float32:
        """One tensor as float32."""
        tensor = self.tensors[name]
        name = name.rpartition(KEY_END)[2]
        if tensor.storage is None:
            return tensor.read(name, self.buffer, 0, 0)
        if tensor.storage.key not in self.spans:
            raise CheckpointError(f"{name} has the storage {tensor.storage.key}, which is not there", fix=GET_AGAIN)
        start, size = self.spans[tensor.storage.key]
        needed = (tensor.storage.first + tensor.storage.numel) * ITEM_BYTES[tensor.storage.dtype]
        if needed > size:
            raise CheckpointError(f"the storage of {name} has {size} bytes; expected {needed}", fix=GET_AGAIN)
        return tensor.read(name, self.buffer, start, size)


def _zip(path: Path, buffer: memoryview) -> tuple[Any, Spans]:
    """The value of `data.pkl`, and the storages in the folder `data` beside it."""
    try:
        with zipfile.ZipFile(path) as archive:
            members, problems = checked_members(archive)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise CheckpointError(f"its zip is damaged: {error}", fix=GET_AGAIN) from error
    pickles = sorted((name for name in members if name.rpartition("/")[2] == PICKLE), key=lambda name: name.count("/"))
    if not pickles:
        raise CheckpointError(f"it is a zip without {PICKLE}", fix=GET_AGAIN)
    root = pickles[0].removesuffix(PICKLE)
    read = {name: info for name, info in members.items() if name.startswith((f"{root}data/", pickles[0]))}
    # Torch stores what is read here as it is; what is packed could become any size.
    problems = [problem for problem in problems if problem.startswith(tuple(read))]
    problems += [
        f"{name} in it is compressed, which torch never does"
        for name, info in read.items()
        if info.compress_type != zipfile.ZIP_STORED
    ]
    if problems:
        raise CheckpointError("; ".join(problems[:20]), fix=GET_AGAIN)
    order = members.get(f"{root}byteorder")
    if order is not None and order.file_size < 16 and bytes(_stored(buffer, order)) == b"big":
        raise _big_endian()
    if members[pickles[0]].file_size > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"its pickle has {members[pickles[0]].file_size} bytes; expected {MAX_PICKLE_BYTES} at most", fix=SAVE_AGAIN
        )
    value = unpickled(Stream(_stored(buffer, members[pickles[0]])))
    spans = {
        name.removeprefix(f"{root}data/"): (_start(buffer, info), info.file_size)
        for name, info in read.items()
        if name != pickles[0]
    }
    return value, spans


def _start(buffer: memoryview, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin, which its own header says, and not the directory."""
    header = buffer[info.header_offset : info.header_offset + LOCAL_HEADER.size]
    if len(header) < LOCAL_HEADER.size:
        raise CheckpointError(f"{info.filename} begins behind the end of the file", fix=GET_AGAIN)
    signature, name, extra = LOCAL_HEADER.unpack(header)
    start = info.header_offset + LOCAL_HEADER.size + int(name) + int(extra)
    if signature != ZIP or start + info.file_size > len(buffer):
        raise CheckpointError(f"{info.filename} is not where the zip's directory says", fix=GET_AGAIN)
    return start


def _stored(buffer: memoryview, info: zipfile.ZipInfo) -> memoryview:
    start = _start(buffer, info)
    return buffer[start : start + info.file_size]


def _legacy(buffer: memoryview) -> tuple[Any, Spans]:
    """The value of the fourth pickle, after the magic number, the version and the machine it was written on."""
    stream = Stream(buffer)
    magic = unpickled(stream)
    if magic != MAGIC:
        raise CheckpointError(
            f"it is a pickle of a {type(magic).__name__} that torch.save did not write, and nothing of it was run",
            fix="where you trust the file, load it and save its tensors: torch.save(model.state_dict(), …)",
        )
    protocol, machine = unpickled(stream), unpickled(stream)
    if protocol != PROTOCOL:
        raise CheckpointError(f"its format is of another version than {PROTOCOL}", fix=SAVE_AGAIN)
    if not isinstance(machine, dict) or machine.get("little_endian") is not True:
        raise _big_endian()
    seen: dict[str, Storage] = {}
    value, keys = unpickled(stream, seen), unpickled(stream)
    if not isinstance(keys, list) or not all(isinstance(key, str | int) for key in keys):
        raise CheckpointError("it has no list of its storages", fix=GET_AGAIN)
    return value, dict(_behind(buffer, stream.at, [str(key) for key in keys], seen))


def _behind(
    buffer: memoryview, at: int, keys: Sequence[str], seen: Mapping[str, Storage]
) -> Iterator[tuple[str, tuple[int, int]]]:
    """The storages in the order of their list: how many numbers each has, and then these."""
    for key in keys:
        if key not in seen or at + COUNT_BYTES > len(buffer):
            raise CheckpointError(f"its storage {key} is not there or of no tensor", fix=GET_AGAIN)
        count = int.from_bytes(buffer[at : at + COUNT_BYTES], "little", signed=True)
        at += COUNT_BYTES
        size = count * ITEM_BYTES[seen[key].dtype]
        if not 0 <= size <= len(buffer) - at:
            raise CheckpointError(
                f"its storage {key} is of {size} bytes, and {len(buffer) - at} are left", fix=GET_AGAIN
            )
        yield key, (at, size)
        at += size


def _big_endian() -> CheckpointError:
    return CheckpointError(
        "it was written on a machine whose numbers begin with their large end",
        fix="load and save it with torch on a usual machine: torch.save(torch.load(FILE, weights_only=True), …)",
    )
