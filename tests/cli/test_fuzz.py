"""Whatever is wrong with a file, a command says it in one error: no traceback, no hang, no half of an output.

Every kind of file is cut, has bits flipped, bytes overwritten or pieces repeated, at places that a seed draws, and is
given to each command that takes it. A file may still be valid after that; then the command does its work.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.cli.damage import DAMAGE, TARGETS, Command, Target, write_originals
from vit_deploy.core.manifest import write_manifest
from vit_deploy.core.memory import peak_rss_mb

HANG_S = 60  # of computing, which does not grow where others keep the machine busy
MEMORY_MB = 600  # that all of it together may take beyond what the process had
TIMES = 3  # that each command meets each kind of damage where there is time


@pytest.fixture(scope="module")
def originals(
    make_checkpoint: Any, bundles: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A folder for each kind of files, not to be changed."""
    return write_originals(make_checkpoint(), bundles, tmp_path_factory.mktemp("originals"))


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    before = peak_rss_mb() or 0
    yield
    assert (peak_rss_mb() or 0) < before + MEMORY_MB


def assert_answered(
    run: Any, target: Target, commands: Sequence[Command], folder: Path, originals: dict[str, Path], tmp_path: Path
) -> None:
    """Each command ends in time with an exit code of the contract, and an error is one, with nothing written."""
    names = {"path": folder / target.path, "file": folder / target.file, "folder": folder, "out": tmp_path / "out"}
    names |= {"images": originals["images"]}
    for command in commands:
        begun = time.process_time()
        said = run(*(word.format(**names) for word in command))
        assert time.process_time() - begun < HANG_S
        written = [entry.name for entry in tmp_path.iterdir() if entry.name.startswith("out")]
        hidden = [entry.name for entry in tmp_path.iterdir() if entry.name.startswith(".")]
        assert said.code in (0, 1, 2), said.err
        assert not hidden
        if said.code == 2:
            assert said.err.count("vit-deploy: ") == 1, said.err
            assert "Traceback" not in said.err
            assert not written, command
        for name in written:
            path = tmp_path / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def in_turn(target: Target, kind: str) -> list[Command]:
    """One command for each kind of damage: the first one, then others, beginning elsewhere for each kind of file."""
    first, *others = target.commands
    start = sum(kind.encode())
    rest = [others[(start + number) % len(others)] if others else first for number in range(len(DAMAGE) - 1)]
    return [first, *rest]


@pytest.mark.parametrize("kind", TARGETS)
def test_a_damaged_file_is_one_error_or_still_a_file(
    run: Any, originals: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    target = TARGETS[kind]
    folder = shutil.copytree(originals[target.folder], tmp_path / "copied")
    file = folder / target.file
    data = file.read_bytes()
    rng = np.random.default_rng([*kind.encode()])
    for damage, command in zip(DAMAGE, in_turn(target, kind), strict=True):
        file.write_bytes(damage(data, rng))
        assert_answered(run, target, [command], folder, originals, tmp_path)


def test_no_command_is_left_out() -> None:
    asked = {command[0] for kind, target in TARGETS.items() for command in in_turn(target, kind)}
    assert asked == {command[0] for target in TARGETS.values() for command in target.commands}
    every = {"convert", "resize", "export", "quantize", "verify", "compare", "bench", "report", "evaluate", "predict"}
    assert asked == every | {"bundle", "card", "inspect"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TARGETS)
def test_every_command_that_reads_a_damaged_file_gives_one_error_or_its_work(
    run: Any, originals: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    target = TARGETS[kind]
    folder = shutil.copytree(originals[target.folder], tmp_path / "copied")
    file = folder / target.file
    data = file.read_bytes()
    rng = np.random.default_rng([1, *kind.encode()])
    for _ in range(TIMES):
        for damage in DAMAGE:
            file.write_bytes(damage(data, rng))
            assert_answered(run, target, target.commands, folder, originals, tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("tf_keras") is None, reason="needs the extra compress")
@pytest.mark.parametrize("kind", ["safetensors", "timm config", "data"])
def test_what_is_damaged_is_not_compressed(run: Any, originals: dict[str, Path], tmp_path: Path, kind: str) -> None:
    target = TARGETS[kind]
    folder = shutil.copytree(originals[target.folder], tmp_path / "copied")
    file = folder / target.file
    data = file.read_bytes()
    model, photos = ("{folder}/small.safetensors", "{path}") if kind == "data" else ("{path}", "{images}/data.npz")
    options = ("--method", "prune", "--epochs", "1", "-o", "{out}.safetensors")
    rng = np.random.default_rng([2, *kind.encode()])
    for damage in DAMAGE:
        file.write_bytes(damage(data, rng))
        command = ("compress", model, "--data", photos, *options)
        assert_answered(run, target, [command], folder, originals, tmp_path)


@pytest.mark.parametrize("kind", ["onnx", "tflite", "savedmodel"])
def test_a_damaged_model_whose_manifest_was_made_anew_is_one_error_or_fails_its_proof(
    run: Any, originals: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    # Past the digests an engine meets the bytes; metadata at the end of a file leave it valid.
    from vit_deploy.core.manifest import read_artifact

    folder = shutil.copytree(originals[kind], tmp_path / "copied")
    artifact = read_artifact(folder)
    file = folder / TARGETS[kind].file
    data = file.read_bytes()
    commands: list[tuple[str, ...]] = [("verify", "{path}", "--quick")]
    if kind != "savedmodel":
        commands.append(("quantize", "{path}", "--precision", "int8", "-o", "{out}"))
    middle = len(data) // 2  # an ONNX file has names and shapes there, and a TFLite file weights
    other = data[:middle] + bytes(byte ^ 0x55 for byte in data[middle : middle + 40]) + data[middle + 40 :]
    for damaged in (*(data[: int(share * len(data))] for share in (0.0, 0.3, 0.9)), other):
        file.write_bytes(damaged)
        write_manifest(artifact)
        assert_answered(run, TARGETS[kind], commands, folder, originals, tmp_path)


@given(text=st.text() | st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists).map(json.dumps))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@pytest.mark.parametrize("kind", ["config", "timm config", "transformers config", "manifest", "bench results"])
def test_any_text_in_place_of_json_is_one_error(
    run: Any, originals: dict[str, Path], tmp_path: Path, kind: str, text: str
) -> None:
    target = TARGETS[kind]
    folder = tmp_path / "copied"
    if not folder.exists():
        shutil.copytree(originals[target.folder], folder)
    (folder / target.file).write_text(text, encoding="utf-8", errors="surrogatepass")
    command = target.commands[len(text) % len(target.commands)]
    assert_answered(run, target, [command], folder, originals, tmp_path)
