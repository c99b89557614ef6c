from __future__ import annotations

import dataclasses
import hashlib

import numpy as np
import pytest

from vit_deploy.core.checkpoint import Checkpoint, weights_digests
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.provenance import Step
from vit_deploy.core.weights import weight_specs
from vit_deploy.errors import CheckpointError


def test_weights_given_in_any_order_are_held_in_the_canonical_one(checkpoint: Checkpoint) -> None:
    backwards = dict(reversed(list(checkpoint.weights.items())))
    again = dataclasses.replace(checkpoint, weights=backwards)
    assert list(again.weights) == list(weight_specs(checkpoint.config))


def test_the_weights_cannot_be_exchanged_afterwards(checkpoint: Checkpoint) -> None:
    with pytest.raises(TypeError):
        checkpoint.weights["norm.scale"] = np.zeros(12, np.float32)
    with pytest.raises(dataclasses.FrozenInstanceError):
        checkpoint.labels = ("a",)


def test_everything_that_is_wrong_with_the_weights_is_in_one_message(checkpoint: Checkpoint) -> None:
    weights = dict(checkpoint.weights)
    del weights["block_1.norm2.bias"]
    weights["block_9.norm1.scale"] = np.ones(12, np.float32)
    weights["pos_embed.table"] = weights["pos_embed.table"].T
    weights["norm.scale"] = weights["norm.scale"].astype(np.float64)
    weights["norm.bias"] = np.array([np.nan, np.inf] + [0.0] * 10, np.float32)
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(checkpoint.config, weights, Preprocess.for_channels(4), ("cat", "dog"))
    message = str(caught.value)
    for problem in (
        "the weights do not fit the config, 7 problems",
        "missing block_1.norm2.bias (12,)",
        "unexpected block_9.norm1.scale (12,)",
        "pos_embed.table has shape (12, 25), expected (25, 12)",
        "norm.scale is float64, expected float32",
        "norm.bias has 2 values that are NaN or infinite",
        "2 labels for 5 classes",
        "preprocessing of 4 channels for 3",
        "fix: give the config",
    ):
        assert problem in message


@pytest.mark.parametrize(("bad", "said"), [([np.nan], "1 value that is"), ([np.nan, np.inf], "2 values that are")])
def test_weights_that_are_no_numbers_are_not_blamed_on_the_config(
    bad: list[float], said: str, checkpoint: Checkpoint
) -> None:
    bias = np.array([*bad, *[0.0] * (12 - len(bad))], np.float32)
    with pytest.raises(CheckpointError) as caught:
        dataclasses.replace(checkpoint, weights={**checkpoint.weights, "norm.bias": bias})
    assert str(caught.value) == (
        f"the weights hold NaN or infinity, 1 problem:\n  - norm.bias has {said} NaN or infinite\n"
        "  fix: the training diverged or the file is damaged: take an earlier checkpoint, or get the file again"
    )


def test_a_long_list_of_problems_is_cut_and_counted(config: ViTConfig) -> None:
    with pytest.raises(CheckpointError) as caught:
        Checkpoint(config, {}, Preprocess())
    count = len(weight_specs(config))
    assert f"{count} problems" in caught.value.message
    assert caught.value.message.endswith(f"and {count - 20} more")


def test_labels_of_a_model_without_a_head_are_not_counted(config: ViTConfig) -> None:
    features = Checkpoint.random(config.replace(include_top=False), 0)
    assert dataclasses.replace(features, labels=("a", "b")).labels == ("a", "b")


def test_a_random_checkpoint_says_that_it_is_random(checkpoint: Checkpoint) -> None:
    assert [step.to_dict() for step in checkpoint.provenance] == [{"action": "random", "seed": 7}]


def test_a_step_is_added_to_a_copy(checkpoint: Checkpoint) -> None:
    resized = checkpoint.with_step("resize", image_size=[32, 48])
    assert [step.action for step in resized.provenance] == ["random", "resize"]
    assert len(checkpoint.provenance) == 1
    assert Step.from_dict(resized.provenance[1].to_dict()) == resized.provenance[1]


def test_sizes_are_counted_from_the_arrays(checkpoint: Checkpoint) -> None:
    assert checkpoint.num_parameters == sum(w.size for w in checkpoint.weights.values())
    assert checkpoint.num_bytes == 4 * checkpoint.num_parameters


def test_the_digest_is_the_documented_sum(config: ViTConfig) -> None:
    # Scalars among them: the alpha of dynamic tanh has the empty shape.
    checkpoint = Checkpoint.random(config.replace(normalization_type="dynamic_tanh"), 0)
    sha = hashlib.sha256()
    for name, weight in sorted(checkpoint.weights.items()):
        shape = ",".join(str(side) for side in weight.shape)
        sha.update(f"{name}\0float32\0{shape}\0".encode() + weight.astype("<f4").tobytes())
    assert checkpoint.digest() == sha.hexdigest()


def test_the_digest_depends_on_every_value_and_not_on_the_memory_layout(checkpoint: Checkpoint) -> None:
    weights = dict(checkpoint.weights)
    weights["head.kernel"] = np.asfortranarray(weights["head.kernel"])
    assert dataclasses.replace(checkpoint, weights=weights).digest() == checkpoint.digest()
    weights["head.bias"] = np.array([0, 0, 0, 0, 1e-30], np.float32)
    assert dataclasses.replace(checkpoint, weights=weights).digest() != checkpoint.digest()


def test_a_checkpoint_can_be_compared_without_comparing_arrays(checkpoint: Checkpoint) -> None:
    assert [checkpoint].index(checkpoint) == 0
    assert checkpoint != dataclasses.replace(checkpoint)


def test_other_weights_are_checked_and_those_that_stay_are_shared(checkpoint: Checkpoint, config: ViTConfig) -> None:
    step = Step("changed")
    bias = np.full_like(checkpoint.weights["norm.bias"], 0.5)
    changed = checkpoint.with_weights({"norm.bias": bias}, config=config, preprocess=checkpoint.preprocess, step=step)
    assert changed.weights["norm.scale"] is checkpoint.weights["norm.scale"]
    assert (changed.provenance, changed.labels) == ((*checkpoint.provenance, step), checkpoint.labels)
    whole = Checkpoint(config, {**checkpoint.weights, "norm.bias": bias}, checkpoint.preprocess)
    assert (changed.digest(), checkpoint.digest()) == weights_digests(changed.weights, checkpoint.weights)
    assert changed.digest() == whole.digest() != checkpoint.digest()
    wrong = {"norm.bias": bias * np.nan, "norm.scale": bias[1:]}
    with pytest.raises(CheckpointError) as caught:
        checkpoint.with_weights(wrong, config=config, preprocess=checkpoint.preprocess, step=step)
    assert "norm.bias has 12 values that are NaN" in caught.value.message
    assert "norm.scale has shape (11,), expected (12,)" in caught.value.message
