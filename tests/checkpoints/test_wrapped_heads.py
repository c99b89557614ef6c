"""Heads in the wrapping that trainings leave them in: foreign names, probes, files of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from peers import timm_families

from tests.checkpoints.torch_writer import Instance, write_zip
from tests.checkpoints.wrapped import GOLDEN, HF, STATED, Tensors, expected, other, split, with_prefix
from vit_deploy import checkpoints
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError, ConfigError

HEADS = ("fc", "classifier", "linear_head", "heads", "heads.head", "cls_head.fc", "linear", "classifier.0")


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", HEADS)
def test_a_head_under_a_foreign_name_is_taken_and_said(name: str, prefix: str, plain: Tensors, tmp_path: Path) -> None:
    encoder, head = split(plain)
    beside = {f"{name}.{part.removeprefix('head.')}": tensor for part, tensor in head.items()}
    held = with_prefix(prefix, {**with_prefix("backbone.", encoder), **beside})
    found = checkpoints.load(write_zip(tmp_path / "a.pth", {"state_dict": held}), config=STATED)
    images = timm_families.drawn_images(24, 32)
    expected_logits = np.load(GOLDEN / "timm" / "plain" / "output.npy")
    assert np.abs(forward(found, images) - expected_logits).max() < 1e-6
    assert f"taken: the head {name}, as one linear layer on the class token" in checkpoints.assumptions(found)
    assert [sentence.value for sentence in checkpoints.assumed(found.provenance) if sentence.field == "head"] == [
        f"the head {name}"
    ]
    bare = checkpoints.load(tmp_path / "a.pth", config=STATED | {"head": False})
    assert not bare.config.include_top


def test_a_head_under_a_foreign_name_on_an_encoder_of_transformers(vit: Tensors, tmp_path: Path) -> None:
    encoder, head = split(vit)
    beside = {f"fc.{part.removeprefix('classifier.')}": tensor for part, tensor in head.items()}
    held = {**with_prefix("net.backbone.", encoder), **with_prefix("net.", beside)}
    found = checkpoints.load(write_zip(tmp_path / "a.pth", held), config=HF | {"pooling": "cls"})
    assert found.digest() == expected("huggingface/vit", tmp_path).digest()


def test_dinov2s_linear_head_is_on_class_token_and_mean(plain: Tensors, tmp_path: Path) -> None:
    encoder, _ = split(plain)
    rng = np.random.default_rng(3)
    kernel, bias = rng.standard_normal((5, 24)).astype(np.float32), rng.standard_normal(5).astype(np.float32)
    held = {**with_prefix("backbone.", encoder), "linear_head.weight": kernel, "linear_head.bias": bias}
    found = checkpoints.load(write_zip(tmp_path / "a.pth", held), config=STATED)
    assert found.config.pooling == "cls_mean"
    images = timm_families.drawn_images(24, 32)
    bare = checkpoints.load(write_zip(tmp_path / "b.pth", encoder), config=STATED | {"pooling": None})
    tokens = forward(bare, images)
    features = np.concatenate([tokens[:, 0], tokens[:, 1:].mean(axis=1)], axis=1)
    np.testing.assert_allclose(forward(found, images), features @ kernel.T + bias, rtol=1e-6, atol=1e-9)
    four = {**held, "linear_head.weight": rng.standard_normal((5, 60)).astype(np.float32)}
    with pytest.raises(CheckpointError, match="the head linear_head is for 60 features, and the encoder gives 12"):
        checkpoints.load(write_zip(tmp_path / "a.pth", four), config=STATED)


@pytest.mark.parametrize("affine", [False, True])
def test_the_norm_of_a_linear_probe_is_folded_exactly(affine: bool, plain: Tensors, tmp_path: Path) -> None:
    encoder, head = split(plain)
    rng = np.random.default_rng(4)
    mean, variance = rng.standard_normal(12), rng.random(12) / 100
    scale, shift = (rng.standard_normal(12), rng.standard_normal(12)) if affine else (np.ones(12), np.zeros(12))
    probe = {"head.0.running_mean": mean, "head.0.running_var": variance, "head.0.num_batches_tracked": np.int64([9])}
    probe |= {"head.0.weight": scale, "head.0.bias": shift} if affine else {}
    held = {**encoder, **{name: np.asarray(tensor) for name, tensor in probe.items()}}
    held |= {f"head.1.{part.removeprefix('head.')}": tensor for part, tensor in head.items()}
    found = checkpoints.load(write_zip(tmp_path / "a.pth", {"model": held}), config=STATED)
    images = timm_families.drawn_images(24, 32)
    features = forward(checkpoints.load(write_zip(tmp_path / "b.pth", encoder), config=STATED), images)
    normal = (features - mean) / np.sqrt(variance + (1e-5 if affine else 1e-6)) * scale + shift
    logits = normal @ head["head.weight"].astype(np.float64).T + head["head.bias"]
    np.testing.assert_allclose(forward(found, images), logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("names", [("weight", "bias"), ("module.linear.weight", "module.linear.bias"), ("fc.weight",)])
def test_a_head_in_a_file_of_its_own(names: tuple[str, ...], plain: Tensors, tmp_path: Path) -> None:
    encoder, head = split(plain)
    write_zip(tmp_path / "encoder.pth", {"teacher": with_prefix("backbone.", encoder)})
    parts = dict(zip(names, (head["head.weight"], head["head.bias"]), strict=False))
    write_zip(tmp_path / "head.pth", {"state_dict": parts, "epoch": 3})
    found = checkpoints.load(tmp_path / "encoder.pth", config=STATED | {"head_file": tmp_path / "head.pth"})
    assert found.config.num_classes == 5
    np.testing.assert_array_equal(found.weights["head.kernel"], head["head.weight"].T)
    np.testing.assert_array_equal(found.weights["head.bias"], head["head.bias"] if len(names) == 2 else np.zeros(5))
    write_zip(tmp_path / "whole.pth", plain)
    replaced = checkpoints.load(tmp_path / "whole.pth", config=STATED | {"head_file": tmp_path / "head.pth"})
    assert replaced.weights["head.kernel"].shape == (12, 5)
    with pytest.raises(ConfigError, match="a head is given, and the head is to be left out"):
        checkpoints.load(tmp_path / "whole.pth", config=STATED | {"head_file": tmp_path / "head.pth", "head": False})
    with pytest.raises(CheckpointError, match=r"whole\.pth holds \d+ tensors .* expected a head alone"):
        checkpoints.load(tmp_path / "encoder.pth", config=STATED | {"head_file": tmp_path / "whole.pth"})
    with pytest.raises(CheckpointError, match="there is no file"):
        checkpoints.load(tmp_path / "encoder.pth", config=STATED | {"head_file": tmp_path / "none.pth"})


def test_dinos_projection_head_is_left_out(plain: Tensors, tmp_path: Path) -> None:
    encoder, _ = split(plain)
    head = {"head.mlp.0.weight": np.ones((4, 12), np.float32), "head.last_layer.weight_g": np.ones((7, 1), np.float32)}
    held = {"teacher": {**with_prefix("backbone.", encoder), **head}, "student": other(encoder), "epoch": 1}
    held["args"] = Instance("argparse.Namespace", {"arch": "vit_small", "lr": 0.1})
    found = checkpoints.load(write_zip(tmp_path / "a.pth", held), config=STATED)
    assert not found.config.include_top
    assert "a projection head (head.mlp.0.weight, head.last_layer.weight_g)" in checkpoints.assumptions(found)


def test_a_row_of_layers_is_no_head(plain: Tensors, tmp_path: Path) -> None:
    encoder, head = split(plain)
    rows = {"head.0.weight": np.ones((12, 12), np.float32), "head.2.weight": head["head.weight"]}
    path = write_zip(tmp_path / "a.pth", {**encoder, **rows})
    with pytest.raises(CheckpointError, match=r"the head head\.0 is no linear layer"):
        checkpoints.load(path, config=STATED)
    assert not checkpoints.load(path, config=STATED | {"head": False}).config.include_top
