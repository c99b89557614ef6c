"""A labelled model, a page of it in two precisions, and photographs to show it."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import vit_deploy
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.synthetic_images import natural_pixels

LABELS = ("tabby cat", "</script><b>dog", "fire engine", "ein Wörterbuch", "teapot")


@pytest.fixture(scope="module")
def labelled(make_checkpoint):
    """A model whose recorded preprocessing has a filter with overshoots and a crop."""
    made = make_checkpoint()
    preprocess = Preprocess((0.4, 0.5, 0.6), (0.2, 0.25, 0.3), resize=(28, 37), crop=True, interpolation="bicubic")
    return Checkpoint(made.config, made.weights, preprocess, labels=LABELS)


@pytest.fixture(scope="module")
def artifacts(labelled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts")
    return list(vit_deploy.export(labelled, folder, formats="onnx", precisions=["fp32", "int8"]))


@pytest.fixture(scope="module")
def page(artifacts, npm_files, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    return vit_deploy.demo(artifacts, path, runtime_files=npm_files).result.path


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("photos")
    pixels = natural_pixels(2, 90, 130, 3)
    paths = [folder / "photo.jpg", folder / "upright.png"]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels[0]).save(paths[0], exif=exif, quality=92)
    Image.fromarray(pixels[1]).convert("RGBA").save(paths[1])
    return paths
