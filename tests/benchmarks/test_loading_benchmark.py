"""The ratios of the loading benchmark, and the file that it measures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.loading import PAIRS, write
from benchmarks.loading_tables import ratio, render, targets
from benchmarks.records import RESULTS, read
from vit_deploy import checkpoints
from vit_deploy.core.config import ViTConfig

LOAD, RESIZE = PAIRS
SECONDS = {"load": [3.0], "build": [2.0], "resize": [1.0, 9.0, 2.0], "convert": [4.0, 1.0, 5.0]}


@pytest.fixture
def result():
    runs = {
        way: [{"wall_s": second, "user_s": second / 2, "system_s": 0.25} for second in seconds]
        for way, seconds in SECONDS.items()
    }
    host = {"cpu": "a processor", "cores": 2, "python": "3.12", "load_1m": 0.5}
    return {"started": "today", "host": host, "versions": {"numpy": "2"}, "bytes": 346_000_000, "runs": runs}


def test_a_ratio_is_that_of_the_medians(result) -> None:
    assert ratio(result, RESIZE, "wall_s") == 2.0 / 4.0
    assert [target.measured for target in targets({"base": result})] == [1.5, 0.5, 0.5]
    assert [target.met for target in targets({"base": result})] == [True, True, True]


def test_the_table_has_a_line_a_way(result) -> None:
    text = render({"base": result})
    assert "### Loading and resizing base, 346.0 MB" in text and "load average 0.5 at the start" in text
    assert "| `resize --image-size 384x512`, a whole process | 2.00 | 1.00 to 9.00 | 1.00 | 0.25 |" in text


def test_the_file_that_is_measured_is_one_of_timms_layout(tmp_path: Path) -> None:
    config = ViTConfig.from_scale("pico", image_size=(32, 32))
    loaded = checkpoints.load(write(config, tmp_path / "a.safetensors"))
    assert loaded.config == config.replace(pooling="cls")
    assert loaded.provenance[0].facts["family"] == "timm"


def test_the_stored_runs_are_within_the_limits() -> None:
    assert all(target.met for target in targets(read(RESULTS / "loading")))
