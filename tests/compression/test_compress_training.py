"""Trainings: what was asked for is reached, the same seed gives the same weights, and a killed one goes on exactly."""

from __future__ import annotations

import dataclasses
import importlib.util

import numpy as np
import pytest

# Not imported to find out: it sets a switch of TensorFlow for all tests of this process.
if importlib.util.find_spec("tensorflow_model_optimization") is None or importlib.util.find_spec("tf_keras") is None:
    pytest.skip("needs tensorflow-model-optimization and tf_keras", allow_module_level=True)

from vit_deploy.compression import CompressOptions
from vit_deploy.compression.data import open_images, split
from vit_deploy.compression.job import as_artifact
from vit_deploy.compression.stage import ready
from vit_deploy.compression.training import Trained, train
from vit_deploy.core.checkpoint import Checkpoint

FAST = {"epochs": 3, "batch": 16, "learning_rate": 2e-3}


def trained(checkpoint, data, state, progress=lambda doing: None, **options) -> Trained:
    chosen = CompressOptions(**{**FAST, **options})
    state.mkdir(exist_ok=True)
    images, held_out = split(open_images(data, as_artifact(checkpoint, state)), 0.2, chosen.seed)
    return train(checkpoint, chosen, images, held_out, state=state, fingerprint="job", progress=progress)


@pytest.mark.slow
def test_pruned_kernels_have_the_zeros_that_were_asked_for(small, striped, tmp_path):
    said: list[str] = []
    result = trained(ready(small), striped, tmp_path / "state", said.append, method="prune", keep=("head",))
    for name, kernel in result.weights.items():
        if name.endswith(".kernel"):
            zeros = np.mean(kernel == 0)
            assert zeros == (0 if name == "head.kernel" else pytest.approx(0.6, abs=0.02)), name
    assert [(epoch["epoch"], epoch["settled"]) for epoch in result.history] == [(1, False), (2, True), (3, True)]
    assert result.best_epoch > 1
    assert said[0] == f"epoch 1 of 3, step 1 of 9 [{' ' * 20}]"
    assert said[5].startswith("epoch 2 of 3, step 6 of 9 [===========         ] ")
    assert "of the held-out images right" in said[5] and said[5].endswith(" s left")


@pytest.mark.slow
def test_two_of_four_inputs_are_zero(small, striped, tmp_path):
    result = trained(ready(small), striped, tmp_path / "state", method="prune", pattern="2:4")
    kernel = result.weights["block_0.ffn.up.kernel"]
    groups = (kernel.reshape(-1, 4, kernel.shape[1]) == 0).sum(axis=1)
    assert (groups == 2).all()


@pytest.mark.slow
@pytest.mark.parametrize("centroids", ["kmeans++", "linear", "density"])
def test_clustered_kernels_have_as_many_values_as_were_asked_for(small, striped, tmp_path, centroids):
    result = trained(ready(small), striped, tmp_path / "state", method="cluster", clusters=5, centroids=centroids)
    counts = {name: len(np.unique(tensor)) for name, tensor in result.weights.items() if name.endswith(".kernel")}
    assert max(counts.values()) <= 5 and min(counts.values()) > 1


@pytest.mark.slow
def test_clustering_keeps_the_zeros_of_a_pruned_model(small, striped, tmp_path):
    start = ready(small)
    weights = {name: np.array(tensor) for name, tensor in start.weights.items()}
    kernel = weights["block_0.ffn.up.kernel"]
    kernel[np.abs(kernel) < np.quantile(np.abs(kernel), 0.6)] = 0
    pruned = dataclasses.replace(start, weights=weights)
    result = trained(pruned, striped, tmp_path / "state", method="cluster", clusters=5)
    assert (result.weights["block_0.ffn.up.kernel"][kernel == 0] == 0).all()


@pytest.mark.slow
def test_ranges_of_every_layer_are_learned(small, striped, tmp_path):
    start = ready(small)
    result = trained(start, striped, tmp_path / "state", method="qat", keep=("head",))
    layers = {name.removesuffix(".kernel") for name in start.weights if name.endswith(".kernel")} - {"head"}
    assert set(result.ranges) == {f"{layer}.{side}" for layer in layers for side in ("input", "output")}
    assert all(low <= 0 <= high and low < high < 100 for low, high in result.ranges.values())
    for name, (low, high) in result.ranges.items():  # as those of keys and values are in the files
        assert (low == pytest.approx(-high, rel=1e-5)) == name.endswith((".key.output", ".value.output")), name
    checkpoint = Checkpoint(start.config, result.weights, start.preprocess, ranges=result.ranges)
    assert checkpoint.ranges["patch_embed.input"][1] == pytest.approx(1, abs=0.2)  # pixels go from -1 to 1


@pytest.mark.slow
@pytest.mark.parametrize("method", ["prune", "cluster", "qat"])
def test_a_training_that_was_killed_goes_on_as_if_it_were_not(small, striped, tmp_path, method):
    options = {"method": method, "augment": ("crop", "flip", "mixup"), "distill": 0.5}
    whole = trained(ready(small), striped, tmp_path / "whole", **options)

    def kill(doing: str) -> None:
        if doing.startswith("epoch 3 of 3, step 8"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(ready(small), striped, tmp_path / "killed", kill, **options)
    said: list[str] = []
    resumed = trained(ready(small), striped, tmp_path / "killed", said.append, **options)
    assert said[0].startswith("epoch 3 of 3, step 7")
    assert resumed.history == whole.history and resumed.ranges == whole.ranges
    for name, tensor in whole.weights.items():
        np.testing.assert_array_equal(resumed.weights[name], tensor, err_msg=name)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_others(small, striped, tmp_path):
    options = {"method": "qat", "epochs": 1, "augment": ("crop", "randaugment"), "keep": ("head",)}
    one, same, other = (
        trained(ready(small), striped, tmp_path / f"{number}", **options, seed=seed)
        for number, seed in enumerate((1, 1, 2))
    )
    assert one.history == same.history and one.ranges == same.ranges
    for name, tensor in one.weights.items():
        np.testing.assert_array_equal(same.weights[name], tensor, err_msg=name)
    assert (one.weights["head.kernel"] != other.weights["head.kernel"]).any()


@pytest.mark.slow
def test_a_model_is_judged_in_the_ranges_of_its_weights_from_the_start(small, striped, tmp_path):
    result = trained(ready(small), striped, tmp_path / "state", method="qat", learning_rate=1e-7, epochs=1, distill=1)
    assert [epoch["epoch"] for epoch in result.history] == [0, 1] and result.best_epoch == 1
    before, after = (epoch["held_out_loss"] for epoch in result.history)
    assert after == pytest.approx(before, rel=1e-4)


@pytest.mark.slow
def test_training_ends_when_nothing_is_gained(small, striped, tmp_path):
    result = trained(
        ready(small), striped, tmp_path / "state", method="cluster", epochs=12, patience=1, learning_rate=1e-7
    )
    assert len(result.history) < 12
