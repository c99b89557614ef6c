"""`vit-deploy compress`: what it writes is taken by the other commands, and what it says is measured."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

import vit_deploy
from vit_deploy import checkpoints
from vit_deploy.cli import run
from vit_deploy.compression import training_folder
from vit_deploy.compression.state import FILE
from vit_deploy.core.staging import HAS_LOCKS
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.core.weights import layer_names

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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.safetensors", "other.npz"]


@pytest.mark.skipif(not HAS_LOCKS, reason="no locks here")
def test_a_second_run_for_the_same_output_is_refused(small, striped, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(training_folder, "PATIENCE_S", 0)
    checkpoints.save(small, tmp_path / "model.safetensors")
    args = ["compress", tmp_path / "model.safetensors", "--method", "prune", "--data", striped]
    with training_folder.training_folder(tmp_path / "out.safetensors.training"):
        code, document = called(capfd, *args, "-o", tmp_path / "out.safetensors")
    assert code == 2 and document["error"]["type"] == "OutputError"
    assert document["error"]["fix"] == "wait for it, or give another output"


@pytest.mark.slow
def test_a_clustered_checkpoint_is_exported_smaller_and_proven(small, striped, tmp_path, capfd):
    checkpoints.save(small, tmp_path / "model.safetensors")
    code, document = called(
        capfd, "compress", tmp_path / "model.safetensors", "--method", "cluster", "--clusters", 4, "--epochs", 2,
        "--data", striped, "-o", tmp_path / "few.keras", "--no-speed",
    )  # fmt: skip
    assert code == 0
    (result,) = document["results"]
    files = {(file["state"], file["name"]): file for file in result["files"]}
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
    names = {file["name"] for file in document["results"][0]["files"] if file["state"] == "after"}
    assert "tflite-int8-static" in names
    assert checkpoints.load(tmp_path / "ready.keras").ranges


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="kills a group of processes")
def test_a_command_that_was_killed_gives_the_same_bits_when_it_is_started_again(small, striped, tmp_path):
    checkpoints.save(small, tmp_path / "model.safetensors")
    command = [
        *(sys.executable, "-m", "vit_deploy", "compress", str(tmp_path / "model.safetensors"), "--method", "prune"),
        *("--epochs", "8", "--batch", "8", "--augment", "crop,mixup", "--data", str(striped), "--no-speed", "-q", "-o"),
    ]
    state = tmp_path / "killed.safetensors.training"
    killed = subprocess.Popen([*command, tmp_path / "killed.safetensors"], start_new_session=True)
    deadline = time.monotonic() + 120
    while not (state / FILE).exists() and killed.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert (state / FILE).exists() and not (tmp_path / "killed.safetensors").exists()
    for name in ("killed", "whole"):
        assert subprocess.run([*command, tmp_path / f"{name}.safetensors"], check=False).returncode in (0, 1)
    one, other = (checkpoints.load(tmp_path / f"{name}.safetensors") for name in ("killed", "whole"))
    assert one.digest() == other.digest() and one.provenance == other.provenance
    assert not state.exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {
            "class_token": False,
            "pooling": "map",
            "qk_norm": True,
            "layer_scale": True,
            "ffn_type": "swiglu",
            "normalization_type": "rms_norm",
            "pre_norm": True,
        },
        {
            "distillation_token": True,
            "register_tokens": 2,
            "pooling": "cls_distillation",
            "normalization_position": "post",
            "activation": "quick_gelu",
        },
        {"class_token": False, "pooling": "mean", "qkv_bias": False, "normalization_type": "dynamic_tanh"},
    ],
    ids=["map pooling", "all prefix tokens", "no class token"],
)
def test_models_of_all_kinds_are_trained_for_int8(make_checkpoint, small, tmp_path, capfd, changes):
    # Images of the kind that files are proven with: ranges learned of stripes alone would cut those off.
    np.savez(tmp_path / "data.npz", images=natural_pixels(60, 8, 12, 1, seed=5), labels=np.arange(60) % 3)
    sizes = {name: getattr(small.config, name) for name in ("image_size", "patch_size", "channels", "num_classes")}
    model = make_checkpoint(**sizes, **changes, num_layers=1)
    checkpoints.save(model, tmp_path / "model.safetensors")
    code, document = called(
        capfd, "compress", tmp_path / "model.safetensors", "--method", "qat", "--epochs", 1,
        "--data", tmp_path / "data.npz", "-o", tmp_path / "ready.safetensors", "--no-speed",
    )  # fmt: skip
    assert code == 0, document
    after = {file["name"]: file["top1"] for file in document["results"][0]["files"] if file["state"] == "after"}
    assert set(after) == {"tflite-fp32", "onnx-fp32", "tflite-int8-static", "tflite-int8-full"}
    ranges = checkpoints.load(tmp_path / "ready.safetensors").ranges
    layers = layer_names(model.config)
    assert {f"{layer}.{side}" for layer in layers for side in ("input", "output")} < set(ranges)
    assert any(name.endswith(".softmax.0") for name in ranges)


@pytest.mark.slow
def test_the_document_of_the_command_is_the_result_of_the_function(small, striped, tmp_path, capfd):
    checkpoints.save(small, tmp_path / "model.safetensors")
    folders = [tmp_path / name for name in ("command", "function")]
    for folder in folders:
        folder.mkdir()
    code, document = called(
        capfd, "compress", tmp_path / "model.safetensors", "--method", "prune", "--sparsity", 0.5, "--epochs", 2,
        "--data", striped, "-o", folders[0] / "a.safetensors", "--no-speed", "--augment", "none", "--keep", "head",
    )  # fmt: skip
    said = []
    compressed = vit_deploy.compress(
        tmp_path / "model.safetensors",
        folders[1] / "a.safetensors",
        vit_deploy.CompressOptions("prune", sparsity=0.5, epochs=2, augment=(), keep=("head",)),
        data=striped,
        speed=False,
        tell=said.append,
    )
    found = json.loads(json.dumps(compressed.to_dict()).replace(str(folders[1]), str(folders[0])))
    for each in (found, document):  # how long an epoch took is nobody else's
        for epoch in each["results"][0]["history"]:
            epoch.pop("seconds", None)
    assert found == document and code == (0 if compressed.ok else 1)
    assert any(words.startswith("epoch 1:") for words in said)
    assert compressed.result.checkpoint.digest() == checkpoints.load(folders[0] / "a.safetensors").digest()
