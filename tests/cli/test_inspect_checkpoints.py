"""What inspect says of checkpoints, which are files or folders."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints.state_dicts import read, write
from tests.checkpoints.torch_writer import write_zip
from tests.cli.inspecting import assert_says, labelled, record, table
from tests.exporters.variants import trained
from tests.peers import timm_families
from vit_deploy import checkpoints
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.choices import Activation

PLAIN = Path(timm_families.__file__).parent / "golden" / "timm" / "plain"


@pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
def test_a_checkpoint_says_what_it_holds(suffix: str, tmp_path: Path, capfd: Any) -> None:
    model = labelled()
    path = tmp_path / f"vit{suffix}"
    checkpoints.save(model, path)
    found = record(path, capfd)
    assert_says(found, model)
    assert (found["kind"], found["format"]) == ("checkpoint", suffix.removeprefix("."))
    assert found["bytes"] == path.stat().st_size
    assert found["operators"] is None


def test_a_table_of_a_checkpoint_has_plain_words_and_no_empty_rows(tmp_path: Path, run: Any) -> None:
    plain = Checkpoint.random(trained().config, 7)
    facts = {
        "assumed": {"activation": Activation.GELU, "epsilon": 1e-6},
        "left_out": [],
        "supposed": {},
        "size": [8, 4],
    }
    checkpoints.save(plain.with_step("import", **facts), tmp_path / "vit.safetensors")
    rows = table(run("inspect", tmp_path / "vit.safetensors").out)
    assert rows["kind"] == "safetensors checkpoint"
    assert rows["labels"] == "none"
    assert rows["done to it"] == "import assumed=(activation=gelu, epsilon=1e-06), size=[8, 4]"
    assert "runs in" not in rows


def test_assumptions_are_in_plain_words_in_the_table(tmp_path: Path, run: Any) -> None:
    path = write_zip(tmp_path / "ckpt.pth.tar", read(PLAIN / "model.safetensors"))
    rows = table(run("inspect", path, "--num-heads", 3).out)
    assert rows["kind"] == "pth.tar checkpoint"
    assert "activation=gelu" in rows["done to it"]


@pytest.mark.parametrize("shards", [1, 2])
def test_the_size_of_a_folder_is_that_of_its_weights(shards: int, tmp_path: Path, capfd: Any) -> None:
    tensors = read(PLAIN / "model.safetensors")
    names = (
        ["model.safetensors"]
        if shards == 1
        else ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    )
    held = {file: list(tensors)[index::shards] for index, file in enumerate(names)}
    for file, part in held.items():
        write(tmp_path / file, {name: tensors[name] for name in part})
    if shards > 1:
        index = {"weight_map": {name: file for file, part in held.items() for name in part}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copy(PLAIN / "config.json", tmp_path)
    found = record(tmp_path, capfd)
    assert (found["kind"], found["format"]) == ("checkpoint", "safetensors")
    assert found["bytes"] == sum((tmp_path / file).stat().st_size for file in held)
