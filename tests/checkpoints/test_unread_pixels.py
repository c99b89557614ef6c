"""Images that the patches do not divide: a convolution reads them from the top left, and so does what is recorded."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.huggingface_folders import changed
from tests.checkpoints.state_dicts import read, write
from tests.peers import huggingface_models, timm_families
from vit_deploy.checkpoints import load
from vit_deploy.checkpoints.huggingface.preprocess import preprocess_of
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.images import load_image, load_pixels
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.reference import forward
from vit_deploy.core.resize import resize, resized_preprocess
from vit_deploy.errors import CheckpointError, ConfigError

GOLDEN = Path(timm_families.__file__).parent / "golden"
LIMIT = 1e-5  # of the largest logit


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(4).integers(0, 256, (61, 83, 3), np.uint8)
    image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def timm_folder(folder: Path, **pretrained_cfg: Any) -> Path:
    """A golden model for images of 27x35, of which its patches of 8x4 read 24x32."""
    copied = shutil.copytree(GOLDEN / "timm" / "plain", folder / "plain")
    document = json.loads((copied / "config.json").read_text())
    document["model_args"]["img_size"] = [27, 35]
    document["pretrained_cfg"] |= pretrained_cfg
    (copied / "config.json").write_text(json.dumps(document))
    return copied


def test_the_top_left_of_what_resize_and_crop_make_is_read(photo: Path) -> None:
    cropping = Preprocess(resize=30, crop=True)
    whole = load_pixels(photo, cropping, (27, 27))
    found = load_pixels(photo, dataclasses.replace(cropping, input_size=(27, 27)), (24, 20))
    np.testing.assert_array_equal(found, whole[:24, :20])
    stretched = load_pixels(photo, Preprocess(input_size=(27, 35)), (24, 32))
    np.testing.assert_array_equal(stretched, load_pixels(photo, Preprocess(), (27, 35))[:24, :32])


def test_timm_scales_and_crops_the_size_that_is_said(tmp_path: Path) -> None:
    found = load(timm_folder(tmp_path, crop_pct=0.9, crop_mode="center"))
    assert found.config.image_size == (24, 32)
    assert (found.preprocess.input_size, found.preprocess.resize) == ((27, 35), (30, 38))
    squashed = load(timm_folder(tmp_path / "squashed", crop_pct=1.0, crop_mode="squash")).preprocess
    assert (squashed.input_size, squashed.resize, squashed.crop) == ((27, 35), None, False)


@pytest.mark.parametrize(
    ("settings", "resize_to", "crop", "input_size"),
    [
        ({}, None, False, (35, 50)),
        ({"size": {"height": 35, "width": 50}}, None, False, (35, 50)),
        ({"size": {"height": 33, "width": 48}}, None, False, (33, 48)),  # the processor decides what comes in
        ({"size": {"height": 32, "width": 48}}, None, False, None),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": [35, 50]}, 40, True, (35, 50)),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": [32, 48]}, 40, True, None),
        ({"size": {"shortest_edge": 80}, "do_center_crop": True, "crop_size": [70, 100]}, 40, True, (35, 50)),
    ],
)
def test_a_processors_sizes_are_those_of_the_whole_image(
    settings: dict[str, Any], resize_to: object, crop: bool, input_size: object
) -> None:
    config = ViTConfig(image_size=(32, 48), patch_size=(16, 16))
    found = preprocess_of(settings, "ViT", config, (35, 50))
    assert (found.resize, found.crop, found.input_size) == (resize_to, crop, input_size)


def test_a_size_that_is_stated_counts_as_the_one_of_the_images(tmp_path: Path) -> None:
    tensors = read(GOLDEN / "timm" / "plain" / "model.safetensors")
    alone = write(tmp_path / "alone.safetensors", tensors)
    found = load(alone, config={"num_heads": 3, "image_size": [27, 35]})
    assert (found.config.image_size, found.preprocess.input_size) == ((24, 32), (27, 35))
    with pytest.raises((CheckpointError, ConfigError), match=r"image_size is .* by its weights and \[48, 32\]"):
        load(alone, config={"num_heads": 3, "image_size": [48, 35]})
    folder = changed(tmp_path, "siglip-vision")
    (folder / "config.json").unlink()
    found = load(folder, config={"num_heads": 3, "image_size": 19})
    assert (found.config.image_size, found.preprocess.input_size) == ((16, 16), (19, 19))


def test_open_clip_scales_and_crops_the_size_that_is_said(tmp_path: Path) -> None:
    folder = shutil.copytree(GOLDEN / "dialects" / "open_clip", tmp_path / "open_clip")
    document = json.loads((folder / "open_clip_config.json").read_text())
    document["model_cfg"]["vision_cfg"]["image_size"] = [19, 29]
    (folder / "open_clip_config.json").write_text(json.dumps(document))
    found = load(folder)
    assert found.config.image_size == (16, 24)
    assert (found.preprocess.resize, found.preprocess.input_size) == ((19, 29), (19, 29))


def test_another_size_of_the_model_is_read_whole() -> None:
    found = resized_preprocess(Preprocess(resize=30, crop=True, input_size=(27, 27)), (24, 24), (54, 54))
    assert (found.resize, found.input_size) == (60, None)


def test_the_size_travels_with_the_preprocessing() -> None:
    made = Preprocess(input_size=(27, 35))
    assert made.to_dict()["input_size"] == [27, 35]
    assert Preprocess.from_dict(made.to_dict()) == made
    assert "input_size" not in Preprocess().to_dict()
    with pytest.raises(ConfigError, match="input_size is 27; expected"):
        Preprocess(input_size=27)  # type: ignore[arg-type]


def test_a_size_smaller_than_what_is_read_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(CheckpointError, match=r"preprocessing to \(20, 40\) pixels for images of \(24, 32\)"):
        dataclasses.replace(checkpoint, preprocess=Preprocess(input_size=(20, 40)))


@pytest.mark.peers
@pytest.mark.parametrize(("mode", "crop_pct"), [("center", 0.9), ("center", 1.0), ("squash", 0.8), ("squash", 1.0)])
@pytest.mark.parametrize("size", [[27, 35], [30, 30]])
def test_timms_own_pipeline_gives_the_same_logits(
    size: list[int], mode: str, crop_pct: float, timm: Any, photo: Path, tmp_path: Path
) -> None:
    import torch
    from PIL import Image

    from tests.peers import torchvision_transforms

    torchvision_transforms.install()
    from timm.data.transforms_factory import create_transform

    data = {"crop_pct": crop_pct, "crop_mode": mode, "interpolation": "bicubic"}
    model = timm_families.make(timm, "plain", img_size=size, pretrained_cfg_overlay={"input_size": (3, *size), **data})
    arguments = {**timm_families.SMALL, "img_size": size}
    timm.models.save_for_hf(model, tmp_path / "saved", safe_serialization=True, model_args=arguments)
    transform = create_transform(**timm.data.resolve_model_data_config(model, use_test_size=True))
    with torch.no_grad():
        theirs = model(transform(Image.open(photo))[None]).numpy()
    found = load(tmp_path / "saved")
    ours = forward(found, load_image(photo, found.preprocess, found.config.image_size)[None])
    assert found.preprocess.input_size is not None
    assert np.abs(ours - theirs).max() < LIMIT * np.abs(theirs).max()


@pytest.mark.peers
@pytest.mark.skipif(not huggingface_models.installed(), reason="needs torch and transformers")
@pytest.mark.parametrize("resized", [False, True])
def test_the_pipeline_of_transformers_gives_the_same_vector(photo: Path, tmp_path: Path, resized: bool) -> None:
    import torch
    from PIL import Image

    case = huggingface_models.CASES["siglip-rest"]
    model = huggingface_models.build(case)
    size = 24 if resized else 19
    processor = huggingface_models.library().SiglipImageProcessorPil(size={"height": size, "width": size})
    huggingface_models.save(model, case, tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    pixels = processor(Image.open(photo), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        theirs = model(pixels, interpolate_pos_encoding=resized)[case.answer].numpy()
    found = load(tmp_path / "saved")
    if resized:  # what the processor makes is asked for
        found = resize(found, (24, 24))
    ours = forward(found, load_image(photo, found.preprocess, found.config.image_size)[None])
    assert np.abs(ours - theirs).max() < LIMIT * np.abs(theirs).max()
