from __future__ import annotations

import json

import numpy as np
import pytest

from tests.features import FAMILIES
from vit_deploy import checkpoints
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.errors import OutputError

SHAPE = ["--image-size", "24x32", "--patch-size", "8x4", "--num-classes", "5"]
WIDTH = ["--embed-dim", "12", "--num-heads", "3", "--num-layers", "2", "--mlp-dim", "20"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def same(one: Checkpoint, other: Checkpoint) -> bool:
    return one.config == other.config and all(
        np.array_equal(weight, other.weights[name]) for name, weight in one.weights.items()
    )


@pytest.mark.parametrize("suffix", [".keras", ".safetensors"])
def test_build_writes_the_model_that_the_options_say(run, tmp_path, suffix):
    result = run("build", "tiny", *SHAPE, *WIDTH, "--seed", "7", "-o", f"made/m{suffix}", "--json")
    assert result.code == 0, result.err
    expected = Checkpoint.random(ViTConfig((24, 32), (8, 4), 3, 12, 3, 2, 20, 5), 7)
    (said,) = result.document["results"]
    path = tmp_path / "made" / f"m{suffix}"
    assert said["path"] == f"made/m{suffix}" and said["bytes"] == path.stat().st_size
    assert said["parameters"] == expected.num_parameters and said["weights_digest"] == expected.digest()
    assert said["config"] == json.loads(json.dumps(expected.config.to_dict()))
    assert same(checkpoints.load(path), expected)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_every_variant_can_be_built(run, tmp_path):
    variant = ["--no-include-top", "--pooling", "mean", "--normalization-type", "rms_norm", "--ffn-type", "swiglu"]
    variant += ["--normalization-position", "post", "--channels", "1", "--epsilon", "1e-5", "--activation", "relu"]
    assert run("build", "pico", *SHAPE[:4], *WIDTH, *variant, "-o", "m.safetensors").code == 0
    config = checkpoints.load(tmp_path / "m.safetensors").config
    assert not config.include_top and config.pooling == "mean" and config.normalization_type == "rms_norm"
    assert config.ffn_type == "swiglu" and config.normalization_position == "post"
    assert (config.channels, config.epsilon, config.activation) == (1, 1e-5, "relu")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_can_be_built(run, tmp_path, name):
    options = []
    for option, value in FAMILIES[name].items():
        flag = option.replace("_", "-")
        if isinstance(value, bool):
            options.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            options += [f"--{flag}", str(value)]
    result = run("build", "tiny", *SHAPE, *WIDTH, *options, "-o", "m.safetensors")
    assert result.code == 0, result.err
    expected = ViTConfig((24, 32), (8, 4), 3, 12, 3, 2, 20, 5).replace(**FAMILIES[name])
    assert checkpoints.load(tmp_path / "m.safetensors").config == expected


def test_tokens_that_do_not_fit_the_pooling_are_refused_before_anything_is_written(run, tmp_path):
    result = run("build", "tiny", *SHAPE, *WIDTH, "--no-class-token", "-o", "m.safetensors")
    assert result.code == 2
    assert "class_token is False; expected mean, max, map" in result.err
    assert list(tmp_path.iterdir()) == []


def test_convert_keeps_every_weight_there_and_back(run, keras_file, tmp_path):
    original = checkpoints.load(keras_file)
    assert run("convert", keras_file, "-o", "m.safetensors").code == 0
    back = run("convert", "m.safetensors", "-o", "back.keras", "--json")
    assert back.code == 0 and back.document["results"][0]["weights_digest"] == original.digest()
    for name in ("m.safetensors", "back.keras"):
        assert same(checkpoints.load(tmp_path / name), original)


def test_convert_writes_a_folder_of_timms_or_says_what_timm_has_not(run, tmp_path):
    made = run("build", "tiny", *SHAPE, *WIDTH, "-o", "m.safetensors")
    assert made.code == 0
    result = run("convert", "m.safetensors", "--dialect", "timm", "-o", "folder", "--json")
    assert result.code == 0, result.err
    (said,) = result.document["results"]
    files = {file.name: file.stat().st_size for file in (tmp_path / "folder").iterdir()}
    assert (set(files), said["bytes"]) == ({"config.json", "model.safetensors"}, sum(files.values()))
    written, ours = checkpoints.load(tmp_path / "folder"), checkpoints.load(tmp_path / "m.safetensors")
    assert (written.digest(), written.config.pooling) == (ours.digest(), "cls")
    again = run("convert", "m.safetensors", "--dialect", "timm", "-o", "folder")
    assert again.code == 2 and "already there" in again.err
    other = run("convert", "m.safetensors", "--dialect", "keras", "-o", "other")
    assert other.code == 2 and "unknown dialect 'keras'" in other.err
    run("build", "tiny", *SHAPE, *WIDTH, "--rotary", "dinov3", "-o", "turned.safetensors")
    refused = run("convert", "turned.safetensors", "--dialect", "timm", "-o", "turned")
    assert refused.code == 2 and "rotary positions" in refused.err
    assert not (tmp_path / "turned").exists()


def test_convert_replaces_no_folder_but_one_that_it_could_have_written(run, tmp_path):
    assert run("build", "tiny", *SHAPE, *WIDTH, "-o", "m.safetensors").code == 0
    words = ("convert", "m.safetensors", "--dialect", "timm", "--force", "-o")
    assert run(*words, "folder").code == 0 and run(*words, "folder").code == 0
    (tmp_path / "models" / "config.json").mkdir(parents=True)
    (tmp_path / "models" / "other.safetensors").write_text("mine")
    refused = run(*words, "models")
    assert refused.code == 2 and "models holds more than a folder of timm's" in refused.err
    assert "config.json, other.safetensors" in refused.err
    assert (tmp_path / "models" / "other.safetensors").read_text() == "mine"
    assert run(*words, "m.safetensors").code == 2 and (tmp_path / "m.safetensors").is_file()


@pytest.mark.parametrize("given", ["folder", "folder/model.safetensors", "link"])
def test_convert_does_not_replace_the_folder_that_it_reads(run, tmp_path, given):
    assert run("build", "tiny", *SHAPE, *WIDTH, "-o", "m.safetensors").code == 0
    assert run("convert", "m.safetensors", "--dialect", "timm", "-o", "folder").code == 0
    (tmp_path / "link").symlink_to("folder")
    before = {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()}
    refused = run("convert", given, "--dialect", "timm", "-o", "folder", "--force")
    assert refused.code == 2 and f"folder is read, as {given}, and is not replaced" in refused.err
    assert {path.name: path.read_bytes() for path in (tmp_path / "folder").iterdir()} == before


def test_what_comes_into_a_folder_while_another_is_written_stays(tmp_path, monkeypatch):
    checkpoint = Checkpoint.random(ViTConfig((24, 32), (8, 4), 3, 12, 3, 2, 20, 5), 7)
    (tmp_path / "folder").mkdir()
    load = checkpoints.DIALECTS.load

    def meanwhile(name):
        (tmp_path / "folder" / "mine").write_text("mine")
        return load(name)

    monkeypatch.setattr(checkpoints.DIALECTS, "load", meanwhile, raising=False)
    with pytest.raises(OutputError, match="holds more than a folder of timm's, and is not replaced: mine"):
        checkpoints.save_as(checkpoint, tmp_path / "folder", "timm", force=True)
    assert (tmp_path / "folder" / "mine").read_text() == "mine"


def test_convert_says_that_timm_makes_narrow_heads_by_a_class_alone(run):
    run("build", "tiny", *SHAPE, *WIDTH, "--head-width", "6", "-o", "m.safetensors")
    result = run("convert", "m.safetensors", "--dialect", "timm", "-o", "folder")
    assert result.code == 0
    assert "timm makes attention heads 6 wide by a class of its user's alone" in result.err


def test_what_is_there_is_not_overwritten_without_force(run, keras_file, tmp_path):
    target = tmp_path / "m.safetensors"
    target.write_text("mine")
    for command in (["build", "pico", *SHAPE, *WIDTH], ["convert", keras_file]):
        result = run(*command, "-o", target)
        assert result.code == 2 and "already there" in result.err and target.read_text() == "mine"
    assert run("convert", keras_file, "-o", target, "--force").code == 0
    assert same(checkpoints.load(target), checkpoints.load(keras_file))


def test_a_folder_or_another_suffix_is_refused_before_the_work(run, keras_file, tmp_path):
    (tmp_path / "folder.keras").mkdir()
    for command in (["build", "pico", *SHAPE], ["convert", keras_file]):
        assert "is a folder" in run(*command, "-o", "folder.keras", "--force").err
        result = run(*command, "-o", "m.onnx")
        assert result.code == 2 and "a checkpoint cannot be written as m.onnx" in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["folder.keras"]


def test_a_file_that_is_no_checkpoint_is_exit_2_and_leaves_nothing(run, tmp_path):
    (tmp_path / "note.keras").write_text("no zip")
    result = run("convert", "note.keras", "-o", "made/m.safetensors", "--json")
    assert result.code == 2 and result.document["error"]["type"] == "CheckpointError"
    assert "note.keras" in result.document["error"]["message"]
    assert [path.name for path in tmp_path.iterdir()] == ["note.keras"]
