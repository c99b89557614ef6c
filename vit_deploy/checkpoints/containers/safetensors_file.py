"""safetensors files read and written with NumPy alone.

The format: the header's length in eight little-endian bytes, a JSON header with type, shape and offsets of
each tensor and with texts under `__metadata__`, then the bytes of all tensors without gaps.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vit_deploy.checkpoints.containers.floats import eighth, widened
from vit_deploy.checkpoints.documents import MAX_JSON_BYTES, explained, parse_json
from vit_deploy.core.config_checks import is_count
from vit_deploy.core.weights import Float32
from vit_deploy.errors import CheckpointError

METADATA = "__metadata__"
LENGTH_BYTES = 8
ALIGNMENT = 8
ITEM_BYTES = {
    **{"BOOL": 1, "U8": 1, "I8": 1, "F8_E5M2": 1, "F8_E4M3": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2},
    **{"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8},
}
EIGHT_BITS = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2"}
FLOATS: Mapping[str, np.dtype[Any]] = {
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    **dict.fromkeys(EIGHT_BITS, np.dtype("u1")),
}
WORDS = "U32"
GET_AGAIN = "the file is damaged: get it again"


@contextmanager
def open_safetensors(path: Path) -> Iterator[SafeTensors]:
    """The tensors of a safetensors file; each text of its metadata is a document.

    Raises:
        CheckpointError: a header that does not describe exactly the bytes that are there.
    """
    with path.open("rb") as stream:
        yield SafeTensors(stream, path)


class SafeTensors:
    """A `TensorFile` over safetensors; a tensor's bytes are read when it is asked for."""

    container = "safetensors"

    def __init__(self, stream: BufferedReader, path: Path) -> None:
        self.path = path
        self._stream = stream
        size = os.fstat(stream.fileno()).st_size
        length = int.from_bytes(stream.read(LENGTH_BYTES), "little")
        room = min(MAX_JSON_BYTES, size - LENGTH_BYTES)
        if length > room:
            raise CheckpointError(f"its header declares {length} bytes, and there is room for {room}", fix=GET_AGAIN)
        header = parse_json(stream.read(length), "its header")
        with explained("its header"):
            metadata = header.pop(METADATA, {})
            self.documents: Mapping[str, Any] = {str(key): text for key, text in metadata.items()}
            self._entries = header
            problems = list(_problems(header, size - LENGTH_BYTES - length))
        if problems:
            raise CheckpointError(f"its header is damaged: {'; '.join(problems[:20])}", fix=GET_AGAIN)
        self._data_start = LENGTH_BYTES + length

    def names(self) -> Iterable[str]:
        """Names of all tensors."""
        return self._entries.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor by the header."""
        return tuple(self._entries[name]["shape"])

    def dtype(self, name: str) -> str:
        """The format's name of the stored type, such as F32."""
        return str(self._entries[name]["dtype"])

    def read(self, name: str) -> Float32:
        """One tensor as float32."""
        dtype = self.dtype(name)
        if dtype not in FLOATS:
            raise CheckpointError(f"{name} is {dtype}; expected {', '.join(FLOATS)}", fix="save it as floats")
        values = self._stored(name, FLOATS[dtype])
        if dtype == "BF16":
            return widened(values)
        if dtype in EIGHT_BITS:
            return eighth(values, EIGHT_BITS[dtype])
        with np.errstate(over="ignore"):  # becomes infinite, which the checkpoint refuses
            floats: Float32 = values.astype(np.float32, copy=False)
        return floats

    def words(self, name: str) -> NDArray[np.uint32]:
        """One tensor of whole numbers of 32 bits without a sign."""
        if self.dtype(name) != WORDS:
            raise CheckpointError(f"{name} is {self.dtype(name)}; expected {WORDS}", fix="get the file again")
        return self._stored(name, np.dtype("<u4"))

    def _stored(self, name: str, dtype: np.dtype[Any]) -> NDArray[Any]:
        values = np.empty(self.shape(name), dtype)
        self._stream.seek(self._data_start + self._entries[name]["data_offsets"][0])
        if self._stream.readinto(values.reshape(-1).view(np.uint8).data) != values.nbytes:
            raise CheckpointError(f"the file ends inside {name}", fix=GET_AGAIN)
        return values


def _problems(entries: Mapping[str, Any], data_bytes: int) -> Iterator[str]:
    spans = []
    for name, entry in entries.items():
        shape, (start, end) = entry["shape"], entry["data_offsets"]
        if entry["dtype"] not in ITEM_BYTES:
            yield f"{name} is of the unknown type {entry['dtype']}"
            continue
        if not all(is_count(number) and number >= 0 for number in (*shape, start, end)):
            yield f"{name} has the shape {shape} at the bytes {start} to {end}"
            continue
        if end - start != (needed := math.prod(shape) * ITEM_BYTES[entry["dtype"]]):
            yield f"{name} has {end - start} bytes, expected {needed}"
        spans.append((start, end, name))
    at = 0
    for start, end, name in sorted(spans):
        if start != at:
            yield f"{name} begins at byte {start}, expected {at}"
        at = max(at, end)
    if at != data_bytes:
        yield f"its tensors take {at} bytes, and there are {data_bytes}"


def write_safetensors(path: Path, tensors: Mapping[str, Float32], metadata: Mapping[str, str]) -> None:
    """Write float32 tensors; the same tensors and metadata give the same bytes on every machine."""
    header: dict[str, Any] = {METADATA: dict(sorted(metadata.items()))}
    at = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(LENGTH_BYTES, "little"))
        file.write(text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor, dtype="<f4").reshape(-1).view(np.uint8).data)
