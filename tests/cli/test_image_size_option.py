"""Commands that run images take files for several sizes, or for any, at the size that they are told."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vit_deploy
from tests.exporters.variants import trained
from vit_deploy.checkpoints import save
from vit_deploy.cli import run as command
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import ConfigError

pytestmark = pytest.mark.slow
SIZE, TEXT = (48, 32), "48x32"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """A model that crops; its files for any size and for two, that for the second size alone; and images."""
    folder = tmp_path_factory.mktemp("sizes")
    plain = trained(pooling="mean")
    preprocess = dataclasses.replace(plain.preprocess, resize=36, crop=True)
    checkpoint = dataclasses.replace(plain, preprocess=preprocess, labels=tuple("abcde"))
    save(checkpoint, folder / "model.safetensors")
    vit_deploy.resize(folder / "model.safetensors", folder / "resized.safetensors", image_size=SIZE)
    model = folder / "model.safetensors"
    options: dict[str, Any] = {"formats": "onnx"}
    vit_deploy.export(model, folder / "any", image_size="dynamic", **options)
    vit_deploy.export(folder / "resized.safetensors", folder / "fixed", **options)
    vit_deploy.export(model, folder / "two", formats="tflite", image_size=[(24, 32), SIZE])
    rng = np.random.default_rng(3)
    for label in "abcde":
        (folder / "photos" / label).mkdir(parents=True)
        for number in range(3):
            coarse = Image.fromarray(rng.integers(0, 256, (5, 7, 3), np.uint8))
            coarse.resize((70, 50 + 9 * number)).save(folder / "photos" / label / f"{number}.png")
    return SimpleNamespace(
        folder=folder,
        resized=folder / "resized.safetensors",
        fixed=folder / "fixed" / "onnx-fp32",
        any=folder / "any" / "onnx-fp32",
        two=folder / "two" / "tflite-fp32",
        photos=folder / "photos",
    )


@pytest.mark.parametrize("file", ["any", "two"])
def test_predict_sees_what_the_resized_checkpoint_sees(made: SimpleNamespace, file: str) -> None:
    given = getattr(made, file)
    expected = vit_deploy.predict(made.resized, made.photos, top=5)
    own = vit_deploy.predict(given, made.photos, top=5)
    found = vit_deploy.predict(given, made.photos, top=5, image_size=SIZE)

    def probabilities(outcome: Any) -> np.ndarray:
        rows = [{seen.label: seen.probability for seen in one.top} for one in outcome.results]
        return np.array([[row[label] for label in "abcde"] for row in rows])

    assert np.abs(probabilities(found) - probabilities(expected)).max() < 1e-5
    assert np.abs(probabilities(own) - probabilities(expected)).max() > 1e-3


def test_evaluate_counts_what_files_for_that_size_alone_count(made: SimpleNamespace) -> None:
    found = vit_deploy.evaluate([made.fixed, made.any, made.two], made.photos, image_size=TEXT)

    records = found.to_dict()["results"]
    assert [record["agreement"] for record in records] == [1, 1, 1]
    assert len({record["top1"] for record in records}) == 1
    assert [record.get("image_size") for record in records] == [None, TEXT, TEXT]
    (own,) = vit_deploy.evaluate([made.any], made.photos).to_dict()["results"]
    assert "image_size" not in own


@pytest.mark.parametrize("file", ["any", "two"])
def test_embed_writes_what_the_file_for_that_size_alone_gives(made: SimpleNamespace, file: str, tmp_path: Path) -> None:
    rows = []
    for name, given, size in (("one", made.fixed, {}), ("other", getattr(made, file), {"image_size": SIZE})):
        done = vit_deploy.embed(given, made.photos, tmp_path / f"{name}.npy", workers=0, **size)
        rows.append(np.load(tmp_path / f"{name}.npy"))
        assert done.to_dict()["results"][0].get("image_size") == (TEXT if size else None)

    np.testing.assert_allclose(rows[1], rows[0], atol=2e-5)


def test_features_are_evaluated_at_that_size_too(tmp_path: Path, made: SimpleNamespace) -> None:
    save(trained(include_top=False, pooling="cls"), tmp_path / "bare.safetensors")
    vit_deploy.resize(tmp_path / "bare.safetensors", tmp_path / "resized.safetensors", image_size=SIZE)
    vit_deploy.export(tmp_path / "resized.safetensors", tmp_path / "fixed", formats="onnx")
    vit_deploy.export(tmp_path / "bare.safetensors", tmp_path / "any", formats="onnx", image_size="dynamic")
    both = [tmp_path / "fixed" / "onnx-fp32", tmp_path / "any" / "onnx-fp32"]

    records = vit_deploy.evaluate(both, made.photos, image_size=SIZE).to_dict()["results"]
    assert records[1]["image_size"] == TEXT
    assert records[1]["features"]["shared_neighbours"] == 1


@pytest.mark.parametrize("name", ["evaluate", "predict", "embed"])
def test_the_commands_take_the_option(
    name: str, made: SimpleNamespace, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = {
        "evaluate": [str(made.any), "--data", str(made.photos)],
        "predict": [str(made.any), str(made.photos)],
        "embed": [str(made.any), "--data", str(made.photos), "-o", str(tmp_path / "rows.npy"), "--workers", "0"],
    }[name]
    assert command([name, *arguments, "--image-size", TEXT, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["ok"]
    assert command([name, *arguments, "--image-size", "48x30", "--json", *(["--force"] * (name == "embed"))]) == 2
    assert "width 30 is not a multiple of 4" in json.loads(capfd.readouterr().out)["error"]["message"]
    arguments[0] = str(made.fixed)
    assert command([name, *arguments, "--image-size", "24x32", "--json", *(["--force"] * (name == "embed"))]) == 2
    said = json.loads(capfd.readouterr().out)["error"]["message"]
    assert "is for images of 48x32 pixels (height x width), not of 24x32" in said


def test_a_checkpoint_and_a_size_that_is_none_are_refused(made: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match="is a checkpoint, which is for images of one size"):
        vit_deploy.predict(made.resized, made.photos, image_size=SIZE)
    with pytest.raises(ConfigError, match="image_size is 'big'; expected pixels as 224 or 384x512"):
        vit_deploy.evaluate(made.any, made.photos, image_size="big")


def test_work_on_another_node_keeps_the_size(made: SimpleNamespace) -> None:
    from vit_deploy.core.options import PredictOptions
    from vit_deploy.data.answering import images_of
    from vit_deploy.data.shipping import ship
    from vit_deploy.data.spreading import Predicting

    taken = read_artifact(made.any).at(SIZE)
    source = images_of([str(made.photos)], None)
    work = Predicting((taken,), ("onnxruntime",), PredictOptions().engine, 5)
    moved = dataclasses.replace(taken, directory=Path("/nowhere/else"))
    shipment = dataclasses.replace(ship(work, source), work=dataclasses.replace(work, artifacts=(moved,)))
    with shipment.open() as answer:
        items = list(source.items(0))
        (first, *_) = answer(pickle.dumps(items), 0, len(items))

    (expected, *_) = vit_deploy.predict(made.any, made.photos, top=5, image_size=SIZE).results
    assert [seen.label for seen in first.top] == [seen.label for seen in expected.top]
    assert max(abs(a.logit - b.logit) for a, b in zip(first.top, expected.top, strict=True)) < 1e-4
