"""keras-hub's image converters: what is read of them, what is told, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints import archives
from tests.checkpoints.test_keras_hub import GOLDEN, changed, refused
from vit_deploy import checkpoints
from vit_deploy.checkpoints.keras.image_converter import preprocess_of, supposed_of
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.images import load_image
from vit_deploy.core.preprocess import Interpolation, Preprocess
from vit_deploy.errors import CheckpointError

WIDE, SQUARE = (24, 32), (24, 24)
STATED = {"mean": [0.1, 0.2, 0.3], "std": [0.5], "resize": None, "crop": False}
ANTIALIAS = {"antialias": True, "crop_to_aspect_ratio": False}

needs_keras_hub = pytest.mark.skipif(importlib.util.find_spec("keras_hub") is None, reason="needs keras-hub")


def config_of(size: tuple[int, int]) -> ViTConfig:
    return ViTConfig(
        image_size=size, patch_size=(8, 4), embed_dim=8, num_heads=2, num_layers=1, mlp_dim=8, num_classes=2
    )


def converter(name: str = "keras_hub>ViTImageConverter", **fields: Any) -> dict[str, Any]:
    return {"registered_name": name, "config": {"name": "a", "image_size": [*WIDE], "scale": 1 / 255, **fields}}


def read(size: tuple[int, int] = WIDE, **fields: Any) -> Preprocess:
    found = preprocess_of(converter(**fields), config_of(size))
    assert found is not None
    return found


def told(**fields: Any) -> list[str]:
    return [assumption.why for assumption in supposed_of(converter(**fields), WIDE)]


def test_a_crop_for_an_input_that_is_not_square_covers_it_and_distorts_nothing() -> None:
    found = read(crop_to_aspect_ratio=True)
    assert (found.resize, found.crop, found.keep_aspect) == (WIDE, True, True)
    square = read(SQUARE, image_size=[*SQUARE])  # which is also what keras-hub does where the file is silent
    assert (square.resize, square.crop, square.keep_aspect) == (24, True, False)
    assert read(crop_to_aspect_ratio=False).resize is None
    assert read(image_size=None, crop_to_aspect_ratio=True).crop is False


def test_filters_are_read_by_the_names_of_keras() -> None:
    assert read(interpolation="lanczos3").interpolation is Interpolation.LANCZOS
    assert read(interpolation="bicubic").interpolation is Interpolation.BICUBIC
    assert read().interpolation is Interpolation.BILINEAR


def test_fields_of_earlier_versions_are_read() -> None:
    fields = {"height": 24, "width": 32, "scale": 1 / 255, "mean": [0.1, 0.2, 0.3], "variance": [0.25, 0.25, 0.04]}
    document = {"registered_name": "keras_hub>ImageConverter", "config": {**fields, "crop_to_aspect_ratio": False}}
    found = preprocess_of(document, config_of(WIDE))
    assert found is not None
    assert np.allclose(found.mean, (0.1, 0.2, 0.3))
    assert np.allclose(found.std, (0.5, 0.5, 0.2))


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "padding": ({"pad_to_aspect_ratio": True, "crop_to_aspect_ratio": False}, "pad_to_aspect_ratio True"),
    "a filter of its own": ({"interpolation": "lanczos5"}, "interpolation 'lanczos5'"),
    "a field of a later version": ({"rotate": 90}, "rotate 90"),
    "half of an earlier pair": ({"mean": [0.5] * 3}, "mean [0.5, 0.5, 0.5]"),
    "both": ({"pad_to_aspect_ratio": True, "interpolation": "area"}, "pad_to_aspect_ratio True, interpolation 'area'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_preprocessing_does_is_refused_by_its_name(name: str) -> None:
    fields, part = REFUSED[name]
    with pytest.raises(CheckpointError) as caught:
        read(**fields)
    assert caught.value.message == f"its image converter says {part}, which no preprocessing here does"
    assert "--config" in caught.value.fix


@pytest.mark.parametrize("scale", (0, -1.0, [1.0, 0.0, 1.0], "a", [1.0, 2.0]))
def test_numbers_that_no_normalization_has_are_one_error(scale: Any) -> None:
    with pytest.raises(CheckpointError, match="its image converter"):
        read(scale=scale)


def test_padding_without_a_size_does_nothing() -> None:
    assert read(image_size=None, pad_to_aspect_ratio=True, crop_to_aspect_ratio=False).resize is None


def test_what_is_unlike_the_converter_is_told() -> None:
    assert told(**ANTIALIAS) == []
    assert told(antialias=False, crop_to_aspect_ratio=False, interpolation="nearest") == []
    assert told(image_size=None) == []
    (without,) = told(antialias=False, crop_to_aspect_ratio=False)
    assert without == (
        "its image converter shrinks images without antialias, which Pillow's filters have; images of 24x32 are left "
        "as they are by both"
    )
    (cut,) = told(antialias=True, crop_to_aspect_ratio=True)
    assert "cuts their middle out before it resizes them" in cut
    (other,) = told(image_size=[48, 32], **ANTIALIAS)
    assert "makes images of 48x32, and the model takes 24x32" in other
    (unknown,) = told(name="mine>Converter", **ANTIALIAS)
    assert "mine>Converter is none of keras-hub's image converters" in unknown


def with_padding(document: dict[str, Any]) -> None:
    values = document["config"]["preprocessor"]["config"]["image_converter"]["config"]
    values |= {"pad_to_aspect_ratio": True, "crop_to_aspect_ratio": False}


def test_a_file_whose_images_are_padded_is_refused_unless_the_user_says_all_of_it(tmp_path: Path) -> None:
    whole = json.loads((GOLDEN / "vit_classifier_preset" / "task.json").read_text())
    with_padding(whole)
    file = changed(tmp_path, "vit_classifier", head={"preprocessor": whole["config"]["preprocessor"]})
    folder = tmp_path / "preset"
    shutil.copytree(GOLDEN / "vit_classifier_preset", folder)
    (folder / "task.json").write_text(json.dumps(whole))
    for path in (file, folder):
        assert "its image converter says pad_to_aspect_ratio True" in refused(path).message
        found = checkpoints.load(path, config={"preprocess": STATED})
        assert found.preprocess == Preprocess((0.1, 0.2, 0.3), (0.5,) * 3)
        assert "image converter" not in checkpoints.assumptions(found)


def test_a_tower_whose_images_are_padded_is_refused_too(tmp_path: Path) -> None:
    folder = tmp_path / "preset"
    folder.mkdir()
    data = archives.members((GOLDEN / "dinov3.keras").read_bytes())
    (folder / "config.json").write_bytes(data["config.json"])
    (folder / "model.weights.h5").write_bytes(data["model.weights.h5"])
    fields = {"image_size": [14, 24], "pad_to_aspect_ratio": True, "crop_to_aspect_ratio": False}
    (folder / "image_converter.json").write_text(json.dumps(converter("keras_hub>DINOV3ImageConverter", **fields)))
    assert "its image converter says pad_to_aspect_ratio True" in refused(folder).message
    fields["pad_to_aspect_ratio"] = False
    (folder / "image_converter.json").write_text(json.dumps(converter("keras_hub>DINOV3ImageConverter", **fields)))
    found = checkpoints.load(folder)
    assert "shrinks images without antialias" in checkpoints.assumptions(found)
    assert found.preprocess.input_size == (14, 24)


@pytest.mark.peers
@needs_keras_hub
@pytest.mark.parametrize("filter", ("nearest", "bilinear", "bicubic", "lanczos3"))
@pytest.mark.parametrize("crop", (True, False))
@pytest.mark.parametrize("size", (WIDE, SQUARE))
def test_pixels_are_those_of_keras_hub(tmp_path: Path, size: tuple[int, int], crop: bool, filter: str) -> None:
    from PIL import Image

    from tests.peers.keras_hub_models import converted

    smooth = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    image = Image.fromarray(smooth).resize((160, 96), Image.Resampling.BICUBIC)
    image.save(tmp_path / "a.png")
    document, expected = converted(
        np.asarray(image), image_size=size, crop_to_aspect_ratio=crop, interpolation=filter, antialias=True
    )

    preprocess = preprocess_of(document, config_of(size))
    assert preprocess is not None
    found = load_image(tmp_path / "a.png", preprocess, size)

    levels = np.abs(found - expected) / (1 / 64)  # of a byte, which both round to
    assert levels.mean() < 0.5
    assert levels[2:-2, 2:-2].max() <= 2  # at the edges of a cut its neighbours count here, and not there
