"""`vit-deploy compress`: what it writes is taken by the other commands, and what it says is measured."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import numpy as np
import pytest

from vit_deploy import checkpoints
from vit_deploy.cli import run

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow_model_optimization") is None, reason="needs tensorflow-model-optimization"
)


def called(capfd, *args) -> tuple[int, dict[str, Any]]:
    code = run([*map(str, args), "--json"])
    return code, json.loads(capfd.readouterr().out)


def test_bad_input_is_told_before_any_training(small, striped, tmp_path, capfd):
    checkpoints.save(small, tmp_path / "model.safetensors")
    data = np.load(striped)
    np.savez(tmp_path / "other.npz", images=data["images"][:, :4], labels=data["labels"])
    args = ["compress", tmp_path / "model.safetensors", "--method", "prune", "--data", tmp_path / "other.npz"]
    code, document = called(capfd, *args, "-o", tmp_path / "out.safetensors")
    assert code == 2 and document["error"]["type"] == "DataError"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["model.safetensors", "other.npz"]


@pytest.mark.slow
def test_a_clustered_checkpoint_is_exported_smaller_and_proven(small, striped, tmp_path, capfd):
    checkpoints.save(small, tmp_path / "model.safetensors")
    code, document = called(
        capfd, "compress", tmp_path / "model.safetensors", "--method", "cluster", "--clusters", 4, "--epochs", 2,
        "--data", striped, "-o", tmp_path / "few.keras", "--no-speed",
    )  # fmt: skip
    assert code == 0
    (result,) = document["results"]
    files = {(each["state"], each["name"]): each for each in result["files"]}
    assert files["after", "tflite-fp32"]["distinct"] <= 4 < files["before", "tflite-fp32"]["distinct"]
    assert files["after", "tflite-fp32"]["gzip_bytes"] < files["before", "tflite-fp32"]["gzip_bytes"]
    assert not (tmp_path / "few.keras.training").exists()
    code, document = called(capfd, "export", tmp_path / "few.keras", "--format", "onnx", "-o", tmp_path / "made")
    assert code == 0 and document["ok"]


@pytest.mark.slow
def test_what_training_learned_of_ranges_reaches_the_integer_files(small, striped, tmp_path, capfd):
    checkpoints.save(small, tmp_path / "model.safetensors")
    code, document = called(
        capfd, "compress", tmp_path / "model.safetensors", "--method", "qat", "--epochs", 2,
        "--data", striped, "-o", tmp_path / "ready.keras", "--no-speed",
    )  # fmt: skip
    assert code == 0
    names = {each["name"] for each in document["results"][0]["files"] if each["state"] == "after"}
    assert "tflite-int8-static" in names
    assert checkpoints.load(tmp_path / "ready.keras").ranges
