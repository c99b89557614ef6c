"""Every command that reads a checkpoint says what it assumed, takes what it is told instead, and can leave the head."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.huggingface_folders import changed
from tests.checkpoints.state_dicts import read, write
from tests.checkpoints.torch_writer import write_zip
from vit_deploy import checkpoints

PIL = pytest.importorskip("PIL.Image")
GOLDEN = Path(__file__).parents[1] / "peers" / "golden" / "timm" / "plain"
USUAL = (
    "assumed, for the checkpoint does not say it: mean 0.5, std 0.5, resize [24, 32], interpolation bilinear "
    "(say otherwise with --mean, --std and --config with resize and interpolation in its preprocess)"
)
RESIZING = {"resize": [24, 32], "interpolation": "bilinear"}
READERS = ("convert", "resize", "export", "inspect", "compare", "predict", "verify", "compress")


@pytest.fixture
def alone(tmp_path: Path, make_checkpoint: Any) -> tuple[Path, Path]:
    """Canonical weights that nothing else came with, and a file with their config."""
    path = write(tmp_path / "alone.safetensors", make_checkpoint().weights)
    (tmp_path / "config.json").write_text(json.dumps(make_checkpoint().config.to_dict()))
    return path, tmp_path / "config.json"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(5).integers(0, 256, (24, 32, 3), np.uint8)
    PIL.fromarray(pixels).save(tmp_path / "image.png")
    return tmp_path / "image.png"


def fields(document: dict[str, Any]) -> dict[str, Any]:
    assert all(sentence["why"] and sentence["checkpoint"] for sentence in document["assumed"])
    return {sentence["field"]: sentence["value"] for sentence in document["assumed"]}


@pytest.mark.parametrize("command", ["convert", "resize", "inspect", "compare", "predict", "verify"])
def test_every_command_says_on_stderr_and_in_its_document_what_it_assumed(
    command: str, alone: tuple[Path, Path], image: Path, bundles: dict[str, Path], tmp_path: Path, run: Any
) -> None:
    path, config = alone
    words: dict[str, tuple[object, ...]] = {
        "convert": (path, "-o", tmp_path / "out.safetensors"),
        "resize": (path, "-o", tmp_path / "out.safetensors", "--image-size", "24x40"),
        "inspect": (path,),
        "compare": (path, path),
        "predict": (path, image),
        "verify": (bundles["onnx"], "--against", path, "--quick"),
    }
    said = run(command, *words[command], "--config", config, "--json")
    assert said.code == 0, said.err
    assert USUAL in said.err
    assert fields(said.document) == {"mean": 0.5, "std": 0.5, **RESIZING}
    if command in ("inspect", "compare", "predict"):  # the others would write their file a second time, or differ
        told = run(command, *words[command], "--config", config, "--mean", "0.1,0.2,0.3", "--std", "0.4", "--json")
        assert (told.code, fields(told.document)) == (0, RESIZING)
        assert "mean" not in told.err


def test_export_says_what_it_assumed(alone: tuple[Path, Path], tmp_path: Path, run: Any) -> None:
    path, config = alone
    options = ("-f", "onnx", "-o", tmp_path / "out", "--no-speed", "--config", config, "--std", "0.4", "--json")
    said = run("export", path, *options)
    assert said.code == 0, said.err
    assert fields(said.document) == {"mean": 0.5, **RESIZING}
    assert "mean 0.5, resize [24, 32], interpolation bilinear (say otherwise with --mean and --config" in said.err
    manifest = json.loads((tmp_path / "out" / "onnx-fp32" / "artifact.json").read_text())
    assert manifest["preprocess"]["std"] == [0.4, 0.4, 0.4]


def test_a_mean_that_is_told_changes_the_answer(alone: tuple[Path, Path], image: Path, run: Any) -> None:
    path, config = alone
    answers = [
        run("predict", path, image, "--config", config, "--json", *more).document["results"][0]["top"][0]["logit"]
        for more in ((), ("--mean", "0.5", "--std", "0.5"), ("--mean", "0.9,0.1,0.4"))
    ]
    assert answers[0] == answers[1] != answers[2]


def test_labels_are_told_in_a_file(alone: tuple[Path, Path], image: Path, tmp_path: Path, run: Any) -> None:
    path, config = alone
    (tmp_path / "labels.txt").write_text("ant\nbee\ncat\ndog\nelk\n")
    said = run("predict", path, image, "--config", config, "--labels", tmp_path / "labels.txt", "--json")
    assert {seen["label"] for seen in said.document["results"][0]["top"]} == {"ant", "bee", "cat", "dog", "elk"}
    (tmp_path / "labels.txt").write_text("ant\nbee\n")
    said = run("predict", path, image, "--config", config, "--labels", tmp_path / "labels.txt")
    assert (said.code, "2 labels given for 5 classes" in said.err) == (2, True)


def test_a_missing_head_is_an_error_and_its_fix_works_wherever_a_checkpoint_is_read(tmp_path: Path, run: Any) -> None:
    def bare(tensors: dict[str, Any]) -> dict[str, Any]:
        return {name: tensor for name, tensor in tensors.items() if not name.startswith("classifier.")}

    folder = changed(tmp_path, "vit", tensors=bare)
    output = tmp_path / "out.safetensors"
    for words in (("convert", folder, "-o", output), ("inspect", folder), ("compare", folder, folder)):
        said = run(*words)
        assert (said.code, "the head is missing" in said.err, "--no-head" in said.err) == (2, True, True)
        assert not output.exists()
        assert run(*words, "--no-head").code == 0
        output.unlink(missing_ok=True)
    said = run("predict", folder, tmp_path, "--no-head")
    assert said.code == 2


def test_a_head_that_is_there_is_left_out_when_asked(tmp_path: Path, keras_file: Path, run: Any) -> None:
    said = run("convert", keras_file, "-o", tmp_path / "out.safetensors", "--no-head", "--json")
    assert said.document["results"][0]["config"]["include_top"] is False
    assert not checkpoints.load(tmp_path / "out.safetensors").config.include_top


def test_averaged_weights_are_said_and_recorded(tmp_path: Path, image: Path, run: Any) -> None:
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(tensor.copy()) for name, tensor in read(GOLDEN / "model.safetensors").items()}
    zeros = {name: 0 * tensor for name, tensor in tensors.items()}
    torch.save({"state_dict": zeros, "state_dict_ema": tensors}, tmp_path / "a.pth")
    (tmp_path / "stated.json").write_text('{"image_size": [24, 32]}')
    stated = ("--num-heads", 3, "--config", tmp_path / "stated.json")
    said = run("predict", tmp_path / "a.pth", image, *stated, "--json")
    assert said.code == 0, said.err
    assert "taken: state_dict_ema, the averaged weights of several in the file, not state_dict" in said.err
    assert fields(said.document)["weights"] == "state_dict_ema"
    assert run("convert", tmp_path / "a.pth", "-o", tmp_path / "out.safetensors", *stated).code == 0
    step = checkpoints.load(tmp_path / "out.safetensors").provenance[0]
    assert step.facts["weights"] == {"key": "state_dict_ema", "averaged": True, "others": ["state_dict"]}
    torch.save({"state_dict": tensors}, tmp_path / "one.pth")
    assert "taken" not in run("inspect", tmp_path / "one.pth", *stated).err


@pytest.mark.parametrize("command", READERS)
def test_the_options_are_there_wherever_a_checkpoint_is_read(command: str, run: Any) -> None:
    said = run(command, "--help")
    for option in ("--mean", "--std", "--labels", "--no-head", "--config", "--num-heads", "--epsilon"):
        assert option in said.out
    for option in ("--architecture", "--adapter", "--weights", "--ignore", "--head "):
        assert option in said.out


@pytest.mark.parametrize("text", ["", "a", "0.5,", "nan", "0.1,0.2"])
def test_means_that_are_none_are_refused(text: str, alone: tuple[Path, Path], run: Any) -> None:
    said = run("inspect", alone[0], "--config", alone[1], "--mean", text)
    assert said.code == 2
    assert "Traceback" not in said.err


def test_what_is_stated_of_an_artifact_is_refused(bundles: dict[str, Path], image: Path, run: Any) -> None:
    said = run("predict", bundles["onnx"], image, "--mean", "0.5")
    assert (said.code, "preprocess can be stated of a checkpoint" in said.err) == (2, True)
    said = run("verify", bundles["onnx"], "--no-head")
    assert (said.code, "add --against" in said.err) == (2, True)


def test_options_of_files_are_refused_where_there_is_no_file(tmp_path: Path, run: Any) -> None:
    said = run("export", "pico", "--weights", "ema", "-o", tmp_path / "out")
    assert said.code == 2
    assert "--weights says which model a file of weights holds, and pico is a scale" in said.err


def test_models_tensors_and_heads_are_chosen_on_the_command_line(tmp_path: Path, run: Any) -> None:
    tensors = read(GOLDEN / "model.safetensors")
    head = {name: tensor for name, tensor in tensors.items() if name.startswith("head.")}
    encoder = {name: tensor for name, tensor in tensors.items() if name not in head}
    others = {name: value + 1 for name, value in encoder.items()}
    odd = {"gate.weight": np.ones((2, 3), np.float32)}
    write_zip(tmp_path / "a.pth", {"student": encoder | odd, "teacher": others})
    write_zip(tmp_path / "head.pth", {"weight": head["head.weight"], "bias": head["head.bias"]})
    (tmp_path / "stated.json").write_text('{"image_size": [24, 32]}')
    words = ("convert", tmp_path / "a.pth", "-o", tmp_path / "out.safetensors", "--num-heads", 3)
    words = (*words, "--config", tmp_path / "stated.json", "--weights", "student", "--head", tmp_path / "head.pth")
    said = run(*words)
    assert said.code == 2
    assert "unexpected gate.weight (2, 3)" in said.err or "unexpected gate.weight (2, 3)" in said.err
    assert "--ignore PATTERN" in said.err
    said = run(*words, "--ignore", "gate.*", "--json")
    assert said.code == 0, said.err
    assert fields(said.document)["head"] == "the head in head.pth"
    assert "what --ignore gate.* says" in said.err
    found = checkpoints.load(tmp_path / "out.safetensors")
    np.testing.assert_array_equal(found.weights["head.kernel"], head["head.weight"].T)
    np.testing.assert_array_equal(found.weights["norm.scale"], encoder["norm.weight"])
