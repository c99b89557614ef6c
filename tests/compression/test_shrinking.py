"""Models that are shrunk by training: what stays, the same bits after a kill, and what can follow."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

pytest.importorskip("tf_keras")

from vit_deploy import checkpoints, cli
from vit_deploy.compression import CompressOptions, shrinking
from vit_deploy.compression.importance import importance
from vit_deploy.compression.job import Job
from vit_deploy.compression.narrowing import columns_of
from vit_deploy.compression.round_state import has_begun
from vit_deploy.compression.shrinking import pairs, train_smaller
from vit_deploy.compression.training import distance
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.reference import forward


@pytest.fixture(scope="module")
def two_blocks(small) -> Checkpoint:
    return Checkpoint.random(small.config.replace(num_layers=2), seed=3)


def test_what_has_no_part_in_the_answer_has_no_importance(two_blocks):
    weights = {name: weight.copy() for name, weight in two_blocks.weights.items()}
    weights["block_0.attention.out.kernel"][columns_of([1], 8)] = 0
    weights["block_1.ffn.down.kernel"][[3, 7]] = 0
    for last in ("attention.out", "ffn.down"):
        weights[f"block_0.{last}.bias"][:] = 0.1
    checkpoint = dataclasses.replace(two_blocks, weights=weights)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((6, 8, 12, 1)).astype(np.float32)
    found = importance(checkpoint, [(images, np.arange(6) % 3)], 2.0)
    assert found.heads[0, 1] == 0 and (found.heads[[0, 1], 0] > 0).all()
    assert np.flatnonzero(found.units[1] == 0).tolist() == [3, 7]
    assert (found.blocks > 0).all()


def test_a_units_importance_is_the_first_order_change_of_the_loss(two_blocks):
    rng = np.random.default_rng(0)
    images, label, step = rng.standard_normal((1, 8, 12, 1)), 2, 1e-2
    found = importance(two_blocks, [(images.astype(np.float32), np.array([label]))], 2.0).units[0, 5]

    def loss(scale: float) -> float:
        kernel = two_blocks.weights["block_0.ffn.down.kernel"].copy()
        kernel[5] *= np.float32(scale)
        weights = {**two_blocks.weights, "block_0.ffn.down.kernel": kernel}
        logits = forward(dataclasses.replace(two_blocks, weights=weights), images)
        return float(np.log(np.exp(logits / 2).sum()) - logits[0, label] / 2)

    slope = (loss(1 + step) - loss(1 - step)) / (2 * step)
    assert found == pytest.approx(abs(slope), rel=1e-2)


def test_a_block_makes_up_for_those_behind_it_that_are_gone():
    assert pairs((0, 2, 3), 6) == [(0, 1), (1, 2), (2, 5)]


def test_tokens_are_compared_by_what_varies_in_them():
    right = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)
    centred = right - right.mean(axis=(0, 1))
    assert float(distance([right], [right])) == 0
    assert float(distance([right[:, :1] + 1], [right])) == pytest.approx(
        24 / float(np.square(right[:, :1] - right[:, :1].mean(axis=(0, 1))).sum()), rel=1e-5
    )
    assert float(distance([right + 1], [right])) == pytest.approx(120 / float(np.square(centred).sum()), rel=1e-5)


@pytest.fixture
def shrunk(two_blocks, striped, tmp_path):
    """Shrink in a folder of that name, and the folder."""

    def call(name: str, progress=lambda doing: None, **changes):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        options = CompressOptions(
            "shrink", **{"keep_heads": 1, "keep_mlp": 8, "epochs": 10, "batch": 16, "patience": 0, **changes}
        )
        job = Job.write(two_blocks, options, striped, None, folder)
        images, held_out = job.images()
        return folder, job, train_smaller(
            two_blocks,
            options,
            images,
            held_out,
            state=folder,
            fingerprint=job.fingerprint(),
            progress=progress,
        )  # fmt: skip

    return call


@pytest.mark.slow
def test_a_shrinking_that_was_killed_goes_on_as_if_it_were_not(shrunk, two_blocks, striped, tmp_path):
    _, _, whole = shrunk("whole")
    assert (whole.config.num_layers, whole.config.num_heads, whole.config.mlp_dim) == (2, 1, 8)
    assert [record["epoch"] for record in whole.history] == list(range(1, 11))
    assert [record["settled"] for record in whole.history] == [False] * 3 + [True] * 7
    assert whole.best_epoch > 3

    def killed(doing: str) -> None:
        if doing.startswith("round 4 of 4, epoch 3"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shrunk("killed", killed)
    folder, job, again = shrunk("killed")
    assert has_begun(folder, job.fingerprint()) and not has_begun(folder, "another job")
    for weight, values in whole.weights.items():
        np.testing.assert_array_equal(again.weights[weight], values)
    assert list(again.history) == list(whole.history)


@pytest.mark.slow
def test_a_mix_as_fast_as_asked_for_is_found_and_learns(shrunk):
    changes = {"keep_heads": None, "keep_mlp": None, "schedule": "constant", "epochs": 6, "distill": 0.0}
    _, _, found = shrunk("mix", speedup=1.5, **changes)
    assert found.config.num_layers < 2 or found.config.num_heads < 2 or found.config.mlp_dim < 24
    assert found.history[-1]["held_out_loss"] < found.history[0]["held_out_loss"]


def test_sizes_for_a_speedup_are_found_once_and_importance_is_measured_once_for_them(shrunk, monkeypatch):
    measured, trained, said = [], [], []

    def counted(checkpoint, *arguments):
        measured.append(checkpoint.digest())
        return importance(checkpoint, *arguments)

    def killed(checkpoint, *arguments, **named):
        trained.append(checkpoint.digest())
        raise KeyboardInterrupt

    monkeypatch.setattr(shrinking, "importance", counted)
    monkeypatch.setattr(shrinking, "train", killed)
    changes = {"keep_heads": None, "keep_mlp": None, "speedup": 1.5}
    with pytest.raises(KeyboardInterrupt):
        shrunk("mix", said.append, **changes)
    assert len(measured) == 1
    assert [doing for doing in said if "importance" in doing] == [
        "reading the images to measure importance on",
        "measuring the importance of heads, hidden units and blocks",
    ]
    said.clear()
    with pytest.raises(KeyboardInterrupt):
        shrunk("mix", said.append, **changes)
    assert said == [
        "reading the images to measure importance on",
        "round 1 of 4, measuring the importance of heads, hidden units and blocks",
    ]
    assert measured[0] == measured[1] and trained[0] == trained[1]


@pytest.mark.slow
def test_a_shrunk_model_is_trained_for_int8_and_exported_so(small, striped, tmp_path, capfd):
    start, smaller, integer = (tmp_path / f"{name}.safetensors" for name in ("start", "smaller", "integer"))
    checkpoints.save(Checkpoint.random(small.config.replace(num_layers=2), seed=3), start)
    training = ["--data", str(striped), "--batch", "16", "--no-speed", "--json"]
    shrink = ["--method", "shrink", "--keep-heads", "1", "--keep-mlp", "0.4", "--keep-layers", "1", "--epochs", "6"]
    assert cli.run(["compress", str(start), *shrink, *training, "-o", str(smaller)]) == 0
    (first,) = json.loads(capfd.readouterr().out)["results"]
    assert first["multiply_adds"]["after"] < first["multiply_adds"]["before"]
    names = {"onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8"}
    assert {(row["state"], row["name"]) for row in first["files"]} == {
        (state, name) for state in ("before", "after") for name in names
    }
    config = checkpoints.load(smaller).config
    assert (config.num_layers, config.num_heads, config.head_width, config.mlp_dim) == (1, 1, 8, 8)
    assert cli.run(["compress", str(smaller), "--method", "qat", "--epochs", "1", *training, "-o", str(integer)]) == 0
    (second,) = json.loads(capfd.readouterr().out)["results"]
    assert {"tflite-int8-static", "tflite-int8-full"} <= {row["name"] for row in second["files"]}
    steps = [step.action for step in checkpoints.load(integer).provenance]
    assert steps[-2:] == ["compress", "compress"]


def test_bad_sizes_are_told_before_any_training(small, striped, tmp_path, capfd):
    path = tmp_path / "start.safetensors"
    checkpoints.save(small, path)
    command = ["compress", str(path), "--method", "shrink", "--data", str(striped), "-o", str(tmp_path / "out.keras")]
    for options, said in (
        ([], "shrink needs a speedup, or what stays"),
        (["--speedup", "2", "--keep-heads", "1"], "expected one or the other"),
        (["--keep-heads", "3"], "--keep-heads is 3, and the model has 2"),
        (["--keep-heads", "0"], "keep_heads is 0; expected a number from 1, or a fraction up to 1.0"),
        (["--keep-mlp", "1.5"], "--keep-mlp"),
    ):
        assert cli.run([*command, *options]) == 2
        assert said in capfd.readouterr().err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["start.safetensors"]
