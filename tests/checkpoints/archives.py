"""Zips such as `.npz` and `.keras`: taken apart, put together with something changed, and damaged."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import h5py
from hypothesis import strategies as st

CONFIG, WEIGHTS = "config.json", "model.weights.h5"


def members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(contents: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in contents.items():
            archive.writestr(name, data)
    return stream.getvalue()


def with_text(data: bytes, old: bytes, new: bytes) -> bytes:
    """A `.keras` file with a text of its config replaced."""
    contents = members(data)
    assert old in contents[CONFIG], contents[CONFIG]
    return zipped(contents | {CONFIG: contents[CONFIG].replace(old, new)})


def with_config(data: bytes, change: Callable[[Any], None]) -> bytes:
    """A `.keras` file with its config changed."""
    contents = members(data)
    document = json.loads(contents[CONFIG])
    change(document)
    return zipped(contents | {CONFIG: json.dumps(document).encode()})


def with_weights(data: bytes, change: Callable[[Any], None]) -> bytes:
    """A `.keras` file with its HDF5 file changed."""
    contents = members(data)
    stream = io.BytesIO(contents[WEIGHTS])
    with h5py.File(stream, "r+") as file:
        change(file)
    return zipped(contents | {WEIGHTS: stream.getvalue()})


def encrypted(data: bytes) -> bytes:
    """Said to be so, of its first member."""
    at = data.index(b"PK\1\2") + 8  # the flags of the first member in the directory
    return data[:at] + b"\1" + data[at + 1 :]


@st.composite
def cut(draw: st.DrawFn, data: bytes) -> bytes:
    """Without its end, or without something in its middle."""
    start, end = sorted(draw(st.tuples(*[st.integers(0, len(data))] * 2).filter(lambda pair: pair[0] != pair[1])))
    return draw(st.sampled_from([data[:start], data[:start] + data[end:]]))


@st.composite
def flipped(draw: st.DrawFn, data: bytes) -> bytes:
    """With one bit the other way."""
    changed = bytearray(data)
    changed[draw(st.integers(0, len(changed) - 1))] ^= 1 << draw(st.integers(0, 7))
    return bytes(changed)
