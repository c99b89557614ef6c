"""Image processors of transformers: each is read exactly, refused, or told to be unfamiliar."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.huggingface_folders import changed
from tests.peers import huggingface_models
from vit_deploy.checkpoints import assumptions, load
from vit_deploy.checkpoints.huggingface.preprocess import PROCESSORS, preprocess_of, supposed_of
from vit_deploy.checkpoints.huggingface.processors import OF_ANY_SIZE
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.images import load_image
from vit_deploy.errors import CheckpointError

OBLONG = ViTConfig(image_size=(32, 48), patch_size=(16, 16))
SQUARE = ViTConfig(image_size=(32, 32), patch_size=(16, 16))


@pytest.mark.parametrize(
    "field",
    [
        {"keep_aspect_ratio": True},
        {"ensure_multiple_of": 32},
        {"crop_pct": 0.9},
        {"antialias": False},
        {"rescale_offset": True},
        {"offset": True},
        {"do_pad": True},
        {"size_divisor": 32},
        {"do_flip_channel_order": True},
        {"some_new_option": 3},
    ],
)
def test_a_field_that_changes_pixels_and_is_not_known_is_refused(field: Mapping[str, Any]) -> None:
    with pytest.raises(CheckpointError) as failure:
        preprocess_of({"image_processor_type": "SomeImageProcessor", **field}, "ViT", OBLONG)
    (name,) = field
    assert f"preprocessor_config.json says {name} " in failure.value.message
    assert "--config" in failure.value.fix


@pytest.mark.parametrize(
    "field",
    [
        {"do_pad": False},
        {"keep_aspect_ratio": False, "ensure_multiple_of": 1},
        {"do_convert_rgb": True},
        {"antialias": True},
    ],
)
def test_a_field_that_is_off_changes_nothing(field: Mapping[str, Any]) -> None:
    assert preprocess_of(field, "ViT", OBLONG) == preprocess_of({}, "ViT", OBLONG)


@pytest.mark.parametrize("word", ["Levit", "Perceiver"])
def test_a_processor_whose_fields_mean_something_else_is_refused(word: str) -> None:
    with pytest.raises(CheckpointError, match=f"{word}ImageProcessor, which "):
        preprocess_of({"image_processor_type": f"{word}ImageProcessor"}, "ViT", OBLONG)


def test_an_unfamiliar_processor_is_an_assumption(tmp_path: Path) -> None:
    folder = changed(tmp_path, "vit")
    settings = {"image_processor_type": "SomeImageProcessor", "size": {"height": 16, "width": 24}}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    said = assumptions(load(folder))
    assert "assumed: preprocess SomeImageProcessor, for SomeImageProcessor is none of the image processors" in said


def test_the_whole_preprocessing_stated_stands_in_for_a_processor_that_is_refused(tmp_path: Path) -> None:
    folder = changed(tmp_path, "vit")
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_pad": True}))
    with pytest.raises(CheckpointError, match="do_pad True"):
        load(folder, config={"preprocess": {"mean": 0.5}})
    stated = {"mean": 0.5, "std": 0.25, "resize": 30, "crop": True}
    found = load(folder, config={"preprocess": stated}).preprocess
    assert (found.resize, found.crop, found.std) == (30, True, (0.25, 0.25, 0.25))


def test_convnext_cuts_small_images_and_stretches_large_ones() -> None:
    small = {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}, "crop_pct": 0.8}
    found = preprocess_of(small, "ViT", SQUARE)
    assert (found.resize, found.crop) == (40, True)
    large = preprocess_of({**small, "size": {"shortest_edge": 384}}, "ViT", ViTConfig(image_size=(384, 384)))
    assert (large.resize, large.crop) == (None, False)
    with pytest.raises(CheckpointError, match="crop_pct is 0; expected a part of 1"):
        preprocess_of({**small, "crop_pct": 0}, "ViT", SQUARE)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"include_top": False}, lambda byte: (byte / 255 - 0.4) / 0.5),
        ({}, lambda byte: (byte / 255 - 0.4) / 0.25),
        ({"rescale_offset": True, "rescale_factor": 1 / 127.5}, lambda byte: (byte / 127.5 - 1 - 0.4) / 0.25),
        ({"do_normalize": False}, lambda byte: byte / 255 / 0.5),
        ({"do_normalize": False, "include_top": False, "rescale_offset": True}, lambda byte: byte / 255 - 1),
        ({"do_rescale": False, "rescale_offset": True, "include_top": False}, lambda byte: (byte - 0.4) / 0.5),
    ],
)
def test_efficientnets_offset_and_its_second_division_are_one_normalization(
    settings: Mapping[str, Any], expected: Any
) -> None:
    named = {"image_processor_type": "EfficientNetImageProcessor", "image_mean": [0.4] * 3, "image_std": [0.5] * 3}
    found = preprocess_of({**named, **settings}, "ViT", SQUARE)
    pixels = np.array([[[[0, 100, 255]]]], np.uint8)
    np.testing.assert_allclose(found.normalize(pixels)[0, 0, 0], expected(pixels[0, 0, 0].astype(float)), rtol=1e-5)


def processors() -> list[str]:
    if not huggingface_models.installed():
        return []
    library = huggingface_models.library()
    return sorted(name for name in dir(library) if name.endswith("ImageProcessorPil"))


@pytest.mark.peers
@pytest.mark.skipif(not huggingface_models.installed(), reason="needs torch and transformers")
@pytest.mark.slow  # it makes every processor of the library
def test_no_processor_of_transformers_is_read_wrong_without_a_word(tmp_path: Path) -> None:
    from PIL import Image

    library = huggingface_models.library()
    rng = np.random.default_rng(3)
    photo = Image.fromarray(rng.integers(0, 256, (7, 7, 3), np.uint8)).resize((71, 71), Image.Resampling.BICUBIC)
    photo.save(tmp_path / "photo.png")
    exact, refused, wrong = [], [], []
    for name in processors():
        try:
            processor = getattr(library, name)()
            made = np.asarray(processor(photo, return_tensors="np")["pixel_values"])
        except (ValueError, TypeError, LookupError, AttributeError, ImportError):  # wants more than an image
            continue
        settings = json.loads(processor.to_json_string())
        shape = made.shape[-2:] if made.ndim == 4 and made.shape[1] == 3 else (32, 32)
        config = ViTConfig(image_size=shape, patch_size=shape)
        try:
            preprocess = preprocess_of(settings, "ViT", config)
        except CheckpointError:
            refused.append(name)
            continue
        if made.ndim == 4 and made.shape[1] == 3:
            ours = load_image(tmp_path / "photo.png", preprocess, config.image_size)
            close = np.abs(ours - made[0].transpose(1, 2, 0)).max() < 1e-5
        else:
            close = False
        if close:
            exact.append(name)
        elif not supposed_of(settings):
            wrong.append(name)
    assert not wrong
    ours = {f"{word}ImageProcessorPil" for word in PROCESSORS}
    absent = {
        "DINOv3ViTImageProcessorPil",
        "Tipsv2ImageProcessorPil",
    }  # the library has one for torchvision, and no other
    assert ours - set(processors()) == absent
    of_any_size = {f"{word}ImageProcessorPil" for word in OF_ANY_SIZE}  # which stretch images here, and say so
    assert ours & set(processors()) <= {*exact, *of_any_size}
    assert len(refused) >= 5
