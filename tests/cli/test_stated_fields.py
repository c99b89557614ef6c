"""What a checkpoint does not say is stated on the command line, and what is assumed is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints import google_vit
from vit_deploy import checkpoints
from vit_deploy.checkpoints.containers.safetensors_file import write_safetensors


@pytest.fixture
def nameless(tmp_path: Path, make_checkpoint: Any) -> Path:
    """Canonical weights without any config."""
    path = tmp_path / "nameless.safetensors"
    write_safetensors(path, make_checkpoint().weights, {})
    return path


def test_a_config_file_says_it_all_and_options_win_over_it(
    tmp_path: Path, nameless: Path, make_checkpoint: Any, run: Any
) -> None:
    config = make_checkpoint().config
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    output = tmp_path / "out.safetensors"
    said = run(
        *("convert", nameless, "-o", output, "--config", tmp_path / "config.json"),
        *("--num-heads", 2, "--epsilon", 1e-5, "--activation", "quick_gelu"),
    )
    assert said.code == 0, said.err
    found = checkpoints.load(output)
    assert found.config == config.replace(num_heads=2, epsilon=1e-5, activation="quick_gelu")
    np.testing.assert_array_equal(found.weights["head.kernel"], make_checkpoint().weights["head.kernel"])


def test_a_field_that_no_config_has_is_named(tmp_path: Path, nameless: Path, run: Any) -> None:
    for text in ("{", "[]"):
        (tmp_path / "config.json").write_text(text)
        said = run("convert", nameless, "-o", tmp_path / "out.keras", "--config", tmp_path / "config.json")
        assert (said.code, f"fix: correct {tmp_path / 'config.json'}\n" in said.err) == (2, True)
    (tmp_path / "config.json").write_text('{"heads": 3}')
    said = run("convert", nameless, "-o", tmp_path / "out.keras", "--config", tmp_path / "config.json")
    assert said.code == 2
    assert "has fields that no config has: heads" in said.err
    assert not (tmp_path / "out.keras").exists()


def test_the_preprocessing_that_a_file_does_not_say_is_stated_in_the_config(
    tmp_path: Path, make_checkpoint: Any, run: Any
) -> None:
    source = tmp_path / "weights.npz"
    np.savez(source, **google_vit.draw(google_vit.VARIANTS["vision_transformer"]))
    stated = {"image_size": google_vit.IMAGE_SIZE, "preprocess": {"mean": [0.1, 0.2, 0.3], "interpolation": "bicubic"}}
    (tmp_path / "config.json").write_text(json.dumps(stated))
    output = tmp_path / "a name with spaces ü.safetensors"
    said = run("convert", source, "-o", output, "--config", tmp_path / "config.json")
    assert said.code == 0, said.err
    assert "std 0.5" in said.err
    assert "mean 0.5" not in said.err
    found = checkpoints.load(output).preprocess
    assert (found.mean, found.std, found.interpolation) == ((0.1, 0.2, 0.3), (0.5, 0.5, 0.5), "bicubic")
    (tmp_path / "config.json").write_text(json.dumps(stated | {"preprocess": {"means": 1}}))
    said = run("convert", source, "-o", output, "--config", tmp_path / "config.json", "--force")
    assert (said.code, "unknown preprocessing fields: means" in said.err) == (2, True)


def test_more_patches_than_any_machine_compares_are_refused(tmp_path: Path, run: Any) -> None:
    said = run("build", "pico", "-o", tmp_path / "a.keras", "--image-size", "99999x99999", "--patch-size", 1)
    assert said.code == 2
    assert "9999800001 patches; expected at most 1048576" in said.err
