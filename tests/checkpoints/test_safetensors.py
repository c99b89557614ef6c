from __future__ import annotations

import json
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vit_deploy import checkpoints
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation, FFNType, NormalizationPosition, NormalizationType, Pooling
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.preprocess import Interpolation, Preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.errors import CheckpointError


def packed(header: dict[str, Any] | bytes, data: bytes, length: int | None = None) -> bytes:
    """A safetensors file by the format's description."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def unpacked(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The header and the bytes behind it."""
    (length,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + length]), data[8 + length :]


configs = st.builds(
    lambda heads, patch, grid, **kinds: ViTConfig(
        image_size=(patch[0] * grid[0], patch[1] * grid[1]),
        patch_size=patch,
        num_heads=heads,
        embed_dim=2 * heads,
        num_layers=1,
        mlp_dim=3,
        **kinds,
    ),
    heads=st.integers(1, 2),
    patch=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    channels=st.integers(1, 4),
    num_classes=st.integers(1, 4),
    include_top=st.booleans(),
    pooling=st.none() | st.sampled_from([pooling for pooling in Pooling if pooling is not Pooling.CLS_DISTILLATION]),
    normalization_type=st.sampled_from(list(NormalizationType)),
    normalization_position=st.sampled_from(list(NormalizationPosition)),
    ffn_type=st.sampled_from(list(FFNType)),
    activation=st.sampled_from(list(Activation)),
    epsilon=st.floats(1e-12, 0.5),
    qkv_bias=st.booleans(),
)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@st.composite
def any_checkpoints(draw: st.DrawFn) -> Checkpoint:
    config = draw(configs)
    number = st.floats(-10, 10)
    preprocess = Preprocess(
        tuple(draw(number) for _ in range(config.channels)),
        tuple(abs(draw(number)) + 0.1 for _ in range(config.channels)),
        draw(st.none() | st.integers(1, 999) | st.tuples(st.integers(1, 99), st.integers(1, 99))),
        draw(st.booleans()),
        draw(st.sampled_from(list(Interpolation))),
    )
    labels = tuple(draw(st.text()) for _ in range(config.num_classes)) if draw(st.booleans()) else ()
    facts = st.dictionaries(st.text(), plain | st.lists(plain, max_size=2), max_size=2)
    steps = draw(st.lists(st.builds(Step, st.text(), facts), max_size=2))
    steps = [Step(step.action, {key: fact for key, fact in step.facts.items() if key != "action"}) for step in steps]
    drawn = Checkpoint.random(config, draw(st.integers(0, 9)))
    return Checkpoint(config, drawn.weights, preprocess, labels, tuple(steps))


@given(expected=any_checkpoints())
@settings(max_examples=40, deadline=None)
def test_a_checkpoint_comes_back_as_it_was_written_and_gives_the_same_bytes_again(expected: Checkpoint) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first, second = Path(folder) / "a.safetensors", Path(folder) / "b.safetensors"
        checkpoints.save(expected, first)
        found = checkpoints.load(first)
        checkpoints.save(found, second)
        assert first.read_bytes() == second.read_bytes()
    assert found.config == expected.config
    assert found.preprocess == expected.preprocess
    assert found.labels == expected.labels
    assert found.provenance == expected.provenance
    assert list(found.weights) == list(expected.weights)
    for name, weight in expected.weights.items():
        assert found.weights[name].dtype == np.float32
        np.testing.assert_array_equal(found.weights[name], weight)


@pytest.fixture
def written(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    checkpoints.save(checkpoint, tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def test_the_file_is_safetensors_by_the_formats_description(written: Path, checkpoint: Checkpoint) -> None:
    header, data = unpacked(written.read_bytes())
    metadata = header.pop("__metadata__")
    assert all(isinstance(text, str) for text in metadata.values())
    assert metadata["format"] == "vit-deploy"
    assert json.loads(metadata["config"]) == checkpoint.config.to_dict()
    assert metadata["weights_digest"] == checkpoint.digest()
    assert (len(written.read_bytes()) - len(data)) % 8 == 0
    at = 0
    for name, weight in checkpoint.weights.items():
        assert header[name] == {"dtype": "F32", "shape": list(weight.shape), "data_offsets": [at, at + weight.nbytes]}
        stored = np.frombuffer(data, "<f4", weight.size, at).reshape(weight.shape)
        np.testing.assert_array_equal(stored, weight)
        at += weight.nbytes
    assert at == len(data)


def test_the_safetensors_library_reads_the_file(written: Path, checkpoint: Checkpoint) -> None:
    library = pytest.importorskip("safetensors.numpy")
    found = library.load_file(written)
    assert set(found) == set(checkpoint.weights)
    for name, weight in checkpoint.weights.items():
        np.testing.assert_array_equal(found[name], weight)


def bfloat16(values: NDArray[np.float32]) -> bytes:
    return (values.view(np.uint32) >> 16).astype("<u2").tobytes()


STORED = {
    "F16": (lambda values: values.astype("<f2").tobytes(), 2, 1e-3),
    "BF16": (bfloat16, 2, 1e-2),
    "F64": (lambda values: values.astype("<f8").tobytes(), 8, 0.0),
}


@pytest.mark.parametrize("with_metadata", [True, False])
@pytest.mark.parametrize("dtype", STORED)
def test_other_floats_become_float32(written: Path, checkpoint: Checkpoint, dtype: str, with_metadata: bool) -> None:
    header, _ = unpacked(written.read_bytes())
    convert, item_bytes, tolerance = STORED[dtype]
    other: dict[str, Any] = {"__metadata__": header["__metadata__"]} if with_metadata else {}
    data = b""
    for name, weight in checkpoint.weights.items():
        offsets = [len(data), len(data) + item_bytes * weight.size]
        other[name] = {"dtype": dtype, "shape": list(weight.shape), "data_offsets": offsets}
        data += convert(weight)
    written.write_bytes(packed(other, data))
    found = checkpoints.load(written, config=checkpoint.config)
    for name, weight in checkpoint.weights.items():
        assert found.weights[name].dtype == np.float32
        np.testing.assert_allclose(found.weights[name], weight, rtol=tolerance, atol=tolerance * 1e-3)


def test_canonical_weights_without_metadata_ask_for_a_config(written: Path, checkpoint: Checkpoint) -> None:
    header, data = unpacked(written.read_bytes())
    del header["__metadata__"]
    written.write_bytes(packed(header, data))
    assert checkpoints.load(written, config=checkpoint.config).digest() == checkpoint.digest()
    with pytest.raises(CheckpointError, match="it holds weights and no config"):
        checkpoints.load(written)


def entry(shape: list[Any], start: Any, end: Any, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LIES: dict[str, tuple[bytes, str]] = {
    "length beyond the file": (
        packed({"a": entry([1], 0, 4)}, b"1234", 10**12),
        "its header declares 1000000000000 bytes",
    ),
    "length of 2**64 - 1": (packed({}, b"", 2**64 - 1), "and there is room for 2"),
    "no JSON": (packed(b"{nothing", b""), "its header is not valid JSON"),
    "bytes that are no text": (packed(b"{\xff\xfe", b""), "its header is not valid JSON"),
    "nested without end": (packed(b'{"a":' + b"[" * 100_000, b""), "it is nested too deeply"),
    "a name twice": (packed(b'{"a": {}, "a": {}}', b""), "the key 'a' is there twice"),
    "no entry": (packed({"a": 3}, b""), "its header is damaged"),
    "no shape": (packed({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, b"1234"), "'shape' is missing"),
    "metadata of another kind": (packed({"__metadata__": [1]}, b""), "its header is damaged"),
    "unknown type": (packed({"a": entry([1], 0, 4, "F9")}, b"1234"), "a is of the unknown type F9"),
    "overlap": (
        packed({"a": entry([2], 0, 8), "b": entry([1], 4, 8)}, b"12345678"),
        "b begins at byte 4, expected 8",
    ),
    "gap": (packed({"a": entry([1], 0, 4), "b": entry([1], 8, 12)}, b"123456789012"), "b begins at byte 8, expected 4"),
    "beyond the end": (packed({"a": entry([2], 0, 8)}, b"1234"), "its tensors take 8 bytes, and there are 4"),
    "bytes left over": (packed({"a": entry([1], 0, 4)}, b"12345"), "its tensors take 4 bytes, and there are 5"),
    "shape and bytes differ": (packed({"a": entry([3], 0, 4)}, b"1234"), "a has 4 bytes, expected 12"),
    "a huge shape": (packed({"a": entry([2**62, 2**62], 0, 4)}, b"1234"), "a has 4 bytes, expected"),
    "negative": (packed({"a": entry([-1], 4, 0)}, b"1234"), "a has the shape [-1] at the bytes 4 to 0"),
    "a fraction": (packed({"a": entry([1.0], 0, 4)}, b"1234"), "a has the shape [1.0] at the bytes 0 to 4"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused_with_what_it_says(tmp_path: Path, name: str) -> None:
    data, expected = LIES[name]
    (tmp_path / "a.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(tmp_path / "a.safetensors")
    assert str(tmp_path / "a.safetensors") in caught.value.message
    assert expected in caught.value.message
    assert caught.value.fix


@pytest.mark.parametrize("shape", [[0, 2**62], [0] * 40, [2**40, 0, 2**40]])
def test_a_shape_that_numpy_cannot_have_is_refused(written: Path, shape: list[int]) -> None:
    header, data = unpacked(written.read_bytes())
    written.write_bytes(packed(header | {"surplus": entry(shape, len(data), len(data))}, data))
    with pytest.raises(CheckpointError, match="surplus declares the shape"):
        checkpoints.load(written)


def test_integers_are_refused_by_name(written: Path) -> None:
    header, data = unpacked(written.read_bytes())
    written.write_bytes(packed(header | {"head.bias": header["head.bias"] | {"dtype": "I32"}}, data))
    with pytest.raises(CheckpointError, match=r"head\.bias is I32; expected F16, BF16, F32, F64"):
        checkpoints.load(written)


def changed_metadata(path: Path, **texts: str) -> None:
    header, data = unpacked(path.read_bytes())
    header["__metadata__"] |= texts
    path.write_bytes(packed(header, data))


CHANGED = {
    "version": ("2", "its version is 2, this version of vit-deploy reads 1"),
    "config": ("{}", "the weights do not fit the config"),
    "preprocess": ("[]", "its preprocess is a list; expected an object"),
    "labels": ('["a"]', "1 labels for 5 classes"),
    "provenance": ("[3]", "its metadata is damaged"),
    "weights_digest": ("0" * 64, "its weights were changed after they were written"),
}


@pytest.mark.parametrize("key", CHANGED)
def test_metadata_that_does_not_fit_is_refused(written: Path, key: str) -> None:
    text, expected = CHANGED[key]
    changed_metadata(written, **{key: text})
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(written)
    assert expected in caught.value.message


def test_a_config_of_a_billion_layers_is_refused_before_it_takes_memory(written: Path, checkpoint: Checkpoint) -> None:
    changed_metadata(written, config=json.dumps(checkpoint.config.to_dict() | {"num_layers": 10**9}))
    with pytest.raises(CheckpointError, match=r"its config says 1000000000 layers, and it holds \d+ weights in all"):
        checkpoints.load(written)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_file_that_was_cut_is_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "cut.safetensors"
    checkpoints.save(Checkpoint.random(SMALLEST, 0), path, force=True)
    whole = path.read_bytes()
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(CheckpointError):
        checkpoints.load(path)


SMALLEST = ViTConfig(
    image_size=(2, 3), patch_size=(1, 3), channels=1, embed_dim=2, num_heads=1, num_layers=1, mlp_dim=3, num_classes=2
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_flipped_bit_never_gives_other_weights(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    expected = Checkpoint.random(SMALLEST, 0)
    checkpoints.save(expected, path, force=True)
    changed = bytearray(path.read_bytes())
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(changed)
    try:
        found = checkpoints.load(path)
    except CheckpointError:
        return
    assert found.digest() == expected.digest()
