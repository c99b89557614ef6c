"""Rounds that are kept: one is taken up with its own weights or not at all."""

from __future__ import annotations

import numpy as np
import pytest

from vit_deploy.compression import round_state
from vit_deploy.compression.round_state import Round, load_round, load_sizes, save_round, save_sizes
from vit_deploy.compression.sizes import Sizes
from vit_deploy.core.checkpoint import Checkpoint


def test_a_round_is_taken_up_by_its_own_job(small, tmp_path):
    for number in range(2):
        save_round(Round(number, small, (0,), [{"epoch": number + 1}]), tmp_path, "one")
    found = load_round(tmp_path, "one")
    assert found is not None and (found.number, found.blocks, found.history) == (1, (0,), [{"epoch": 2}])
    assert found.checkpoint.digest() == small.digest()
    assert load_round(tmp_path, "other") is None


def test_sizes_are_taken_up_by_their_own_job(tmp_path):
    assert load_sizes(tmp_path, "one") is None
    save_sizes(Sizes(2, 1, 8), tmp_path, "one")
    assert load_sizes(tmp_path, "one") == Sizes(2, 1, 8) and load_sizes(tmp_path, "other") is None
    assert load_round(tmp_path, "one") is None


def test_a_job_that_is_killed_while_it_replaces_anothers_round_does_not_leave_that_with_its_weights(
    small, tmp_path, monkeypatch
):
    for number in range(2):
        save_round(Round(number, small, (0,), []), tmp_path, "one")
    save = round_state.save

    def killed(*arguments, **options):
        save(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(round_state, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        save_round(Round(1, Checkpoint.random(small.config, seed=9), (0,), []), tmp_path, "other")
    found = load_round(tmp_path, "one")
    assert found is not None and found.number == 0
    np.testing.assert_array_equal(found.checkpoint.weights["head.kernel"], small.weights["head.kernel"])
