"""What files do not say is told when they are imported, all of it, and in the words of the options that change it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.state_dicts import read, write
from vit_deploy.checkpoints import assumptions, load
from vit_deploy.errors import CheckpointError

GOLDEN = Path(__file__).parents[1] / "peers" / "golden"


def copied(name: str, folder: Path, *without: str) -> Path:
    found = shutil.copytree(GOLDEN / name, folder / "copied")
    for each in without:
        (found / each).unlink(missing_ok=True)
    return found


def test_the_preprocessing_of_a_family_is_told_where_none_is_recorded(tmp_path: Path) -> None:
    folder = copied("huggingface/vit", tmp_path, "preprocessor_config.json", "processor_config.json")
    checkpoint = load(folder)
    assert assumptions(checkpoint) == (
        "assumed, for the checkpoint does not say it: mean 0.5, std 0.5, resize [16, 24], interpolation bilinear "
        "(say otherwise with --mean, --std and --config with resize and interpolation in its preprocess)"
    )
    stated = load(folder, config={"preprocess": {"mean": [0.1, 0.2, 0.3], "std": [0.2, 0.2, 0.3]}})
    assert assumptions(stated) == (
        "assumed, for the checkpoint does not say it: resize [16, 24], interpolation bilinear "
        "(say otherwise with --config with resize and interpolation in its preprocess)"
    )
    assert (checkpoint.preprocess.mean, stated.preprocess.mean) == ((0.5, 0.5, 0.5), (0.1, 0.2, 0.3))


def test_means_that_differ_and_a_resize_are_told_as_they_are(tmp_path: Path) -> None:
    folder = copied("huggingface/dinov2", tmp_path, "preprocessor_config.json", "processor_config.json")
    checkpoint = load(folder)
    told = assumptions(checkpoint)
    assert f"mean {list(checkpoint.preprocess.mean)}" in told
    assert f"resize {checkpoint.preprocess.resize}, crop True, interpolation bicubic" in told


def test_what_is_recorded_is_not_assumed() -> None:
    assert "mean" not in assumptions(load(GOLDEN / "huggingface" / "vit"))


@pytest.mark.parametrize("source", ["timm", "huggingface"])
def test_heads_and_size_that_nobody_says_are_one_error(tmp_path: Path, source: str) -> None:
    folder = GOLDEN / ("timm/plain" if source == "timm" else "huggingface/clip-vision")
    tensors: dict[str, Any] = dict(read(folder / "model.safetensors"))
    table = next(name for name in tensors if "pos_embed" in name or "position_embedding.weight" in name)
    rows = tensors[table]
    axis = rows.ndim - 2
    tensors[table] = np.concatenate([rows] * 3, axis=axis).take(range(8), axis=axis)  # 7 patches and a class token
    alone = write(tmp_path / "alone.safetensors", tensors)
    with pytest.raises(CheckpointError) as caught:
        load(alone)
    assert "its position table is for 7 patches, which make no square" in caught.value.message
    assert "nothing says how many heads it has" in caught.value.message
    assert "image_size" in caught.value.fix and "num_heads" in caught.value.fix
