from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import google_vit as plain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.checkpoints import archives
from tests.checkpoints.archives import encrypted, members, zipped
from vit_deploy import checkpoints
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.errors import CheckpointError

CONFIG = {"image_size": list(plain.IMAGE_SIZE)}
NAME = "Transformer/encoder_norm/bias"
MEMBER = f"{NAME}.npy"


class Evil:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (Path.touch, (self.trace,))


@pytest.fixture(scope="module")
def sound() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **plain.draw(plain.VARIANTS["vision_transformer"]))
    return stream.getvalue()


@pytest.fixture(scope="module")
def expected(sound: bytes, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("sound") / "a.npz"
    path.write_bytes(sound)
    return checkpoints.load(path, config=CONFIG)


def array(values: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values)
    return stream.getvalue()


def header(text: str, numbers: bytes = bytes(48), version: bytes = b"\1\0") -> bytes:
    padded = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H" if version == b"\1\0" else "<I", len(padded)) + padded + numbers


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path, config=CONFIG)
    assert caught.value.message.startswith(str(path)), caught.value.message
    assert caught.value.fix
    return caught.value.message


SHAPED = "{{'descr': '<f4', 'fortran_order': False, 'shape': {}, }}"
MEMBERS: dict[str, tuple[bytes, str]] = {
    "a header of more numbers than there are": (header(SHAPED.format("(24,)")), "declares 224 bytes and has 176"),
    "a header of fewer numbers than there are": (header(SHAPED.format("(3,)")), "declares 140 bytes and has 176"),
    "a header of terabytes": (header(SHAPED.format("(1099511627776, 64)")), "bytes and has 176"),
    "a side below zero": (header(SHAPED.format("(-12,)")), "the shape (-12,)"),
    "a side that is no number": (header(SHAPED.format("(True, 12)")), "the shape (True, 12)"),
    "a shape that is none": (header(SHAPED.format("'12'")), "is damaged"),
    "a type that is none": (header("{'descr': 'f99', 'fortran_order': False, 'shape': (12,), }"), "is damaged"),
    "a type of a gigabyte": (
        header("{'descr': '|V1073741824', 'fortran_order': False, 'shape': (12,), }"),
        "bytes and has 176",
    ),
    "code for a header": (header("__import__('os').system('touch /tmp/evil')"), "is damaged"),
    "a header without end": (header("(" * 9000), "is damaged"),
    "a header beyond measure": (header(SHAPED.format("(12,)") + " " * 40000), "is damaged"),
    "another version": (header(SHAPED.format("(12,)"), version=b"\3\0"), "version (3, 0)"),
    "no array": (b"text", "is damaged"),
    "nothing": (b"", "is damaged"),
    "texts": (array(np.full(12, "a")), f"{NAME} is <U1; expected float"),
    "whole numbers": (array(np.ones(12, np.int64)), f"{NAME} is int64; expected float"),
    "long floats": (array(np.ones(12, np.longdouble)), f"{NAME} is float128; expected float"),
    "complex numbers": (array(np.ones(12, np.complex64)), f"{NAME} is complex64; expected float"),
    "fields": (array(np.zeros(12, [("a", "<f4")])), "expected float"),
    "NaN": (array(np.full(12, np.nan, "f4")), "norm.bias has 12 values that are NaN or infinite"),
    "beyond float32": (array(np.full(12, 1e200)), "norm.bias has 12 values that are NaN or infinite"),
    "another shape": (array(np.ones((12, 1), "f4")), "norm.bias has shape (12, 1), expected (12,)"),
    "a number alone": (array(np.float32(1)), "norm.bias has shape (), expected (12,)"),
}


@pytest.mark.parametrize("name", MEMBERS)
def test_an_array_that_cannot_be_trusted_is_refused_by_name(tmp_path: Path, sound: bytes, name: str) -> None:
    data, part = MEMBERS[name]
    message = refused(tmp_path / "a.npz", zipped(members(sound) | {MEMBER: data}))
    assert part in message
    assert NAME in message or "norm.bias" in message


def test_a_pickle_is_never_unpacked(tmp_path: Path, sound: bytes) -> None:
    evil = Evil(tmp_path / "trace")
    inside = array(np.array([evil] * 12, object))
    text = "{'descr': '|O', 'fortran_order': False, 'shape': (12,), }"
    for data in (inside, header(text, pickle.dumps(evil)), pickle.dumps(evil)):
        message = refused(tmp_path / "a.npz", zipped(members(sound) | {MEMBER: data}))
        assert f"{NAME} holds pickled objects" in message or f"{NAME} is damaged" in message
    assert not evil.trace.exists()
    pickle.loads(pickle.dumps(evil))
    assert evil.trace.exists()  # it would have


def test_all_arrays_that_cannot_be_trusted_are_listed_at_once(tmp_path: Path, sound: bytes) -> None:
    damaged = {MEMBER: b"", "cls.npy": array(np.array([None])), "head/bias.npy": header(SHAPED.format("(24,)"))}
    message = refused(tmp_path / "a.npz", zipped(members(sound) | damaged))
    for part in (f"{NAME} is damaged", "cls holds pickled objects", "head/bias declares 224 bytes and has 176"):
        assert part in message


def doubled(data: bytes) -> bytes:
    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(MEMBER, array(np.ones(12, "f4")))
    return stream.getvalue()


def flipped(data: bytes) -> bytes:
    at = data.index(members(data)["embedding/kernel.npy"][-400:]) + 7
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


ARCHIVES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "a name twice": (doubled, f"{MEMBER} is there 2 times"),
    "a path outside": (lambda data: zipped(members(data) | {"../evil.npy": array(1.0)}), "../evil.npy lies outside"),
    "an absolute path": (lambda data: zipped(members(data) | {"/evil.npy": array(1.0)}), "/evil.npy lies outside"),
    "encrypted": (encrypted, "is encrypted"),
    "another kind of file": (lambda data: zipped(members(data) | {"a.exe": b"a"}), "a.exe is no .npy"),
    "packed in another way": (lambda data: zipped(members(data), zipfile.ZIP_LZMA), "is compressed by method 14"),
    "a bomb": (
        lambda data: zipped(members(data) | {MEMBER: array(np.zeros(30_000_000, "f4"))}, zipfile.ZIP_DEFLATED),
        "it expands from",
    ),
    "one flipped bit": (flipped, "embedding/kernel is damaged: Bad CRC-32"),
    "without its directory": (lambda data: data[:-300], "its zip is damaged"),
    "of no ViT": (lambda data: zipped({"a.npy": array(np.ones(3, "f4"))}), "it is of no known dialect"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_npz_file_that_cannot_be_trusted_is_refused(tmp_path: Path, sound: bytes, name: str) -> None:
    change, part = ARCHIVES[name]
    assert part in refused(tmp_path / "a.npz", change(sound))
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_zeros_that_are_packed_a_thousandfold_are_no_bomb(tmp_path: Path) -> None:
    params = plain.draw(plain.VARIANTS["vision_transformer"])
    params["head/kernel"] = np.zeros((plain.DIM, 20_000), np.float32)
    params["head/bias"] = np.zeros(20_000, np.float32)
    np.savez_compressed(tmp_path / "a.npz", **params)
    assert checkpoints.load(tmp_path / "a.npz", config=CONFIG).config.num_classes == 20_000


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_npz_file_that_was_cut_is_refused(
    sound: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.npz"
    refused(path, data.draw(archives.cut(sound)))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_in_an_npz_file_never_gives_other_weights(
    sound: bytes, expected: Checkpoint, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.npz"
    path.write_bytes(data.draw(archives.flipped(sound)))
    try:
        found = checkpoints.load(path, config=CONFIG)
    except CheckpointError:
        return
    assert found.config == expected.config
    assert found.digest() == expected.digest()
