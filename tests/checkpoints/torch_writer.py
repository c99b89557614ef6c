"""Files as `torch.save` writes them, made without torch: opcodes by hand, so that anything can be put into them."""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

STORAGES = {
    np.dtype("f8"): "DoubleStorage",
    np.dtype("f4"): "FloatStorage",
    np.dtype("f2"): "HalfStorage",
    np.dtype("i8"): "LongStorage",
    np.dtype("u1"): "ByteStorage",
    np.dtype("?"): "BoolStorage",
}
MAGIC = 0x1950A86A20F9469CFC6C
STOP = b"."


@dataclass(frozen=True)
class Raw:
    """Opcodes that leave one value."""

    opcodes: bytes


@dataclass(frozen=True, eq=False)
class View:
    """A tensor at a place of a storage, which other views may share.

    Args:
        storage: its numbers.
        shape: of the tensor.
        strides: in numbers.
        offset: of its first number.
        kind: of the storage where its numbers are of another type than NumPy has.
        metadata: that torch keeps of the tensor besides, if any.
    """

    storage: NDArray[Any]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    kind: str = ""
    metadata: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Instance:
    """An object of any class, by its attributes."""

    name: str
    state: Mapping[str, Any]


@dataclass
class Writer:
    """One pickle, and the storages that it refers to."""

    storages: dict[int, tuple[str, NDArray[Any]]] = field(default_factory=dict)
    legacy: bool = False

    def dumps(self, value: Any) -> bytes:
        return b"\x80\x02" + self.opcodes(value) + STOP

    def opcodes(self, value: Any) -> bytes:
        if isinstance(value, Raw):
            return value.opcodes
        if isinstance(value, np.ndarray):
            strides = tuple(step // value.itemsize for step in np.ascontiguousarray(value).strides)
            return self.opcodes(View(np.ascontiguousarray(value).reshape(-1), value.shape, strides))
        if isinstance(value, View):
            return self.tensor(value)
        if isinstance(value, Instance):
            module, _, name = value.name.rpartition(".")
            return named(module, name) + b")\x81" + self.opcodes(dict(value.state)) + b"b"
        if isinstance(value, Mapping):
            return b"}(" + b"".join(map(self.opcodes, (each for pair in value.items() for each in pair))) + b"u"
        if isinstance(value, tuple):
            return b"(" + b"".join(map(self.opcodes, value)) + b"t"
        if isinstance(value, list):
            return b"](" + b"".join(map(self.opcodes, value)) + b"e"
        return scalar(value)

    def tensor(self, view: View) -> bytes:
        key, _ = self.storages.setdefault(id(view.storage), (str(len(self.storages)), view.storage))
        kind = view.kind or STORAGES[view.storage.dtype]
        said = b"(" + scalar("storage") + named("torch", kind) + scalar(key) + scalar("cpu") + scalar(view.storage.size)
        said += (scalar(None) if self.legacy else b"") + b"tQ"
        place = scalar(view.offset) + self.opcodes(view.shape) + self.opcodes(view.strides)
        hooks = scalar(False) + named("collections", "OrderedDict") + b")R"
        more = b"" if view.metadata is None else self.opcodes(view.metadata)
        return named("torch._utils", "_rebuild_tensor_v2") + b"(" + said + place + hooks + more + b"tR"


def named(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def scalar(value: Any) -> bytes:
    if value is None:
        return b"N"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    data = int(value).to_bytes(int(value).bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def write_zip(path: Path, value: Any, **members: bytes) -> Path:
    """In the zip format; `members` are more of its files, by name, or others in place of its own."""
    writer = Writer()
    contents = {"data.pkl": writer.dumps(value), "byteorder": b"little", "version": b"3\n"}
    contents |= {f"data/{key}": numbers.tobytes() for key, numbers in writer.storages.values()} | members
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in contents.items():
            archive.writestr(f"archive/{name}", data)
    return path


def write_legacy(path: Path, value: Any, *, little_endian: bool = True, protocol: int = 1001) -> Path:
    """In the format before the zip."""
    writer = Writer(legacy=True)
    pickled = writer.dumps(value)
    machine = {"protocol_version": protocol, "little_endian": little_endian, "type_sizes": {"short": 2, "int": 4}}
    head = [Writer().dumps(each) for each in (MAGIC, protocol, machine)]
    keys = Writer().dumps([key for key, _ in writer.storages.values()])
    data = [struct.pack("<q", numbers.size) + numbers.tobytes() for _, numbers in writer.storages.values()]
    path.write_bytes(b"".join([*head, pickled, keys, *data]))
    return path
