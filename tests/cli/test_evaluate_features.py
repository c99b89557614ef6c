"""`evaluate` of models without a head: what their features tell of the classes."""

from __future__ import annotations

import json

import numpy as np
import pytest

from vit_deploy import api, checkpoints

CLASSES = 3


def save_images(path, seed, count):
    """Images of three classes, each bright in a part of its own."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    images = rng.integers(0, 40, (count, 24, 32, 3))
    for place, label in enumerate(labels):
        images[place, :, 10 * label : 10 * label + 10] += 200
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


@pytest.fixture(scope="module")
def made(make_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    headless = make_checkpoint(include_top=False, num_classes=0, pooling="cls")
    checkpoints.save(headless, folder / "model.safetensors")
    api.export(headless, folder / "usual", formats="onnx", precisions=("fp32", "int8"))
    api.export(headless, folder / "named", formats="onnx", outputs=("map", "class_token"))
    api.export(headless, folder / "maps", formats="onnx", outputs=("map",))
    save_images(folder / "data.npz", 1, 60)
    save_images(folder / "train.npz", 2, 45)
    return folder


def test_neighbours_and_a_probe_are_the_accuracy_of_features(run, made):
    usual = made / "usual"
    done = run("evaluate", usual / "onnx-fp32", usual / "onnx-int8", "--data", made / "data.npz", "--json")
    assert done.code == 0, done.err
    first, second = json.loads(done.out)["results"]
    for result in (first, second):
        assert result["images"] == 60 and result["top1"] is None and result["top5"] is None
        features = result["features"]
        assert (features["output"], features["k"], features["train"]) == ("features", 20, None)
        assert features["knn"] > 0.9 and features["linear_probe"] > 0.9
        low, high = features["knn_interval"]
        assert 0 <= low < features["knn"] <= high <= 1
    assert first["agreement"] == 1 and first["features"]["shared_neighbours"] == 1
    assert 0.9 < second["agreement"] <= 1 and 0.3 < second["features"]["shared_neighbours"] < 1
    assert second["reference"] == str(usual / "onnx-fp32")


def test_training_images_tell_the_classes_of_others(run, made):
    done = run(
        *("evaluate", made / "named" / "onnx-fp32", "--data", made / "data.npz"),
        *("--train", made / "train.npz", "--json"),
    )
    assert done.code == 0, done.err
    [result] = json.loads(done.out)["results"]
    assert (result["features"]["train"], result["features"]["output"]) == (45, "class_token")
    assert result["features"]["linear_probe"] > 0.9
    assert result["agreement"] is None and any("second artifact" in failure for failure in result["failures"])


def test_the_table_shows_intervals(run, made):
    done = run("evaluate", made / "usual" / "onnx-fp32", "--data", made / "data.npz")
    assert done.code == 0, done.err
    assert "k-NN" in done.out and "probe" in done.out
    assert "60 images, told by all others of them" in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("maps/onnx-fp32",), "none of them is a vector of an image"),
        (("usual/onnx-fp32", "--train", "few.npz"), "there is nothing to tell 1, 2 by: no training images"),
        (("usual/onnx-fp32", "--against", "model.safetensors"), "these give none"),
    ],
)
def test_what_cannot_be_evaluated_says_why(run, made, arguments, message):
    np.savez(made / "few.npz", images=np.zeros((2, 24, 32, 3), np.uint8), labels=np.array([0, 0]))
    given = [made / argument if "/" in argument or "." in argument else argument for argument in arguments]
    done = run("evaluate", *given, "--data", made / "data.npz")
    assert done.code == 2 and message in done.err


def test_training_images_are_not_for_models_with_a_head(run, bundles, made):
    done = run("evaluate", bundles["onnx"], "--data", made / "data.npz", "--train", made / "train.npz")
    assert done.code == 2 and "--train is for models that give features" in done.err
