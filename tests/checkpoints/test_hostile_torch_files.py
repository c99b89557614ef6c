"""Torch files of unknown origin: whatever is in them, nothing runs, nothing grows, and the error says what it is."""

from __future__ import annotations

import os
import pickle
import resource
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import archives
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peers import timm_families

from tests.checkpoints import state_dicts, torch_writer
from tests.checkpoints.torch_writer import Raw, View, named, scalar, write_legacy, write_zip
from vit_deploy import checkpoints
from vit_deploy.checkpoints.containers.torch_file import open_torch
from vit_deploy.checkpoints.containers.torch_pickle import Stream, unpickled
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError

GOLDEN = Path(timm_families.__file__).parent / "golden" / "timm" / "plain"
STATED = {"num_heads": 3, "image_size": [24, 32]}
FORMATS: dict[str, Callable[..., Path]] = {"zip": write_zip, "legacy": write_legacy}


@pytest.fixture
def tensors() -> dict[str, Any]:
    return dict(state_dicts.read(GOLDEN / "model.safetensors"))


def call(module: str, name: str, *args: Any) -> Raw:
    """What a pickle calls a function with."""
    return Raw(named(module, name) + torch_writer.Writer().opcodes(args) + b"R")


def touching(folder: Path) -> dict[str, Raw]:
    """Ways to run code when a pickle is loaded, each of which would leave a file there."""
    command = f"touch {folder / 'run'}"
    code = f"open({str(folder / 'run')!r}, 'w')"
    return {
        "os.system": call("os", "system", command),
        "posix.system": call("posix", "system", command),
        "subprocess": call("subprocess", "check_output", ["touch", str(folder / "run")]),
        "eval": call("builtins", "eval", code),
        "exec": call("builtins", "exec", code),
        "python 2": call("__builtin__", "eval", code),
        "runpy": call("runpy", "_run_code", code, {}),
        "torch's own": call("torch.utils.collect_env", "run", command),
        "an instance": Raw(b"(" + scalar(command) + b"ios\nsystem\n"),
        "an object": Raw(b"(" + named("os", "system") + scalar(command) + b"o"),
        "a new object": Raw(named("os", "system") + b"(" + scalar(command) + b"t\x81"),
        "named on the stack": Raw(scalar("os") + scalar("system") + b"\x93(" + scalar(command) + b"tR"),
        "an extension": Raw(b"\x82\x01(" + scalar(command) + b"tR"),
        "a getattr": Raw(
            named("builtins", "getattr")
            + b"("
            + named("os", "path")
            + scalar("system")
            + b"tR("
            + scalar(command)
            + b"tR"
        ),
        "a state": Raw(named("builtins", "object") + b")\x81" + call("os", "system", command).opcodes + b"b"),
        "a subclass": call("torch._tensor", "_rebuild_from_type_v2", Raw(named("os", "system")), None, (command,)),
    }


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("way", touching(Path()))
def test_no_code_runs_and_the_weights_beside_it_are_read(
    way: str, format: str, tensors: dict[str, Any], tmp_path: Path
) -> None:
    attack = touching(tmp_path)[way]
    path = FORMATS[format](tmp_path / "a.pth", {"args": attack, "state_dict": tensors, "epoch": 3})
    images = timm_families.drawn_images(24, 32)
    expected = np.load(GOLDEN / "output.npy")
    assert np.abs(forward(checkpoints.load(path, config=STATED), images) - expected).max() < 1e-6
    FORMATS[format](path, attack)
    with pytest.raises(CheckpointError, match="it holds no tensors by name"):
        checkpoints.load(path, config=STATED)
    assert not (tmp_path / "run").exists()


def test_the_attacks_would_work(tmp_path: Path) -> None:
    pickle.loads(torch_writer.Writer().dumps(touching(tmp_path)["os.system"]))
    assert (tmp_path / "run").exists()


def failure_of(path: Path) -> str:
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path, config=STATED)
    assert caught.value.fix
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kilobytes
    assert time.process_time() - started < 60
    return str(caught.value)


PICKLES: dict[str, tuple[bytes, str]] = {
    "ends early": (b"\x80\x02}", "its pickle is damaged"),
    "is empty": (b"", "its pickle is damaged"),
    "takes more than it has": (b"\x80\x02R.", "it takes more than it has made"),
    "has no mark": (b"\x80\x02]e.", "it takes more than it has made"),
    "refers to nothing": (b"\x80\x02h\x05.", "it refers to what it has not made"),
    "ends with a mark": (b"\x80\x02(.", "no tensors by name"),
    "ends with two values": (b"\x80\x02NN.", "it ends with 2 values"),
    "has an unknown opcode": (b"\x80\x02\xff.", "unknown"),
    "appends to a text": (b"\x80\x02" + scalar("a") + b"Na.", "it appends to a str"),
    "sets in a list": (b"\x80\x02]NNs.", "it sets entries of a list"),
    "has a key alone": (b"\x80\x02}(Nu.", "its pickle is damaged"),
    "calls with no arguments": (b"\x80\x02" + named("a", "b") + b"NR.", "it calls something with a NoneType"),
    "is no storage": (b"\x80\x02" + scalar("x") + b"Q.", "an id of no storage"),
    "refers to a line": (b"\x80\x02Pstorage\n.", "an id of no storage"),
    "refers to buffers": (b"\x80\x05\x97.", "buffers that are kept elsewhere"),
    "has a long text": (b"\x80\x04\x8d" + struct.pack("<Q", 1 << 60) + b"a.", "its pickle is damaged"),
    "has long bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"a.", "its pickle is damaged"),
    "has a long array": (b"\x80\x05\x96" + struct.pack("<Q", 1 << 61) + b"a.", "its pickle is damaged"),
    "has a long number": (b"\x80\x02\x8b" + struct.pack("<i", 1 << 30) + b"a.", "its pickle is damaged"),
    "has a number of a million digits": (b"\x80\x02L" + b"9" * 60_000 + b"L\n.", "its pickle is damaged"),
    "has a line without end": (b"\x80\x02c" + b"a" * 1_000_000, "its pickle is damaged"),
    "has a memo of billions": (b"\x80\x02Nr\xff\xff\xff\xff0.", "it ends with 0 values"),
    "has no UTF-8": (b"\x80\x02X\x02\0\0\0\xff\xff.", "its pickle is damaged"),
    "has a frame of exabytes": (b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.", "no tensors by name"),
}


@pytest.mark.parametrize("case", PICKLES)
def test_a_pickle_that_is_none_is_a_clear_error(case: str, tmp_path: Path) -> None:
    data, said = PICKLES[case]
    assert said in failure_of(write_zip(tmp_path / "a.pth", None, **{"data.pkl": data}))


def nested(depth: int) -> bytes:
    """A list in a list in a list."""
    return b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b"."


def laughing(open: bytes, close: bytes, levels: int = 60) -> bytes:
    """A value that holds the one before it twice, and so on: 2^60 of them, in some hundred bytes."""
    doubled = b""
    for level in range(levels):
        doubled += open + b"h" + bytes([level]) + b"h" + bytes([level]) + close + b"q" + bytes([level + 1]) + b"0"
    return b"\x80\x02Nq\x000" + doubled + b"h" + bytes([levels])


BOMBS: dict[str, bytes] = {
    "nested a million times": nested(1_000_000),
    "lists of lists": laughing(b"](", b"e") + b".",
    "tuples of tuples": laughing(b"(", b"t") + b".",
    "tuples of tuples as a key": b"\x80\x02}" + laughing(b"(", b"t")[2:] + b"Ns.",
    "dictionaries of dictionaries": b"\x80\x02"
    + b"}q\x000"
    + b"".join(
        b"}(" + scalar("a") + b"h" + bytes([n]) + scalar("b") + b"h" + bytes([n]) + b"uq" + bytes([n + 1]) + b"0"
        for n in range(60)
    )
    + b"h\x3c.",
    "a list that holds itself": b"\x80\x02]q\0h\0a.",
    "a module that holds itself": b"\x80\x02" + named("__torch__", "M") + b")\x81q\0}(" + scalar("inner") + b"h\0ub.",
    "copies of copies": b"\x80\x02"
    + b"]("
    + b"N" * 100_000
    + b"eq\0"
    + (named("builtins", "list") + b"(h\0tR0") * 3000
    + b".",
    "an instance in an instance": b"\x80\x02"
    + named("a", "B")
    + b")\x81q\x00"
    + (named("a", "B") + b"(h\x00tRq\x00") * 200_000
    + b".",
}


@pytest.mark.slow
@pytest.mark.parametrize("case", BOMBS)
def test_a_pickle_that_would_grow_without_end_does_not(case: str, tmp_path: Path) -> None:
    """In a process of its own, since one that overflows the stack ends it."""
    path = write_zip(tmp_path / "a.pth", None, **{"data.pkl": BOMBS[case]})
    program = (
        "import resource, sys\n"
        "from vit_deploy.checkpoints.containers.torch_file import open_torch\n"
        "from vit_deploy.errors import CheckpointError\n"
        "from pathlib import Path\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))\n"
        "try:\n"
        "    with open_torch(Path(sys.argv[1])) as file:\n"
        "        print(list(file.names()))\n"
        "except CheckpointError as error:\n"
        "    print('refused:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout[:8]) == (0, "refused:"), done.stderr[-2000:]


ONE = np.ones(60, np.float32)
VIEWS: dict[str, tuple[View, str]] = {
    "a shape of 2^60": (View(ONE, (1 << 60, 12), (12, 1)), "declares the shape"),
    "a shape beyond its storage": (View(ONE, (5, 12), (24, 1)), "reaches beyond its 240 bytes"),
    "an offset beyond its storage": (View(ONE, (5, 12), (12, 1), 1 << 40), "reaches beyond its 240 bytes"),
    "an offset of 2^70": (View(ONE, (5, 12), (12, 1), 1 << 70), "a tensor whose size is no such number"),
    "an offset below": (View(ONE, (5, 12), (12, 1), -4), "a tensor whose size is no such number"),
    "a stride below": (View(ONE, (5, 12), (-12, 1)), "a tensor whose size is no such number"),
    "a side below": (View(ONE, (-5, -12), (12, 1)), "a tensor whose size is no such number"),
    "more sides than strides": (View(ONE, (5, 12), (1,)), "a tensor of 2 axes with 1 strides"),
    "a hundred axes": (View(ONE, (1,) * 100, (1,) * 100), "a tensor of 100 axes"),
    "one number without end": (View(ONE, (10**9, 12), (0, 0)), "far fewer numbers"),
    "an unknown storage": (View(ONE, (5, 12), (12, 1), kind="SecretStorage"), "a storage of the unknown kind"),
    "whole numbers": (View(ONE, (5, 12), (12, 1), kind="IntStorage"), "head.weight is int32; expected dense floats"),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", VIEWS)
def test_a_tensor_that_lies_about_its_numbers_is_refused(
    case: str, format: str, tensors: dict[str, Any], tmp_path: Path
) -> None:
    view, said = VIEWS[case]
    path = FORMATS[format](tmp_path / "a.pth", tensors | {"head.weight": view})
    assert said in failure_of(path)


STORAGE = b"(" + scalar("storage") + named("torch", "FloatStorage")
SAID: dict[str, tuple[bytes, str]] = {
    "of 2^60 numbers": (STORAGE + scalar("0") + scalar("cpu") + scalar(1 << 60) + b"tQ", "head.weight has 240 bytes"),
    "of minus one number": (STORAGE + scalar("0") + scalar("cpu") + scalar(-1) + b"tQ", "a storage whose size is"),
    "of a text of numbers": (STORAGE + scalar("0") + scalar("cpu") + scalar("60") + b"tQ", "whose size is a str"),
    "that is elsewhere": (STORAGE + scalar("../../secret") + scalar("cpu") + scalar(60) + b"tQ", "which is not there"),
    "that is not there": (STORAGE + scalar("77") + scalar("cpu") + scalar(60) + b"tQ", "which is not there"),
    "of the system": (
        b"(" + scalar("storage") + named("os", "FloatStorage") + scalar("0") + scalar("cpu") + scalar(60) + b"tQ",
        "a storage of the unknown kind os.FloatStorage",
    ),
    "that is none": (scalar("storage"), "a tensor without a storage"),
}


@pytest.mark.parametrize("case", SAID)
def test_a_storage_that_is_not_there_is_refused(case: str, tensors: dict[str, Any], tmp_path: Path) -> None:
    storage, said = SAID[case]
    place = scalar(0) + torch_writer.Writer().opcodes((5, 12)) + torch_writer.Writer().opcodes((12, 1))
    rebuilt = Raw(named("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + place + scalar(False) + b"NtR")
    first = {"unused": ONE}
    path = write_zip(tmp_path / "a.pth", {"x": first, "state_dict": tensors | {"head.weight": rebuilt}})
    found = failure_of(path)
    assert said in found, found


def test_members_of_the_zip_that_lie_are_refused(tensors: dict[str, Any], tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pth", tensors, byteorder=b"big")
    assert "numbers begin with their large end" in failure_of(path)
    data = write_zip(tmp_path / "a.pth", tensors).read_bytes()
    path.write_bytes(data[:26] + b"\xff\xff" + data[28:])  # the length of the first member's name
    assert "is not where the zip's directory says" in failure_of(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/other.pkl", b"")
    assert "it is a zip without data.pkl" in failure_of(path)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"")
        archive.writestr("archive/data.pkl", torch_writer.Writer().dumps(tensors))
    assert "archive/data.pkl is there 2 times" in failure_of(path)


def test_a_file_of_the_older_format_that_lies_is_refused(tensors: dict[str, Any], tmp_path: Path) -> None:
    path = write_legacy(tmp_path / "a.pth", tensors, little_endian=False)
    assert "numbers begin with their large end" in failure_of(path)
    assert "of another version than 1001" in failure_of(write_legacy(path, tensors, protocol=1000))
    data = write_legacy(path, tensors).read_bytes()
    os.truncate(path, len(data) - 4)
    assert "its storage" in failure_of(path)
    last = tensors[list(tensors)[-1]]
    at = len(data) - last.nbytes - 8
    for count in (-1, 1 << 60, -(1 << 62)):
        path.write_bytes(data[:at] + struct.pack("<q", count) + data[at + 8 :])
        assert "its storage" in failure_of(path)


def test_a_pickle_that_torch_did_not_write_is_said_to_be_one(tmp_path: Path) -> None:
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "a.pth").write_bytes(pickle.dumps({"a": 1}, protocol=protocol))
        assert "a pickle of a dict that torch.save did not write, and nothing of it was run" in failure_of(
            tmp_path / "a.pth"
        )


OPCODES = [
    *(bytes([code]) for code in b".()}]tuseaRbcoiQhqrKXVINl2"),
    *(bytes([code]) for code in range(0x80, 0x99)),
    *(b"\0", b"\1", b"a\n", b"torch._utils\n", b"_rebuild_tensor_v2\n"),
]
TINY = {"state_dict": {"a.weight": np.ones((2, 3), np.float32), "a.bias": np.zeros(2, np.float32)}, "epoch": 3}


def names_in(path: Path) -> list[str]:
    with open_torch(path) as file:
        names = list(file.names())
        for name in names:
            file.read(name)
        return names


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_file_is_a_clear_error_or_still_numbers(format: str, data: st.DataObject, tmp_path: Path) -> None:
    path = FORMATS[format](tmp_path / "a.pth", TINY)
    whole = path.read_bytes()
    damage = archives.cut if data.draw(st.booleans()) else archives.flipped
    path.write_bytes(data.draw(damage(whole)))
    try:
        names_in(path)
    except CheckpointError as error:
        assert error.fix


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(opcodes=st.lists(st.sampled_from(OPCODES), max_size=40))
def test_any_row_of_opcodes_is_a_clear_error_or_a_value(opcodes: list[bytes], tmp_path: Path) -> None:
    try:
        unpickled(Stream(memoryview(b"\x80\x04" + b"".join(opcodes) + b".")))
    except CheckpointError as error:
        assert error.fix
