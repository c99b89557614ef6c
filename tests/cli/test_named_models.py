"""The name of a model and an adapter for it are given on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.huggingface_folders import LIMIT, deviation
from tests.checkpoints.test_timm_architectures import weights_like
from tests.peers.make_adapter_golden import BASES, TARGET
from vit_deploy import checkpoints
from vit_deploy.core.reference import forward


def test_what_bare_weights_were_taken_for_is_said_and_a_name_decides_it(tmp_path: Path, run: Any) -> None:
    file = weights_like("vit_base_patch16_gap_224", tmp_path)
    said = run("inspect", file, "--json")
    assert said.code == 0, said.err
    assert "assumed: architecture vit_base_patch16_siglip_gap_224, for weights do not tell it from" in said.err
    entry = next(sentence for sentence in said.document["assumed"] if sentence["field"] == "architecture")
    assert entry["value"] == "vit_base_patch16_siglip_gap_224"
    assert "vit_base_patch16_gap_224 (16 heads" in entry["why"]
    named = run("inspect", file, "--architecture", "vit_base_patch16_gap_224", "--json")
    assert named.code == 0, named.err
    assert {assumption["field"] for assumption in named.document["assumed"]} <= {
        *("image_size", "mean", "std"),
        *("resize", "crop", "interpolation"),
    }
    refused = run("inspect", file, "--architecture", "vit_dlittle_patch16_reg1_gap_256")
    assert (refused.code, "it has differential attention" in refused.err) == (2, True)


def test_an_adapter_is_merged_into_what_is_written(tmp_path: Path, run: Any) -> None:
    output = tmp_path / "merged.safetensors"
    said = run("convert", BASES / "huggingface" / "vit", "--adapter", TARGET / "vit", "-o", output)
    assert said.code == 0, said.err
    assert "merged: the adapter vit of " in said.err
    with np.load(TARGET / "vit" / "expected.npz") as expected:
        found = forward(checkpoints.load(output), expected["images"])
        assert deviation(found, expected["answer"]) < LIMIT
    wrong = run("convert", BASES / "huggingface" / "vit", "--adapter", tmp_path, "-o", output, "--force")
    assert (wrong.code, "holds no adapter" in wrong.err) == (2, True)


@pytest.mark.parametrize("option", ["--architecture", "--adapter"])
def test_a_scale_takes_neither(option: str, tmp_path: Path, run: Any) -> None:
    said = run("export", "pico", option, "vit_base_patch16_224", "-o", tmp_path / "out")
    assert said.code == 2
    assert f"{option} says which model a file of weights holds, and pico is a scale" in said.err
