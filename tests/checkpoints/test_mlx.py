"""MLX's packed matrices are read as the floats that MLX computes with, or refused by what is wrong with them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.peers.census import LIMIT, distance
from tests.peers.make_mlx_golden import EXPECTED, OWN, TARGET, USUAL
from vit_deploy.checkpoints import load
from vit_deploy.checkpoints.containers.safetensors_file import SafeTensors
from vit_deploy.checkpoints.wrapping.mlx import BITS
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError

Change = Callable[[dict[str, Any]], Any]


def with_config(folder: Path, change: Change) -> Path:
    target = shutil.copytree(TARGET, folder / "model")
    document = json.loads((target / "config.json").read_text())
    change(document)
    (target / "config.json").write_text(json.dumps(document))
    return target


def test_a_model_that_mlx_has_quantized_answers_as_its_own_floats_do() -> None:
    with np.load(TARGET / EXPECTED) as expected:
        assert distance(forward(load(TARGET), expected["images"]), expected["answer"]) < LIMIT


def test_that_model_has_matrices_of_every_number_of_bits() -> None:
    assert {each["bits"] for each in (USUAL, *OWN.values())} == set(BITS)


def test_the_same_is_read_of_shards_and_of_the_older_key(tmp_path: Path) -> None:
    def older(document: dict[str, Any]) -> None:
        document["quantization_config"] = document.pop("quantization")

    folder = with_config(tmp_path, older)
    with (folder / "model.safetensors").open("rb") as stream:
        names = list(SafeTensors(stream, folder / "model.safetensors").names())
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(names, "model-00001-of-00001.safetensors"), "metadata": {}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for name, weight in load(TARGET).weights.items():
        # Without the word of the file itself, kernels are taken for MLX's by their shape.
        np.testing.assert_array_equal(load(folder).weights[name], weight)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda it: it.pop("quantization"), "no config.json says bits and group_size"),
        (lambda it: it["quantization"].pop("bits"), "no config.json says bits and group_size"),
        (lambda it: it["quantization"].update(bits=8), "is not packed as its config.json says, in 8 bits"),
        (lambda it: it["quantization"].update(bits=7), "is not packed as its config.json says, in 7 bits"),
        (lambda it: it["quantization"].update(bits="4"), "is not packed as its config.json says, in 4 bits"),
        (lambda it: it["quantization"].update(group_size=64), "and groups of 64"),
        (lambda it: it["quantization"].update(group_size=0), "and groups of 0"),
        (lambda it: it["quantization"].update(mode="mxfp4"), "mxfp4; expected the affine kind"),
        (
            lambda it: it["quantization"].update({"visual_projection": {"bits": 4}}),
            r"visual_projection\.weight .* in 4",
        ),
    ],
)
def test_what_is_packed_in_another_way_is_refused(change: Change, said: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=said) as caught:
        load(with_config(tmp_path, change))
    assert caught.value.fix
