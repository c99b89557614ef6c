"""Checkpoints whose positions follow the size of the images, read again for the size that is wanted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.state_dicts import read, write
from tests.peers import timm_families
from tests.peers.census import LIMIT, distance
from tests.peers.make_dialect_golden import TARGET as DIALECTS
from tests.peers.make_tower_golden import TARGET as TOWERS
from vit_deploy import api, checkpoints
from vit_deploy.checkpoints.huggingface import aimv2
from vit_deploy.core.reference import forward
from vit_deploy.core.resize import Convention, resize
from vit_deploy.errors import ConfigError
from vit_deploy.verification.targets import load_source

GOLDEN = Path(timm_families.__file__).parent / "golden" / "timm"
NEW_SIZE = timm_families.NEW_SIZE
IMAGES = timm_families.drawn_images(*NEW_SIZE)


def of_any_size(folder: Path) -> Path:
    """An AIMv2 whose positions are computed, not stored."""
    shutil.copytree(TOWERS / "aimv2", folder / "aimv2")
    config = folder / "aimv2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"is_native": True}))
    weights = folder / "aimv2" / "model.safetensors"
    tensors = read(weights)
    write(weights, {name: tensor for name, tensor in tensors.items() if "position_embedding" not in name})
    return folder / "aimv2"


@pytest.mark.parametrize("name", timm_families.READ_AGAIN)
def test_a_naflexvit_is_read_for_the_images_that_are_asked_for(name: str) -> None:
    expected = np.load(GOLDEN / name / "resized_output.npy")
    source = load_source(str(GOLDEN / name), {"image_size": NEW_SIZE}, None)
    assert distance(forward(source.checkpoint, IMAGES), expected) < LIMIT
    assert "read for images of 40x48" in source.note
    assert "resize" not in [step.action for step in source.checkpoint.provenance]


def test_the_command_that_resizes_reads_it_for_that_size_too(tmp_path: Path) -> None:
    outcome = api.resize(GOLDEN / "naflex", tmp_path / "larger.safetensors", image_size=NEW_SIZE)
    saved = checkpoints.load(tmp_path / "larger.safetensors")
    assert distance(forward(saved, IMAGES), np.load(GOLDEN / "naflex" / "resized_output.npy")) < LIMIT
    (result,) = outcome
    assert result.before["image_size"] == [24, 32] and result.after["image_size"] == [40, 48] and result.resampled
    (note,) = outcome.notes
    assert note.startswith("read for images of 40x48")


def test_positions_that_a_program_computes_are_computed_for_that_size(tmp_path: Path) -> None:
    path = of_any_size(tmp_path)
    found = load_source(str(path), {"image_size": (24, 40)}, None).checkpoint
    np.testing.assert_array_equal(found.weights["pos_embed.table"], aimv2.computed_positions(found.config))
    assert found.config.grid == (3, 5)


def test_sines_of_vit_pytorch_are_computed_for_that_size() -> None:
    stated = {"num_heads": 2, "image_size": [16, 24], "patch_size": [8, 6]}
    path = DIALECTS / "vit-pytorch-simple"
    found = load_source(str(path), {"image_size": (24, 36)}, None, stated=stated).checkpoint
    expected = checkpoints.load(path, config={**stated, "image_size": [24, 36]})
    np.testing.assert_array_equal(found.weights["pos_embed.table"], expected.weights["pos_embed.table"])


@pytest.mark.parametrize("kind", ["resampled", "computed"])
def test_without_its_file_it_is_refused_unless_a_convention_is_named(kind: str, tmp_path: Path) -> None:
    path = GOLDEN / "naflex" if kind == "resampled" else of_any_size(tmp_path)
    loaded = checkpoints.load(path)
    with pytest.raises(ConfigError, match=f"its positions were {kind} for its image size when it was read") as caught:
        resize(loaded, (48, 48))
    assert "give the file that it was read of" in caught.value.fix
    assert resize(loaded, (48, 48), like=Convention.TIMM).config.image_size == (48, 48)


@pytest.mark.parametrize("like", [None, "timm"])
def test_other_checkpoints_and_named_conventions_are_resampled(like: str | None) -> None:
    name = "plain" if like is None else "naflex"
    found: Any = load_source(str(GOLDEN / name), {"image_size": NEW_SIZE}, None, like)
    assert found.checkpoint.provenance[-1].action == "resize"


def test_one_that_was_saved_here_is_refused_in_the_same_words(tmp_path: Path) -> None:
    checkpoints.save(checkpoints.load(GOLDEN / "naflex"), tmp_path / "saved.safetensors")
    with pytest.raises(ConfigError, match="would be resampled twice"):
        load_source(str(tmp_path / "saved.safetensors"), {"image_size": NEW_SIZE}, None)
