"""The ratios of the loading benchmark, and what its stored runs say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.loading import PAIRS, RESULTS, main, ratio, write
from vit_deploy import checkpoints
from vit_deploy.config import ViTConfig

LOAD, RESIZE = PAIRS


def test_a_ratio_is_that_of_the_medians() -> None:
    runs = {"resize": [1.0, 9.0, 2.0], "convert": [4.0, 1.0, 5.0]}
    result = {"runs": {way: [{"wall_s": each} for each in seconds] for way, seconds in runs.items()}}
    assert ratio(result, RESIZE, "wall_s") == 2.0 / 4.0


def test_the_stored_runs_are_within_the_limits() -> None:
    result = json.loads((RESULTS / "base.json").read_text(encoding="utf-8"))
    assert ratio(result, LOAD, "wall_s") <= 1.5
    for seconds in ("wall_s", "user_s"):
        assert ratio(result, RESIZE, seconds) <= 1.1


def test_the_file_that_is_measured_is_one_of_timms_layout(tmp_path: Path) -> None:
    config = ViTConfig.from_scale("pico", image_size=(32, 32))
    loaded = checkpoints.load(write(config, tmp_path / "a.safetensors"))
    assert loaded.config == config.replace(pooling="cls")
    assert loaded.provenance[0].facts["family"] == "timm"


@pytest.mark.slow
def test_a_miniature_run_stores_every_way(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    main(["--scale", "pico", "--rounds", "1", "--results", str(tmp_path)])
    result = json.loads((tmp_path / "pico.json").read_text(encoding="utf-8"))
    assert {way: len(runs) for way, runs in result["runs"].items()} == {
        way: 1 for pair in PAIRS.values() for way in pair
    }
    assert RESIZE in capfd.readouterr().out
