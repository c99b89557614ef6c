"""What can be asked of compress, how its images are divided, and what is kept of a killed training."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vit_deploy import checkpoints, compression
from vit_deploy.compression import CompressOptions
from vit_deploy.compression.data import open_images, order, split
from vit_deploy.compression.job import Job, as_artifact
from vit_deploy.compression.stage import ready
from vit_deploy.compression.state import State, load_state, save_state
from vit_deploy.compression.table import Row, distinct, sparsity, speedups, verdicts
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.reference import forward
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.errors import CheckpointError, ConfigError, DataError, MissingEngineError
from vit_deploy.exporters.folding import fold_norms
from vit_deploy.exporters.mean_centering import centre_stream


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(ConfigError) as error:
        CompressOptions("prune", sparsity=1.5, clusters=1, schedule="cubic", augment=("crop", "blur"))
    for word in ("sparsity is 1.5", "clusters is 1", "schedule is 'cubic'", "augment is 'blur'"):
        assert word in error.value.message


def test_an_unknown_method_is_told_with_the_one_it_resembles():
    with pytest.raises(ConfigError, match="did you mean 'prune'"):
        CompressOptions("prun")


def test_options_survive_the_way_to_another_process():
    options = CompressOptions("cluster", clusters=8, keep=("head",), augment=("flip", "mixup"))
    assert CompressOptions.from_dict(options.to_dict()) == options


def test_layers_are_kept_by_pattern(small):
    layers = CompressOptions("prune", keep=("head", "*.ffn.*")).layers(small.config)
    assert "head" not in layers and "block_0.ffn.up" not in layers and "block_0.attention.query" in layers
    with pytest.raises(ConfigError, match="no such layers: heads"):
        CompressOptions("prune", keep=("heads",)).layers(small.config)


def test_a_missing_engine_is_told_with_an_installation_that_keeps_one_tensorflow(monkeypatch):
    plugin = Plugin("nowhere:Prune", extra="compress", needs=("tf_keras_that_is_not_there",))
    monkeypatch.setattr(compression, "METHODS", Registry("method", {"prune": plugin}))
    with pytest.raises(MissingEngineError) as error:
        compression.check("prune")
    assert "--no-deps" in error.value.fix and "tf_keras==2." in error.value.fix
    assert "all of the extra vit-deploy[compress]" in error.value.fix


def test_images_are_divided_alike_in_every_class(small, striped, tmp_path):
    images = open_images(striped, as_artifact(small, tmp_path / "model"))
    trained, held = split(images, 0.2, seed=4)
    assert (len(trained), len(held)) == (48, 12)
    assert np.bincount(held.labels).tolist() == [4, 4, 4]
    again, _ = split(images, 0.2, seed=4)
    np.testing.assert_array_equal(again.read([0, 5]), trained.read([0, 5]))
    everything = {image.tobytes() for image in images.read(range(60))}
    parts = [{image.tobytes() for image in part.read(range(len(part)))} for part in (trained, held)]
    assert parts[0] | parts[1] == everything and not parts[0] & parts[1]


def test_what_would_do_nothing_is_refused():
    with pytest.raises(ConfigError, match="sparsity is of prune, and the method is qat"):
        CompressOptions("qat", sparsity=0.9)
    with pytest.raises(ConfigError, match="clusters is of cluster, and the method is prune"):
        CompressOptions("prune", clusters=8)
    with pytest.raises(ConfigError, match=r"sparsity is 0.9; with the pattern 2:4 it is 0.5"):
        CompressOptions("prune", sparsity=0.9, pattern="2:4")
    assert CompressOptions("prune", sparsity=0.5, pattern="2:4").pattern == "2:4"


def test_images_of_one_class_teach_nothing(small, striped, tmp_path):
    data = np.load(striped)
    np.savez(tmp_path / "one.npz", images=data["images"], labels=np.full_like(data["labels"], 2))
    job = Job.write(small, CompressOptions("prune"), tmp_path / "one.npz", None, tmp_path)
    with pytest.raises(DataError, match=r"all 60 images of .*one\.npz are of one class"):
        job.images()


def test_a_training_is_another_one_when_its_images_are_others(small, striped, tmp_path):
    data = dict(np.load(striped))
    options = CompressOptions("prune")
    np.savez(tmp_path / "data.npz", **data)
    before = Job.write(small, options, tmp_path / "data.npz", None, tmp_path)
    assert Job.read(tmp_path / "job.json") == before
    assert Job.write(small, options, tmp_path / "data.npz", None, tmp_path).fingerprint() == before.fingerprint()
    np.savez(tmp_path / "data.npz", images=255 - data["images"], labels=data["labels"])
    assert Job.write(small, options, tmp_path / "data.npz", None, tmp_path).fingerprint() != before.fingerprint()


def test_held_out_image_files_are_evaluated_where_they_lie(small, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(12):
        folder = tmp_path / "data" / "abc"[number % 3]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 12), np.uint8)).save(folder / f"{number}.png")
    artifact = as_artifact(small, tmp_path / "model")
    _, held = split(open_images(tmp_path / "data", artifact), 0.25, seed=0)
    dataset = held.dataset(tmp_path)
    assert not (tmp_path / "images.npz").exists() and len(dataset) == len(held) == 3
    (batch,) = dataset.batches(artifact.preprocess, artifact.config.image_size, 8)
    np.testing.assert_array_equal(batch, held.read(range(3)))
    np.testing.assert_array_equal(dataset.classes(artifact), held.labels)


def test_held_out_images_of_an_npz_are_evaluated_from_a_new_one(small, striped, tmp_path):
    artifact = as_artifact(small, tmp_path / "model")
    _, held = split(open_images(striped, artifact), 0.2, seed=0)
    dataset = held.dataset(tmp_path)
    (batch,) = dataset.batches(artifact.preprocess, artifact.config.image_size, 64)
    np.testing.assert_array_equal(batch, held.read(range(12)))
    np.testing.assert_array_equal(dataset.classes(artifact), held.labels)


def test_too_few_images_are_refused(small, striped, tmp_path):
    images = open_images(striped, as_artifact(small, tmp_path / "model"))
    with pytest.raises(DataError, match="too few to train with"):
        split(images.some(np.array([0, 1])), 0.2, seed=0)


def test_every_image_comes_once_an_epoch_in_another_order():
    first, second = (np.concatenate(order(10, 4, 0, epoch)) for epoch in (0, 1))
    assert sorted(first[:10].tolist()) == list(range(10)) and len(first) == 12
    assert first.tolist() != second.tolist()
    assert np.concatenate(order(10, 4, 0, 1)).tolist() == second.tolist()


def test_a_state_is_taken_up_by_the_same_job_alone(tmp_path):
    state = State(7, [np.arange(3.0), np.array(2)], [np.ones(2)], [{"epoch": 1, "top1": 0.5}])
    save_state(state, tmp_path, "job")
    found = load_state(tmp_path, "job")
    assert found is not None and (found.step, found.history) == (7, [{"epoch": 1, "top1": 0.5}])
    np.testing.assert_array_equal(found.variables[0], [0, 1, 2])
    assert load_state(tmp_path, "another job") is None
    (tmp_path / "state.npz").write_bytes(b"PK\x03\x04 cut off")
    assert load_state(tmp_path, "job") is None


@pytest.mark.parametrize("suffix", [".safetensors", ".keras"])
def test_learned_ranges_are_kept_in_the_file(small, tmp_path, suffix):
    ranges = {"head.input": (-1.5, 2.25), "block_0.ffn.up.output": (0.0, 3.0)}
    checkpoints.save(dataclasses.replace(small, ranges=ranges), tmp_path / f"model{suffix}")
    assert dict(checkpoints.load(tmp_path / f"model{suffix}").ranges) == ranges


def test_ranges_of_nothing_are_refused(small):
    with pytest.raises(CheckpointError) as error:
        dataclasses.replace(small, ranges={"tail.input": (-1, 1), "head.input": (1, 2)})
    assert "tail.input, which is no layer's input or output" in error.value.message
    assert "on either side of zero" in error.value.message


def test_a_model_made_ready_keeps_its_few_values_through_the_export(make_checkpoint):
    folded = ready(make_checkpoint(layer_scale=True))
    rounded = {
        name: np.round(value * 4) / 4 if name.endswith(".kernel") else value for name, value in folded.weights.items()
    }
    few = dataclasses.replace(folded, weights={name: tensor.astype(np.float32) for name, tensor in rounded.items()})
    exported = centre_stream(fold_norms(few))
    assert distinct(exported) == distinct(few) < 20
    assert sparsity(exported) == sparsity(few) > 0


@pytest.mark.parametrize("centred", [False, True])
def test_a_model_made_ready_is_the_same_function(make_checkpoint, centred):
    start = make_checkpoint(layer_scale=True)
    after = ready(start, centred=centred)
    images = np.random.default_rng(1).standard_normal((3, *start.config.image_size, 3)).astype(np.float32)
    assert (after.config.normalization_type == "rms_norm") is centred
    np.testing.assert_allclose(forward(after, images), forward(start, images), rtol=0, atol=1e-5)


def test_a_method_that_gained_nothing_is_said_so():
    before = Row("before", "tflite-fp32", 0.9, 0.0, 999, 1000, 900, 2.0)
    after = Row("after", "tflite-fp32", 0.9, 0.6, 400, 1000, 450, 2.0)
    said = verdicts([before, after])
    assert "tflite-fp32: gzipped it is 0.50 of what it was" in said
    assert said[1].startswith("tflite-fp32: gained nothing in speed on this runtime (litert), 1.00 of the latency; ")
    assert "multiply by zeros" in said[1]


def test_files_that_are_less_faster_than_multiply_adds_are_fewer_are_said_so():
    rows = [
        Row(state, name, 0.9, 0.0, 999, 1000, 900, latency)
        for name, latencies in (("tflite-int8", (2.0, 1.6)), ("onnx-fp32", (3.0, 1.5)), ("onnx-int8", (None, None)))
        for state, latency in zip(("before", "after"), latencies, strict=True)
    ]
    (said,) = speedups(rows, 1.5)
    assert said.startswith("tflite-int8: 1.25 times as fast, and 1.5 was asked for by multiply-adds; ")
    assert "--keep-layers" in said


def test_accuracy_that_training_did_not_gain_is_said_so():
    rows = [Row(state, "tflite-int8-full", top1, 0.0, 999, 1000, 900, None) for state, top1 in PAIRS]
    assert verdicts(rows[:2]) == ["tflite-int8-full: gained nothing in accuracy, 90.00% are right and were 91.00%"]
    assert verdicts(rows[1::-1]) == verdicts(rows[:2])
    assert verdicts(rows[2:]) == []


PAIRS = (("before", 0.91), ("after", 0.90), ("before", 0.90), ("after", 0.92))


def test_checkpoints_without_ranges_have_none(small: Checkpoint):
    assert dict(small.ranges) == {}
