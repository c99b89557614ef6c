"""`vit-deploy resize`, and `export` that resizes on the way."""

from __future__ import annotations

import numpy as np
import pytest

from vit_deploy import checkpoints
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.resize import Convention, resize
from vit_deploy.errors import ConfigError
from vit_deploy.verification.drift import drift
from vit_deploy.verification.targets import load_source


@pytest.fixture(scope="session")
def file(make_checkpoint, tmp_path_factory):
    """A file of the tiny checkpoint (24x32 pixels, patches of 8x4), not to be changed."""
    path = tmp_path_factory.mktemp("resize") / "small.safetensors"
    checkpoints.save(make_checkpoint(), path)
    return path


def test_a_resized_file_is_what_resize_returns(run, file, tmp_path):
    target = tmp_path / "large.safetensors"
    said = run(
        "resize", file, "--image-size", "40x20", "--patch-size", "10x5", "--like", "google", "-o", target, "--json"
    )
    assert said.code == 0
    written = checkpoints.load(target)
    expected = resize(checkpoints.load(file), (40, 20), (10, 5), Convention.GOOGLE)
    assert written.digest() == expected.digest()
    assert written.config == expected.config
    assert written.provenance == expected.provenance
    (record,) = said.document["results"]
    assert record == {
        "path": str(target),
        "bytes": target.stat().st_size,
        "parameters": expected.num_parameters,
        "from": {"image_size": [24, 32], "patch_size": [8, 4]},
        "to": {"image_size": [40, 20], "patch_size": [10, 5]},
        "convention": "google",
        "config": expected.config.to_dict(),
        "weights_digest": expected.digest(),
        "drift": None,
    }


def test_a_resized_keras_file_loads_in_keras_and_answers_at_its_new_size(run, file, tmp_path):
    pytest.importorskip("keras")
    import vit_deploy

    target = tmp_path / "large.keras"
    assert run("resize", file, "--image-size", "40x20", "-o", target).code == 0
    assert checkpoints.load(target).digest() == resize(checkpoints.load(file), (40, 20)).digest()
    assert vit_deploy.load(target)(np.zeros((1, 40, 20, 3), np.float32)).shape == (1, 5)


def test_the_table_says_what_was_resized_and_how(run, file, tmp_path):
    said = run("resize", file, "--image-size", "40x20", "-o", tmp_path / "large.safetensors")
    assert "24x32 to 40x20" in said.out
    assert " 8x4 " in said.out
    assert " timm " in said.out


def test_the_report_is_the_drift_of_the_features(run, file, tmp_path):
    target = tmp_path / "large.safetensors"
    said = run("resize", file, "--image-size", "40x20", "-o", target, "--report", "--json")
    (record,) = said.document["results"]
    assert record["drift"] == drift(checkpoints.load(file), checkpoints.load(target)).to_dict()
    table = run("resize", file, "--image-size", "40x20", "-o", target, "--report", "--force").out
    assert f"{record['drift']['cosine_mean']:.4f}" in table


def test_the_sizes_it_has_already_are_written_with_a_note(run, file, tmp_path):
    target = tmp_path / "same.safetensors"
    said = run("resize", file, "--image-size", "24x32", "-o", target)
    assert said.code == 0
    assert "the checkpoint has these sizes already; nothing was resampled" in said.err
    assert target.read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("message", "arguments"),
    {
        "nothing to resize to; give --image-size, --patch-size or both": [],
        "height 25 is not a multiple of 8": ["--image-size", "25x32"],
        "--image-size is 'big'": ["--image-size", "big"],
        "--patch-size is '0'": ["--patch-size", "0"],
        "unknown convention 'tim'\n  fix: did you mean 'timm'?": ["--image-size", "40", "--like", "tim"],
    }.items(),
)
def test_what_cannot_be_is_refused_and_writes_nothing(run, file, tmp_path, message, arguments):
    said = run("resize", file, *arguments, "-o", tmp_path / "large.safetensors")
    assert said.code == 2
    assert message in said.err
    assert not list(tmp_path.iterdir())


def test_a_target_that_is_there_is_kept_unless_forced(run, file, tmp_path):
    target = tmp_path / "large.safetensors"
    target.write_text("mine")
    assert run("resize", file, "--image-size", "40x20", "-o", target).code == 2
    assert target.read_text() == "mine"
    assert run("resize", file, "--image-size", "40x20", "-o", target, "--force").code == 0
    assert checkpoints.load(target).config.image_size == (40, 20)


def test_export_resizes_a_checkpoint_on_the_way(run, file, tmp_path):
    pytest.importorskip("tensorflow")
    arguments = ("--image-size", "40x20", "--patch-size", "10x5", "--like", "huggingface")
    said = run("export", file, "--format", "savedmodel", *arguments, "-o", tmp_path / "out")
    assert said.code == 0, said.err
    assert "resized like huggingface: image size 24x32 to 40x20, patch size 8x4 to 10x5" in said.err
    artifact = read_artifact(tmp_path / "out" / "savedmodel-fp32")
    expected = resize(checkpoints.load(file), (40, 20), (10, 5), Convention.HUGGINGFACE)
    assert artifact.config == expected.config
    assert artifact.weights_digest == expected.digest()
    assert artifact.provenance == expected.provenance


def test_a_source_of_the_same_sizes_is_left_alone(file):
    source = load_source(str(file), {"image_size": (24, 32)}, None)
    assert source.note == ""
    assert source.checkpoint.digest() == checkpoints.load(file).digest()


@pytest.mark.parametrize(
    ("source", "overrides", "like", "message"),
    [
        ("pico", {}, "timm", "--like says how a checkpoint is resized, and pico is made at its size"),
        (None, {}, "timm", "--like says how a checkpoint is resized, and no size is given"),
        (None, {"image_size": (40, 20)}, "tim", "unknown convention 'tim'"),
        (
            None,
            {"image_size": (40, 20), "num_classes": 3},
            None,
            "--num-classes shapes a model that is made from a scale",
        ),
    ],
)
def test_options_that_do_not_fit_the_source_are_refused(file, source, overrides, like, message):
    with pytest.raises(ConfigError, match=message):
        load_source(source or str(file), overrides, None, like)
