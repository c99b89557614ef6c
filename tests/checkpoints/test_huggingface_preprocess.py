"""What an image processor of transformers is told, and what it makes of an image."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.peers.make_huggingface_golden import EXPECTED, PROCESSORS, TARGET
from vit_deploy.checkpoints import load
from vit_deploy.checkpoints.huggingface.preprocess import PROCESSORS as DEFAULTS
from vit_deploy.checkpoints.huggingface.preprocess import preprocess_of, settings_in
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.images import load_image
from vit_deploy.core.preprocess import Interpolation, Preprocess
from vit_deploy.errors import VitDeployError

OBLONG = ViTConfig(image_size=(32, 48), patch_size=(16, 16))
SQUARE = ViTConfig(image_size=(224, 224))


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_photo_becomes_what_the_processor_makes_of_it(name: str, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    checkpoint = load(TARGET / name)
    with np.load(TARGET / name / EXPECTED) as expected:
        image.fromarray(expected["photo"]).save(tmp_path / "photo.png")
        ours = load_image(tmp_path / "photo.png", checkpoint.preprocess, checkpoint.config.image_size)
        np.testing.assert_allclose(ours, expected["processed"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("processor", "expected"),
    [
        ("ViT", Preprocess(interpolation=Interpolation.BILINEAR)),
        ("DeiT", Preprocess(resize=(256, 256), crop=True, interpolation=Interpolation.BICUBIC)),
        ("Siglip", Preprocess(interpolation=Interpolation.BICUBIC)),
        (
            "CLIP",
            Preprocess(
                (0.48145466, 0.4578275, 0.40821073),
                (0.26862954, 0.26130258, 0.27577711),
                resize=224,
                crop=True,
                interpolation=Interpolation.BICUBIC,
            ),
        ),
    ],
)
def test_without_a_file_it_is_the_familys_own(processor: str, expected: Preprocess) -> None:
    assert preprocess_of({}, processor, SQUARE) == expected


@pytest.mark.parametrize(
    ("settings", "resize", "crop"),
    [
        ({"size": {"height": 32, "width": 48}}, None, False),
        ({"size": [32, 48]}, None, False),
        ({"size": 40}, None, False),  # transformers would refuse what it makes; the model's own size is meant
        ({"size": {"shortest_edge": 40}}, 40, False),
        ({"size": {"shortest_edge": 40, "height": None, "width": None}}, 40, False),
        ({"size": 40, "do_center_crop": True, "crop_size": {"height": 32, "width": 48}}, (40, 40), True),
        ({"size": {"shortest_edge": 64}, "do_center_crop": True, "crop_size": {"height": 64, "width": 96}}, 32, True),
        ({"size": {"height": 40, "width": 60}}, None, False),  # with pixels that no patch of 16 reads
        ({"do_resize": False, "size": 10}, None, False),
        (
            {"feature_extractor_type": "CLIPFeatureExtractor", "size": 40, "crop_size": [32, 48]},
            40,
            True,
        ),
        ({"feature_extractor_type": "ViTFeatureExtractor", "size": 40}, None, False),
        ({"image_processor_type": "BitImageProcessorFast", "crop_size": [32, 48]}, 224, True),
        ({"image_processor_type": "SomeImageProcessor", "size": {"shortest_edge": 9}}, 9, False),
    ],
)
def test_sizes_are_read_as_the_processor_reads_them(settings: Mapping[str, Any], resize: object, crop: bool) -> None:
    found = preprocess_of(settings, "ViT", OBLONG)
    assert (found.resize, found.crop) == (resize, crop)


@pytest.mark.parametrize(
    ("settings", "scale", "offset"),
    [
        ({}, 1 / 127.5, -1),
        ({"rescale_factor": 0.00392156862745098}, 1 / 127.5, -1),
        ({"do_normalize": False}, 1 / 255, 0),
        ({"do_normalize": False, "do_rescale": False}, 1, 0),
        ({"do_rescale": False, "image_mean": [100.0] * 3, "image_std": [50.0] * 3}, 1 / 50, -2),
        ({"rescale_factor": 1 / 127.5, "image_mean": 1.0, "image_std": 2.0}, 1 / 255, -0.5),
        ({"image_mean": [0.0], "image_std": [0.5]}, 1 / 127.5, 0),
    ],
)
def test_pixels_are_scaled_as_the_processor_scales_them(
    settings: Mapping[str, Any], scale: float, offset: float
) -> None:
    found = preprocess_of(settings, "ViT", OBLONG)
    pixels = np.array([[[[0, 100, 255]]]], np.uint8)
    np.testing.assert_allclose(found.normalize(pixels)[0, 0, 0], np.array([0, 100, 255]) * scale + offset, atol=1e-5)


@pytest.mark.parametrize("code", range(4))
def test_filters_have_pillows_numbers(code: int) -> None:
    resampling = pytest.importorskip("PIL.Image").Resampling
    found = preprocess_of({"resample": code}, "ViT", OBLONG).interpolation
    assert resampling[found.name] == code


@pytest.mark.parametrize(
    "settings",
    [
        {"resample": 4},
        {"resample": "bicubic"},
        {"resample": True},
        {"size": {"longest_edge": 40}},
        {"size": {"shortest_edge": 40, "longest_edge": 50}},
        {"size": {"shortest_edge": "40"}},
        {"size": {"height": 40}},
        {"size": "large"},
        {"size": None},
        {"size": -3},
        {"do_center_crop": True, "crop_size": {"shortest_edge": 40}},
        {"do_center_crop": True},
        {"do_center_crop": True, "crop_size": 32, "do_resize": False},
        {"image_mean": [0.5, 0.4]},
        {"image_mean": "half"},
        {"image_std": [0, 0, 0]},
        {"rescale_factor": 0},
        {"rescale_factor": "1/255"},
        {"image_mean": [float("nan")] * 3},
    ],
)
def test_what_cannot_be_done_is_a_clear_error(settings: Mapping[str, Any]) -> None:
    with pytest.raises(VitDeployError) as failure:
        preprocess_of(settings, "ViT", OBLONG)
    assert "preprocess" in str(failure.value)
    assert failure.value.fix


def test_other_channels_without_a_file_are_scaled_as_usual() -> None:
    assert preprocess_of({}, "CLIP", ViTConfig(channels=4)) == Preprocess.for_channels(4)


def test_the_processor_of_several_modalities_has_the_same_inside() -> None:
    inside = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 30}}
    documents = {"processor_config.json": {"processor_class": "CLIPProcessor", "image_processor": inside}}
    assert settings_in(documents) == inside
    assert settings_in({**documents, "preprocessor_config.json": {"size": 3}}) == {"size": 3}
    assert settings_in({"processor_config.json": {"image_processor": "CLIP"}}) == {}


def test_sizes_of_a_file_are_scaled_to_those_of_the_positions(tmp_path: Path) -> None:
    # As in the published DINOv2: positions for 518 pixels, images of 224 cut from 256.
    settings = {"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, **DEFAULTS["Bit"]}
    settings["size"] = {"shortest_edge": 256}
    found = preprocess_of(settings, "Bit", ViTConfig(image_size=(518, 518), patch_size=(14, 14)))
    assert (found.resize, found.crop) == (592, True)


def test_a_damaged_file_is_a_clear_error(tmp_path: Path) -> None:
    folder = shutil.copytree(TARGET / "vit-newer", tmp_path / "model")
    (folder / "preprocessor_config.json").write_text('{"size": ')
    with pytest.raises(VitDeployError, match=r"preprocessor_config\.json is not valid JSON"):
        load(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps({"resample": 9}))
    with pytest.raises(VitDeployError, match=r"preprocessor_config\.json says resample 9; expected one of 0 \(nearest"):
        load(folder)
