from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from test_export import damage

from vit_deploy import checkpoints
from vit_deploy.core.manifest import read_artifact, write_manifest
from vit_deploy.exporters.folding import fold_norms
from vit_deploy.formats.stored_weights import read_weights
from vit_deploy.verification.compare import _weights


@pytest.fixture(scope="module")
def saved(make_checkpoint, tmp_path_factory):
    """Writes the tiny checkpoint with fields of it changed."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def save(name, **changes):
        path = folder / f"{name}.safetensors"
        checkpoints.save(dataclasses.replace(make_checkpoint(), **changes), path, force=True)
        return path

    return save


def test_a_model_is_the_same_as_itself_in_every_format_that_keeps_names(run, bundles, keras_file, saved):
    for other in (bundles["savedmodel"], keras_file, saved("same"), bundles["onnx"]):
        result = run("compare", bundles["onnx"], other, "--json")
        assert result.code == 0, result.out
        [record] = result.document["results"]
        assert record["same"] and record["differences"] == [] and record["weights"] == []
        assert record["weights_compared"] == 40 and record["outputs"]["ok"]
        assert (record["a"], record["b"]) == (str(bundles["onnx"]), str(other))


def test_tflite_is_compared_with_the_rest_by_digest_and_outputs(run, bundles):
    result = run("compare", bundles["tflite"], bundles["onnx"], "--json")
    [record] = result.document["results"]
    assert result.code == 0 and record["weights_compared"] is None and record["outputs"]["ok"]
    assert any("converter's names" in note for note in record["notes"])
    same = run("compare", bundles["tflite"], bundles["tflite"], "--json").document["results"][0]
    assert same["same"] and same["weights_compared"] >= 20


def test_other_weights_are_named_the_furthest_apart_first(run, saved, make_checkpoint):
    weights = {name: value.copy() for name, value in make_checkpoint().weights.items()}
    weights["block_1.ffn.up.kernel"][3, 5] += 0.25
    weights["head.bias"][2] += 0.5
    result = run("compare", saved("one"), saved("other", weights=weights), "--json")
    [record] = result.document["results"]
    assert result.code == 1 and not record["same"] and record["differences"] == []
    found = [(weight["name"], weight["message"]) for weight in record["weights"]]
    assert found == [("head.bias", "furthest at (2)"), ("block_1.ffn.up.kernel", "furthest at (3, 5)")]
    assert [weight["max_abs"] for weight in record["weights"]] == pytest.approx([0.5, 0.25], rel=1e-5)
    assert record["outputs"]["metrics"]["max_abs"] > 0.1 and not record["outputs"]["ok"]
    shown = run("compare", saved("one"), saved("other", weights=weights))
    assert shown.code == 1 and "head.bias" in shown.out and "5.0e-01 apart" in shown.out


def test_a_weight_that_one_has_alone_is_shown_in_its_column(run, saved, make_checkpoint):
    longer = make_checkpoint(register_tokens=1)
    paths = saved("one"), saved("other", config=longer.config, weights=longer.weights)
    for first, second, cells, words in ((*paths, "-  yes", "second"), (*reversed(paths), "yes  -", "first")):
        shown = run("compare", first, second).out
        (row,) = (line for line in shown.splitlines() if "class_token.registers" in line)
        assert row.split() == ["weight", "class_token.registers", *cells.split()]
        [record] = run("compare", first, second, "--json").document["results"]
        said = {weight["name"]: weight["message"] for weight in record["weights"]}
        assert said["class_token.registers"] == f"only in the {words}"


def test_another_preprocessing_and_other_labels_are_named(run, saved, make_checkpoint):
    preprocess = dataclasses.replace(make_checkpoint().preprocess, mean=(0.4, 0.5, 0.5), crop=True, resize=40)
    result = run("compare", saved("one"), saved("cropped", preprocess=preprocess, labels=tuple("abcde")), "--json")
    [record] = result.document["results"]
    assert result.code == 1
    found = {
        (difference["aspect"], difference["name"]): (difference["first"], difference["second"])
        for difference in record["differences"]
    }
    assert found["preprocess", "mean"] == ([0.5, 0.5, 0.5], [0.4, 0.5, 0.5])
    assert found["preprocess", "resize"] == (None, 40) and found["preprocess", "crop"] == (False, True)
    assert found["labels", "2"] == (None, "c")
    assert not record["outputs"]["ok"], "the other mean gives other inputs"


def test_another_epsilon_is_a_difference_of_the_config(run, saved, make_checkpoint):
    config = make_checkpoint().config
    [record] = run("compare", saved("one"), saved("epsilon", config=config.replace(epsilon=1e-3)), "--json").document[
        "results"
    ]
    assert [(difference["aspect"], difference["name"]) for difference in record["differences"]] == [
        ("config", "epsilon")
    ]
    assert record["weights"] == [] and not record["same"]


def test_another_image_size_is_compared_but_for_its_outputs(run, saved, make_checkpoint):
    other = make_checkpoint(image_size=(32, 32))
    path = saved("larger", config=other.config, weights=other.weights)
    [record] = run("compare", saved("one"), path, "--json").document["results"]
    assert record["outputs"] is None and any("one image size" in note for note in record["notes"])
    assert any("(25, 12) and" in weight["message"] or "float32 (" in weight["message"] for weight in record["weights"])


def test_a_planted_weight_in_a_file_is_found_by_name(run, bundles, make_checkpoint, tmp_path):
    copied = shutil.copytree(bundles["onnx"], tmp_path / "planted")
    artifact = read_artifact(copied)
    damage(artifact.model_path, make_checkpoint())
    write_manifest(artifact)
    [record] = run("compare", bundles["onnx"], copied, "--json").document["results"]
    assert [weight["name"] for weight in record["weights"]] == ["head.bias"] and not record["outputs"]["ok"]


@pytest.mark.parametrize("format", ["onnx", "savedmodel"])
def test_the_weights_of_a_file_are_the_checkpoints(bundles, make_checkpoint, format):
    artifact = read_artifact(bundles[format])
    held = read_weights(artifact.model_path, format)
    for name, value in make_checkpoint().weights.items():
        np.testing.assert_array_equal(held[name], value)


def test_the_kernels_of_a_tflite_file_are_the_checkpoints_with_their_norms_transposed(bundles, make_checkpoint):
    held = list(read_weights(read_artifact(bundles["tflite"]).model_path, "tflite").values())
    kernel = fold_norms(make_checkpoint()).weights["head.kernel"].T
    assert sum(array.shape == kernel.shape and np.array_equal(array, kernel) for array in held) == 1


@pytest.mark.parametrize("absent", [0, 1])
def test_what_is_not_there_is_exit_2(run, bundles, tmp_path, absent):
    paths = [bundles["onnx"], bundles["onnx"]]
    paths[absent] = tmp_path / "absent"
    result = run("compare", *paths)
    assert result.code == 2 and "absent" in result.err and "fix:" in result.err


def test_a_bare_model_file_is_refused_with_what_to_give(run, bundles):
    result = run("compare", bundles["onnx"] / "model.onnx", bundles["onnx"])
    assert result.code == 2 and "without its artifact" in result.err


def test_another_number_of_channels_is_compared_but_for_its_outputs(run, saved, make_checkpoint):
    grey = make_checkpoint(channels=1)
    path = saved("grey", config=grey.config, weights=grey.weights, preprocess=grey.preprocess)
    [record] = run("compare", saved("one"), path, "--json").document["results"]
    assert record["outputs"] is None and any("as many channels" in note for note in record["notes"])


def test_a_weight_that_is_nan_stands_before_all_that_is_nearer(make_checkpoint):
    one = dict(make_checkpoint().weights)
    other = dict(one)
    names = ("block_0.ffn.up.bias", "head.bias", "norm.bias")
    for name, value in zip(names, (1.0, np.nan, 2.0), strict=True):
        other[name] = other[name] + np.float32([value] + [0] * (len(other[name]) - 1))
    compared, found = _weights(one, other)
    assert compared == len(one)
    assert [each.name for each in found] == ["head.bias", "norm.bias", "block_0.ffn.up.bias"]


@pytest.mark.slow
def test_what_tensorflow_logs_is_not_among_what_is_said(bundles):
    command = ["-m", "vit_deploy", "compare", "-q", str(bundles["onnx"]), str(bundles["savedmodel"])]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "same" in done.stdout and done.stderr == ""
