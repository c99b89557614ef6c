"""Image files are classified alike by every format, and broken ones are named and passed over."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vit_deploy import checkpoints
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.reference import forward
from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.publish import export
from vit_deploy.runtimes.classify import Classifier

LABELS = ("ash", "beech", "cedar", "date palm", "elm")
PREPROCESS = Preprocess((0.4, 0.5, 0.6), (0.2, 0.3, 0.25), resize=36, crop=True, interpolation="bicubic")


@pytest.fixture(scope="module")
def labelled(make_checkpoint: Any) -> Checkpoint:
    return dataclasses.replace(make_checkpoint(), labels=LABELS, preprocess=PREPROCESS)


@pytest.fixture(scope="module")
def models(labelled: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same model in every form that can be asked."""
    folder = tmp_path_factory.mktemp("models")
    jobs, _ = plan(["onnx", "tflite", "savedmodel"], ["fp32"])
    made = {
        written_there.artifact.format: written_there.artifact.directory
        for written_there in export(labelled, folder, jobs)
    }
    jobs, _ = plan(["tflite"], ["fp32"], include_preprocessing=True)
    [inside] = export(labelled, folder / "inside", jobs)
    checkpoints.save(labelled, folder / "model.safetensors")
    return made | {"pixels in": inside.artifact.directory, "safetensors": folder / "model.safetensors"}


def colours(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[0:height, 0:width]
    bands = [255 * rows / height, 255 * columns / width, 255 * (rows + columns) / (height + width)]
    return np.stack(bands, axis=-1).astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One picture in all the ways in which people have one."""
    folder = tmp_path_factory.mktemp("photos")
    upright = Image.fromarray(colours(48, 70))
    upright.save(folder / "a.png")
    turned = upright.transpose(Image.Transpose.ROTATE_90)  # a camera held on its side, and EXIF says so
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    turned.save(folder / "b-exif.png", exif=exif)
    upright.convert("RGBA").save(folder / "c-alpha.png")
    upright.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "d-palette.png")
    upright.convert("L").save(folder / "e-gray.png")
    upright.convert("CMYK").save(folder / "f-cmyk.tif")
    sixteen = np.asarray(upright.convert("L"), np.uint16) * 257
    Image.fromarray(sixteen).save(folder / "g-16bit.png")
    return folder


def test_every_format_gives_the_answer_of_the_reference(
    run: Any, models: dict[str, Path], photos: Path, labelled: Checkpoint
) -> None:
    upright = Image.fromarray(colours(48, 70)).resize((52, 36), Image.Resampling.BICUBIC).crop((10, 6, 42, 30))
    logits = forward(labelled, labelled.preprocess.normalize(np.asarray(upright)[None]))[0]
    shares = np.exp(logits) / np.exp(logits).sum()
    for name, path in models.items():
        said = run("predict", path, photos / "a.png", "--json")
        assert said.code == 0, (name, said.err)
        [result] = said.document["results"]
        assert [row["class"] for row in result["top"]] == [int(place) for place in np.argsort(-logits)], name
        assert [row["label"] for row in result["top"]] == [LABELS[row["class"]] for row in result["top"]]
        found = {row["class"]: row["probability"] for row in result["top"]}
        np.testing.assert_allclose([found[index] for index in range(5)], shares, atol=1e-4)


def test_every_kind_of_image_is_read_as_what_is_seen(run: Any, models: dict[str, Path], photos: Path) -> None:
    results = run("predict", models["safetensors"], photos, "--json").document["results"]
    logits = {
        Path(result["image"]).stem: np.array(
            [seen["logit"] for seen in sorted(result["top"], key=lambda one: one["class"])]
        )
        for result in results
    }
    assert [*logits] == ["a", "b-exif", "c-alpha", "d-palette", "e-gray", "f-cmyk", "g-16bit"]
    spread = np.ptp(logits["a"])
    for name in ("b-exif", "c-alpha"):
        np.testing.assert_allclose(logits[name], logits["a"], atol=1e-5 * spread, err_msg=name)
    np.testing.assert_allclose(logits["g-16bit"], logits["e-gray"], atol=1e-5 * spread)
    for name in ("d-palette", "f-cmyk"):
        assert np.abs(logits[name] - logits["a"]).max() < 0.1 * spread, name
    assert np.abs(logits["e-gray"] - logits["a"]).max() > 0.01 * spread


def test_broken_images_are_named_and_the_others_answered(
    run: Any, models: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "half.png").write_bytes((photos / "a.png").read_bytes()[:200])
    files = [tmp_path / "text.png", photos / "a.png", tmp_path / "half.png", tmp_path / "missing.png"]
    said = run("predict", models["onnx"], *files, "--top", 2, "--json")
    assert said.code == 1
    results = said.document["results"]
    assert [len(result["top"]) for result in results] == [0, 2, 0, 0]
    for path, found_there in zip(files, results, strict=True):
        assert found_there["image"] == str(path)
        assert bool(found_there["failures"]) == (path != photos / "a.png")
    for name in ("text.png", "half.png", "missing.png"):
        assert name in said.err


def test_the_table_shows_labels_and_shares(run: Any, models: dict[str, Path], photos: Path) -> None:
    said = run("predict", models["onnx"], photos / "a.png", "--top", 1)
    assert said.code == 0
    assert any(label in said.out for label in LABELS)
    assert "%" in said.out


def test_a_model_without_a_head_and_a_folder_without_images_are_refused(
    run: Any, make_checkpoint: Any, models: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    checkpoints.save(make_checkpoint(include_top=False), tmp_path / "features.safetensors")
    said = run("predict", tmp_path / "features.safetensors", photos / "a.png")
    assert said.code == 2
    assert "has no head: it gives features, no classes" in said.err
    (tmp_path / "empty").mkdir()
    said = run("predict", models["onnx"], tmp_path / "empty", "--json")
    assert said.code == 2
    assert "holds no images" in json.loads(said.out)["error"]["message"]
    said = run("predict", models["onnx"], photos / "a.png", "--runtime", "litert")
    assert said.code == 2
    assert "litert does not run" in said.err


def test_folders_hold_files_of_any_name_and_broken_ones_are_named_however_quiet(
    models: dict[str, Path], labelled: Checkpoint, photos: Path, tmp_path: Path
) -> None:
    odd = dataclasses.replace(labelled, labels=("\x1b[31mred", *LABELS[1:]))
    checkpoints.save(odd, tmp_path / "odd.safetensors")
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in (b"\xff\xfe.png", "ü [red]x[/red].png".replace("/", "").encode()):
        (folder / os.fsdecode(name)).write_bytes((photos / "a.png").read_bytes())
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    (folder / "._hidden.jpg").write_bytes(b"of macOS")
    command = [sys.executable, "-m", "vit_deploy", "predict", tmp_path / "odd.safetensors", folder, "-q"]
    for encoding in ("utf-8:strict", "ascii:strict"):
        done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
        out, err = done.stdout.decode(), done.stderr.decode()
        assert done.returncode == 1 and "Traceback" not in err
        assert err.count("skipped: ") == 1 and "bad.jpg is no image" in err
        assert "\\udcff\\udcfe.png" in out and "[red]x[red].png" in out
        assert "\x1b" not in out and "\\x1b[31mred" in out


def test_what_is_no_model_to_predict_with_says_what_to_give(run: Any, models: dict[str, Path], photos: Path) -> None:
    for path in (models["onnx"] / "model.onnx", models["savedmodel"] / "saved_model"):
        said = run("predict", path, photos / "a.png")
        assert said.code == 2
        assert f"{path} is the model alone, of an artifact\n  fix: give the artifact, {path.parent}" in said.err
    said = run("predict", "tiny", photos / "a.png")
    assert said.code == 2
    assert (
        "there is no file tiny, and no scale is taken here\n  fix: make a file of it: vit-deploy build tiny" in said.err
    )


def test_nothing_but_paths_that_do_not_exist_is_bad_input(run: Any, models: dict[str, Path], tmp_path: Path) -> None:
    absent = [tmp_path / "one.png", tmp_path / "two.png"]
    result = run("predict", models["onnx"], *absent, "--json")
    assert result.code == 2 and result.document["results"] == []
    assert result.document["error"]["type"] == "DataError" and "two.png" in result.document["error"]["message"]


def test_classes_that_exclude_no_other_have_the_probability_of_a_sigmoid(checkpoint, tmp_path):
    several = dataclasses.replace(checkpoint, config=checkpoint.config.replace(probabilities="sigmoid"))
    classifier = Classifier(several.config, several.preprocess, (), False, lambda images: images, "numpy")
    first, second = classifier.top(np.array([0.0, 2.0, -1000.0]), 2)
    assert (first.index, second.index, second.probability) == (1, 0, 0.5)
    assert first.probability == pytest.approx(1 / (1 + np.exp(-2.0)))
