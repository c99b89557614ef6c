from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras_models import vit

from tests.checkpoints import archives
from tests.checkpoints.archives import WEIGHTS, encrypted, members, with_text, with_weights, zipped
from vit_deploy import checkpoints
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.errors import CheckpointError

KERNEL = "layers/transformer_block_1/attention/key/vars/kernel"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "a.keras"
    vit().save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def expected() -> Checkpoint:
    return vit().to_checkpoint()


def refused(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    assert caught.value.message.startswith(str(path)), caught.value.message
    assert caught.value.fix
    return caught.value.message


def deleted(file: Any) -> None:
    del file[KERNEL]


def replaced(value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[KERNEL]
        file[KERNEL] = value

    return change


def unstored(file: Any) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (12, 12), np.float32, chunks=(4, 4))


def compressed(file: Any) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, data=np.zeros((12, 12), np.float32), compression="gzip")


def enormous(file: Any) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (1 << 40, 1 << 40), np.float32, chunks=(4, 4))


def linked(file: Any) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.ExternalLink("/etc/passwd", "/")


def soft_linked(file: Any) -> None:
    del file[KERNEL]
    file[KERNEL] = h5py.SoftLink("/head/vars/kernel")


def looped(file: Any) -> None:
    file["layers/loop"] = file["layers"]


def virtual(file: Any) -> None:
    del file[KERNEL]
    layout = h5py.VirtualLayout((12, 12), np.float32)
    layout[:] = h5py.VirtualSource("/etc/passwd", "data", (12, 12))
    file.create_virtual_dataset(KERNEL, layout)


def external(file: Any) -> None:
    del file[KERNEL]
    file.create_dataset(KERNEL, (12, 12), np.float32, external=[("/etc/passwd", 0, 576)])


def not_a_number(file: Any) -> None:
    file[KERNEL][3, 4] = np.nan
    file["head/vars/bias"][0] = np.inf


WEIGHT_CHANGES: dict[str, tuple[Callable[[Any], None], tuple[str, ...]]] = {
    "missing": (deleted, ("1 problem:", "missing block_1.attention.key.kernel (12, 12)")),
    "surplus": (
        lambda file: file.create_dataset("layers/lora/vars/0", data=np.ones((3, 2), np.float32)),
        ("unexpected lora.0 (3, 2)",),
    ),
    "mis-shaped": (
        replaced(np.ones((12, 13), "f4")),
        ("block_1.attention.key.kernel has shape (12, 13), expected (12, 12)",),
    ),
    "not finite": (
        not_a_number,
        ("block_1.attention.key.kernel has 1 value that is NaN or infinite", "head.bias has 1 value that is NaN"),
    ),
    "integers": (replaced(np.ones((12, 12), "i1")), (f"{KERNEL} is int8; expected float",)),
    "texts": (replaced(np.full((12, 12), b"a")), (f"{KERNEL} is |S1; expected float",)),
    "objects": (replaced([["a"] * 12] * 12), (f"{KERNEL} is object; expected float",)),
    "not stored": (unstored, (f"{KERNEL} declares 576 bytes and stores 0",)),
    "a bomb": (compressed, (f"{KERNEL} declares 576 bytes and stores",)),
    "enormous": (enormous, (f"{KERNEL} declares the shape (1099511627776, 1099511627776)",)),
    "another file": (linked, (f"{KERNEL} is a link to elsewhere, which is not followed",)),
    "another name": (soft_linked, (f"{KERNEL} is a link to elsewhere",)),
    "twice": (
        lambda file: file.create_dataset("norm/vars/scale", data=np.ones(12, np.float32)),
        ("norm.scale is there twice: ", "layers/norm/vars/scale"),
    ),
    "a loop": (looped, ("or a loop",)),
    "virtual": (virtual, (f"{KERNEL} takes its values from another file",)),
    "external": (external, (f"{KERNEL} takes its values from another file",)),
}


@pytest.mark.parametrize("name", WEIGHT_CHANGES)
def test_weights_that_cannot_be_trusted_are_refused_by_name(tmp_path: Path, sound: bytes, name: str) -> None:
    change, parts = WEIGHT_CHANGES[name]
    message = refused(tmp_path / "a.keras", with_weights(sound, change))
    for part in parts:
        assert part in message


def test_all_that_is_wrong_with_the_weights_is_listed_at_once(tmp_path: Path, sound: bytes) -> None:
    def change(file: Any) -> None:
        file[KERNEL][0, 0] = np.nan
        del file["head/vars/bias"]
        del file["class_token/vars/class"]
        file["class_token/vars/class"] = np.ones((2, 12), np.float32)
        file["extra/vars/0"] = np.ones(3, np.float32)

    message = refused(tmp_path / "a.keras", with_weights(sound, change))
    assert "the weights do not fit the config, 4 problems" in message
    for part in (
        "missing head.bias (5,)",
        "unexpected extra.0 (3,)",
        "class_token.class has shape (2, 12)",
        "has 1 value",
    ):
        assert part in message


CONFIG_CHANGES = {
    "not JSON": (b'{"module"', b'{"module', "config.json is not valid JSON"),
    "values no ViT can have": (b'"num_heads": 3', b'"num_heads": 5', "embed_dim 12 is not a multiple of num_heads 5"),
    "values of another kind": (b'"scale": "base"', b'"scale": ["base"]', "the config of its ViT is damaged"),
    "a shape of two": (b'"input_shape": [8, 12, 3]', b'"input_shape": [8, 12]', "the config of its ViT is damaged"),
    "a billion layers": (b'"num_layers": 2', b'"num_layers": 1000000000', "its config says 1000000000 layers"),
    "a huge number": (b'"mlp_dim": 20', b'"mlp_dim": 1' + 5000 * b"0", "config.json is not valid JSON"),
    "labels that do not fit": (b'"labels": []', b'"labels": ["a"]', "1 labels for 5 classes"),
    "labels that are a text": (b'"labels": []', b'"labels": "abcde"', "damaged: expected a list, found str"),
    "provenance of another kind": (b'"provenance": [', b'"provenance": [3, ', "the config of its ViT is damaged"),
    "a class by another name": (b'"vit_deploy>ViT"', b'"os>system"', "it holds a os>system, which is not a ViT"),
    "no class": (b'"registered_name": "vit_deploy>ViT"', b'"registered_name": null', "it holds a ViT, which is not"),
    "a house without layers": (
        b'"registered_name": "vit_deploy>ViT"',
        b'"registered_name": "Functional"',
        "its config.json is damaged: 'layers' is missing",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIG_CHANGES)
def test_a_config_that_cannot_be_is_refused(tmp_path: Path, sound: bytes, name: str) -> None:
    old, new, expected = CONFIG_CHANGES[name]
    assert expected in refused(tmp_path / "a.keras", with_text(sound, old, new))


def doubled(data: bytes) -> bytes:
    stream = io.BytesIO(data)
    with zipfile.ZipFile(stream, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("config.json", b"{}")
    return stream.getvalue()


def lying_size(data: bytes) -> bytes:
    """The directory declares that the weights expand to a terabyte's worth of 32 bits."""
    at = data.rindex(WEIGHTS.encode()) - 46 + 24
    return data[:at] + struct.pack("<I", 0xFFFFFFF0) + data[at + 4 :]


ARCHIVES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no weights": (
        lambda data: zipped({"config.json": members(data)["config.json"]}),
        "it is not a .keras file that Keras 3 has written: it has no model.weights.h5",
    ),
    "another zip": (lambda data: zipped({"a.txt": b"a"}), "it has no config.json; it has no model.weights.h5"),
    "a name twice": (doubled, "config.json is there 2 times"),
    "a path outside": (lambda data: zipped(members(data) | {"../../evil": b"a"}), "../../evil lies outside"),
    "an absolute path": (lambda data: zipped(members(data) | {"/evil": b"a"}), "/evil lies outside"),
    "a path for Windows": (lambda data: zipped(members(data) | {"..\\evil": b"a"}), "..\\evil lies outside"),
    "encrypted": (encrypted, "is encrypted"),
    "a bomb": (
        lambda data: zipped(members(data) | {WEIGHTS: bytes(50_000_000)}, zipfile.ZIP_DEFLATED),
        "model.weights.h5 expands from",
    ),
    "packed in another way": (
        lambda data: zipped(members(data), zipfile.ZIP_LZMA),
        "model.weights.h5 is compressed by method 14",
    ),
    "a size that lies": (lying_size, "model.weights.h5 expands from"),
    "weights that are none": (lambda data: zipped(members(data) | {WEIGHTS: b"text"}), "its HDF5 file cannot be read"),
    "weights cut short": (
        lambda data: zipped(members(data) | {WEIGHTS: members(data)[WEIGHTS][:-5000]}),
        "its HDF5 file cannot be read",
    ),
    "a config that is a list": (
        lambda data: zipped(members(data) | {"config.json": b"[]"}),
        "config.json is a list; expected an object",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_cannot_be_trusted_is_refused(tmp_path: Path, sound: bytes, name: str) -> None:
    change, expected = ARCHIVES[name]
    assert expected in refused(tmp_path / "a.keras", change(sound))
    assert [path.name for path in tmp_path.iterdir()] == ["a.keras"]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_keras_file_that_was_cut_is_refused(
    sound: bytes, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.keras"
    refused(path, data.draw(archives.cut(sound)))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_in_a_keras_file_never_gives_other_weights(
    sound: bytes, expected: Checkpoint, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.keras"
    path.write_bytes(data.draw(archives.flipped(sound)))
    try:
        found = checkpoints.load(path)
    except CheckpointError:
        return
    assert found.config == expected.config
    assert found.digest() == expected.digest()
