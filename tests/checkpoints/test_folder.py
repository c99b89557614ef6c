"""Folders, shards and what lies beside them, however damaged."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from vit_deploy.checkpoints import load, save
from vit_deploy.checkpoints.containers.safetensors_file import open_safetensors, write_safetensors
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.errors import CheckpointError

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def write_index(folder: Path, shards: dict[str, str]) -> None:
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": shards}))


@pytest.fixture
def folder(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """Canonical weights in two shards; the config is given when it is loaded."""
    names = list(checkpoint.weights)
    shards = {FIRST: names[::2], SECOND: names[1::2]}
    for file, held in shards.items():
        write_safetensors(tmp_path / file, {name: checkpoint.weights[name] for name in held}, {})
    write_index(tmp_path, {name: file for file, held in shards.items() for name in held})
    return tmp_path


posix = pytest.mark.skipif(os.name == "nt", reason="links and pipes of another kind")


def weight_map(folder: Path) -> dict[str, str]:
    found: dict[str, str] = json.loads((folder / INDEX).read_text())["weight_map"]
    return found


def failure_of(path: Path, checkpoint: Checkpoint) -> str:
    with pytest.raises(CheckpointError) as failure:
        load(path, config=checkpoint.config)
    assert failure.value.fix
    return str(failure.value)


def test_shards_are_one_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    assert load(folder, config=checkpoint.config).digest() == checkpoint.digest()
    assert load(folder / INDEX, config=checkpoint.config).digest() == checkpoint.digest()


@posix
def test_shards_behind_links_are_too_as_in_the_cache_of_a_hub(folder: Path, checkpoint: Checkpoint) -> None:
    linked = folder / "snapshot"
    linked.mkdir()
    for name in (FIRST, SECOND, INDEX):
        (folder / name).rename(folder / f"blob-{name}")
        (linked / name).symlink_to(Path("..") / f"blob-{name}")
    assert load(linked, config=checkpoint.config).digest() == checkpoint.digest()


def test_a_missing_shard_is_named(folder: Path, checkpoint: Checkpoint) -> None:
    (folder / SECOND).unlink()
    assert f"{INDEX}: {SECOND} is missing" in failure_of(folder, checkpoint)


def test_shards_that_were_not_downloaded_to_their_end_are_named_together(folder: Path, checkpoint: Checkpoint) -> None:
    os.truncate(folder / FIRST, 2000)
    os.truncate(folder / SECOND, 0)
    said = failure_of(folder, checkpoint)
    assert f"{FIRST}: its header is damaged: its tensors take" in said
    assert f"{SECOND} is no checkpoint: it begins like none of" in said
    assert "get all files of the checkpoint again" in said


@posix
def test_a_shard_that_links_to_itself_is_missing(folder: Path, checkpoint: Checkpoint) -> None:
    (folder / SECOND).unlink()
    (folder / SECOND).symlink_to(SECOND)
    assert f"{SECOND} is missing" in failure_of(folder, checkpoint)


@posix
def test_a_shard_that_is_a_pipe_is_not_waited_for(folder: Path, checkpoint: Checkpoint) -> None:
    (folder / SECOND).unlink()
    os.mkfifo(folder / SECOND)
    assert f"{SECOND} is missing" in failure_of(folder, checkpoint)


@posix
def test_a_shard_that_links_to_something_else_is_no_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    secret = folder / "notes.txt"
    secret.write_text("the password is swordfish")
    (folder / SECOND).unlink()
    (folder / SECOND).symlink_to(secret)
    said = failure_of(folder, checkpoint)
    assert "is no checkpoint" in said
    assert "swordfish" not in said


@pytest.mark.parametrize(
    "elsewhere",
    ["../model.safetensors", "/etc/passwd", "sub/model.safetensors", "..", ".", "", "..\\m.safetensors", "C:m", "a\0b"],
)
def test_an_index_may_not_name_files_elsewhere(elsewhere: str, folder: Path, checkpoint: Checkpoint) -> None:
    shards = weight_map(folder)
    write_index(folder, {**shards, next(iter(shards)): elsewhere})
    assert f"{elsewhere!r} lies elsewhere" in failure_of(folder, checkpoint)


def test_all_that_is_wrong_with_an_index_is_said_at_once(folder: Path, checkpoint: Checkpoint) -> None:
    write_index(folder, {"a": "../a", "b": "b.safetensors", "c": "x" * 300, "d": INDEX})
    said = failure_of(folder, checkpoint)
    for each in ("'../a' lies elsewhere", "b.safetensors is missing", "xxx is missing", f"{INDEX} is missing"):
        assert each in said


def test_shards_that_are_not_those_of_the_index_are_refused(folder: Path, checkpoint: Checkpoint) -> None:
    shards = weight_map(folder)
    swapped, *_, dropped = shards
    moved = {FIRST: SECOND, SECOND: FIRST}[shards[swapped]]
    held = shards.pop(dropped)
    write_index(folder, {**shards, swapped: moved, "ghost": FIRST})
    said = failure_of(folder, checkpoint)
    assert f"{FIRST} has no ghost" in said
    assert f"{held} has {dropped}, which the index leaves out" in said
    assert f"{moved} has no {swapped}" in said


def test_a_tensor_that_is_there_twice_is_refused(folder: Path, checkpoint: Checkpoint) -> None:
    twice = next(name for name, file in weight_map(folder).items() if file == SECOND)
    with open_safetensors(folder / FIRST) as file:
        tensors = {name: file.read(name) for name in file.names()}
    write_safetensors(folder / FIRST, {**tensors, twice: np.zeros(3, np.float32)}, {})
    assert f"{FIRST} has {twice}, which the index has in {SECOND}" in failure_of(folder, checkpoint)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is a list; expected an object"),
        ("[" * 100_000, "nested too deeply"),
        ("{}", "'weight_map' is missing"),
        ('{"weight_map": {}}', "it names no weights"),
        ('{"weight_map": ["a"]}', "is damaged"),
        ('{"weight_map": null}', "is damaged"),
        ('{"weight_map": {"a": ["b"]}}', "is missing"),
        ('{"weight_map": {"a": "x", "a": "y"}}', "the key 'a' is there twice"),
    ],
)
def test_a_damaged_index_is_a_clear_error(text: str, said: str, folder: Path, checkpoint: Checkpoint) -> None:
    (folder / INDEX).write_text(text, encoding="utf-8")
    assert said in failure_of(folder, checkpoint)


def test_an_index_of_countless_files_is_refused_before_any_is_opened(folder: Path, checkpoint: Checkpoint) -> None:
    write_index(folder, {f"w{number}": f"{number}.safetensors" for number in range(2000)})
    said = failure_of(folder, checkpoint)
    assert "it names 2000 files; expected 500 at most" in said
    assert "and 481 more" in said


def test_one_shard_alone_is_refused_with_what_to_give(folder: Path, checkpoint: Checkpoint) -> None:
    said = failure_of(folder / FIRST, checkpoint)
    assert "it is one of the files that the weights are spread over" in said
    assert f"give the folder, or {INDEX}" in said


@pytest.mark.parametrize("shards", [(FIRST, SECOND), (FIRST,)])
def test_shards_without_their_index_are_refused(shards: tuple[str, ...], folder: Path, checkpoint: Checkpoint) -> None:
    (folder / INDEX).unlink()
    for file in {FIRST, SECOND} - set(shards):
        (folder / file).unlink()
    assert f"holds shards, and no {INDEX} that lists them" in failure_of(folder, checkpoint)


def test_a_truncated_shard_is_a_clear_error(folder: Path, checkpoint: Checkpoint) -> None:
    content = (folder / SECOND).read_bytes()
    (folder / SECOND).write_bytes(content[:-5])
    assert "its header is damaged" in failure_of(folder, checkpoint)


@pytest.fixture
def saved(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    save(checkpoint, tmp_path / "net.safetensors")
    return tmp_path


def test_a_folder_with_one_weight_file_of_any_name_is_that_file(saved: Path, checkpoint: Checkpoint) -> None:
    (saved / "._net.safetensors").write_bytes(b"\0" * 20)  # macOS
    (saved / "readme.md").write_text("a model")
    (saved / "logs.pt").mkdir()
    assert load(saved).digest() == checkpoint.digest()


def test_a_folder_with_several_lists_them(saved: Path, checkpoint: Checkpoint) -> None:
    shutil.copy(saved / "net.safetensors", saved / "other.safetensors")
    said = failure_of(saved, checkpoint)
    assert "holds several checkpoints" in said
    assert "give the file: net.safetensors, other.safetensors" in said


def test_the_usual_name_wins(saved: Path, checkpoint: Checkpoint) -> None:
    shutil.copy(saved / "net.safetensors", saved / "model.safetensors")
    (saved / "net.safetensors").write_bytes(b"broken")
    assert load(saved).digest() == checkpoint.digest()


def test_an_empty_folder_holds_no_checkpoint(tmp_path: Path, checkpoint: Checkpoint) -> None:
    assert "holds no checkpoint" in failure_of(tmp_path, checkpoint)


@posix
def test_documents_beside_that_are_damaged_do_not_matter_until_they_are_asked_for(
    saved: Path, checkpoint: Checkpoint
) -> None:
    (saved / "generation_config.json").write_text("{")
    (saved / "config.json").symlink_to("config.json")
    os.mkfifo(saved / "other.json")
    assert load(saved / "net.safetensors").digest() == checkpoint.digest()
