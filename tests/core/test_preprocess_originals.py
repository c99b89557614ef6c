"""An image file through our recorded preprocessing is what timm and transformers make of it."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.peers.preprocess_originals import CASES, original
from vit_deploy.checkpoints.huggingface import preprocess
from vit_deploy.checkpoints.timm import config as timm_config
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.images import load_image

GOLDEN = Path(__file__).parents[1] / "peers" / "preprocess_golden.npz"
NAMES = [f"{case.family} {case.like}" for case in CASES]
FILES = ("landscape", "portrait")
FLOAT32 = 2e-6  # two roundings of values below 3, in another order of the same operations


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as file:
        return {name.replace(":", "/"): file[name] for name in file.files}


@pytest.fixture(scope="module")
def images(golden, tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for name in FILES:
        (folder / f"{name}.png").write_bytes(golden[f"{name}.png"].tobytes())
    return {name: folder / f"{name}.png" for name in FILES}


def test_the_fixtures_are_small_and_whole(golden):
    assert GOLDEN.stat().st_size < 200_000
    assert set(golden) == {f"{name}.png" for name in FILES} | {f"{name} {file}" for name in NAMES for file in FILES}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_a_file_becomes_what_the_family_makes_of_it(golden, images, case, file):
    expected = golden[f"{case.family} {case.like} {file}"]
    assert expected.shape == (*case.size, 3)
    np.testing.assert_allclose(load_image(images[file], case.ours, case.size), expected, rtol=0, atol=FLOAT32)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_fixtures_tell_a_wrong_mean_filter_resize_and_crop(golden, images, case):
    expected = golden[f"{case.family} {case.like} landscape"]
    other = "bilinear" if case.ours.interpolation == "bicubic" else "bicubic"
    wrong = [
        dataclasses.replace(case.ours, mean=(0.5, 0.45, 0.4)),
        dataclasses.replace(case.ours, std=(0.24, 0.25, 0.26)),
        dataclasses.replace(case.ours, interpolation=other),
        dataclasses.replace(case.ours, resize=(40, 41), crop=True, keep_aspect=False),
    ]
    for each in wrong:
        assert np.abs(load_image(images["landscape"], each, case.size) - expected).max() > 0.01


@pytest.mark.peers
@pytest.mark.slow  # what other versions of the libraries may change, and no change here
@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_fixtures_are_what_the_originals_make_today(golden, images, case):
    library = "timm" if case.family == "timm" else "transformers"
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec(library) is None:
        pytest.skip(f"needs torch and {library}")
    for name, path in images.items():
        np.testing.assert_allclose(
            original(case, path), golden[f"{case.family} {case.like} {name}"], rtol=0, atol=FLOAT32
        )


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_the_readers_of_checkpoints_record_these_settings_as_the_same_preprocessing(golden, images, case):
    if case.family == "timm":
        recorded = timm_config.preprocess_of(case.settings, case.size, 3)
    else:
        config = ViTConfig(case.size, (8, 8), 3, 12, 3, 1, 20, 5)
        recorded = preprocess.preprocess_of(case.settings, "ViT", config)
    for name in FILES:
        found = load_image(images[name], recorded, case.size)
        np.testing.assert_allclose(found, golden[f"{case.family} {case.like} {name}"], rtol=0, atol=FLOAT32)
