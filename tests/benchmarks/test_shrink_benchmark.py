"""The benchmark of shrinking: its targets and tables, of results that are made up here."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks import shrink_masks
from benchmarks.shrink import WAYS, kind_of
from benchmarks.shrink_tables import AIMED_AT, render, targets
from vit_deploy.compression import CompressOptions
from vit_deploy.core.config import ViTConfig


def result(model: str, way: str, lost: float, speed: float, nothing: float) -> dict[str, Any]:
    files = [
        {"state": state, "name": name, "top1": top1, "bytes": size, "latency_ms": latency}
        for name in ("onnx-fp32", "tflite-int8")
        for state, top1, size, latency in (("before", 0.97, 200, 3.0), ("after", 0.97 - lost, 100, 3.0 / speed))
    ]
    return {
        "model": model,
        "way": way,
        "files": files,
        "from_nothing": nothing,
        "multiply_adds": [300, 200],
        "started": "",
        "host": {"cpu": "a processor", "cores": 2, "python": "3.11"},
        "versions": {},
    }


def found() -> dict[str, dict[str, Any]]:
    results = [
        result("digits-0", "2x", 0.0, 1.4, 0.95),
        result("digits-1", "2x", 0.004, 1.6, 0.98),
        result("digits-2", "2x", 0.002, 1.7, 0.95),
    ]
    return {f"{each['model']}-{each['way']}": each for each in results}


def test_targets_are_the_mean_lost_the_median_speed_and_the_worst_over_training_from_nothing():
    said = {target.text: target for target in targets(found())}
    assert said["digits 2x, onnx-fp32: times as fast, median"].measured == 1.6
    assert said["digits 2x, tflite-int8: points of top-1 lost, mean of the seeds"].met
    worst = said["digits: points of top-1 above the same small model trained from nothing for as long, worst"]
    assert round(worst.measured, 6) == -1.4 and not worst.met
    assert said["photographs 1.5x, onnx-fp32: times as fast, median"].met is None


def test_both_ways_of_every_kind_are_options_that_there_are():
    for ways in WAYS.values():
        assert list(ways) == list(AIMED_AT)
        for options in ways.values():
            assert CompressOptions("shrink", **options).method == "shrink"


def test_numbers_of_each_block_take_no_more_multiply_adds_than_the_same_for_all():
    config = ViTConfig(image_size=(8, 8), patch_size=(2, 2), embed_dim=64, num_heads=4, num_layers=3, mlp_dim=256)
    rng = np.random.default_rng(0)
    importance = rng.random((3, 4)), rng.random((3, 256)) * np.array([[1], [0.01], [1]])
    heads, units = shrink_masks._numbers(*importance, config)
    tokens, dim, width = config.sequence_length, config.embed_dim, config.head_dim
    costs = [(4 * dim + 2 * tokens) * tokens * width, 2 * tokens * dim]
    most = 3 * (shrink_masks.HEADS * costs[0] + shrink_masks.UNITS * costs[1])
    assert most - costs[0] < heads.sum() * costs[0] + units.sum() * costs[1] <= most
    assert units[1] == shrink_masks.FEWEST and heads.min() >= 1


def test_the_kind_of_a_model_is_in_its_name(tmp_path):
    assert kind_of(tmp_path / "photos-0.keras") == "photos"
    assert "digits 2x tflite-int8" in render(found())
