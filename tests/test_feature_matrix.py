"""Every family of options through what no test of its own has: inspect, config files, resize."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.exporters.variants import trained
from tests.features import FAMILIES
from vit_deploy import api, checkpoints
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.reference import forward
from vit_deploy.core.resize import resize
from vit_deploy.errors import ConfigError

NEW_SIZE = (40, 48)


@pytest.mark.parametrize("name", FAMILIES)
def test_inspect_tells_the_options_of_a_family(name: str, tmp_path: Path) -> None:
    checkpoint = trained(**FAMILIES[name])
    checkpoints.save(checkpoint, tmp_path / "model.safetensors")
    outcome = api.inspect(tmp_path / "model.safetensors")
    (record,) = outcome.records
    assert record["config"] == checkpoint.config.to_dict()
    assert record["parameters"] == checkpoint.num_parameters


@pytest.mark.parametrize("name", FAMILIES)
def test_a_config_file_may_say_every_option_of_a_family(name: str, tmp_path: Path) -> None:
    config = trained(**FAMILIES[name]).config
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config.to_dict()))
    assert ViTConfig.from_dict(checkpoints.read_config(path)) == config


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_is_resized_and_computes_at_the_new_size(name: str) -> None:
    checkpoint = trained(**FAMILIES[name])
    resized = resize(checkpoint, NEW_SIZE)
    images = np.random.default_rng(1).standard_normal((2, *NEW_SIZE, 3)).astype(np.float32)
    answer = forward(resized, images)
    assert np.isfinite(answer).all() and np.ptp(answer, axis=0).max() > 0
    assert resized.config.grid == (5, 12)
    assert resize(resized, checkpoint.config.image_size).config == checkpoint.config


@pytest.mark.parametrize("kind", ["scores", "shared_scores"])
def test_scores_of_distances_hold_for_one_size_and_are_refused_at_another(kind: str) -> None:
    with pytest.raises(ConfigError) as caught:
        resize(trained(relative_positions=kind), NEW_SIZE)
    assert caught.value.fix
