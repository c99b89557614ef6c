"""The features of each family of ViTs, in files of Keras that are read without it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras_models import TINY, under, vit

from tests.features import FAMILIES, as_arguments
from vit_deploy import checkpoints
from vit_deploy.core.reference import forward
from vit_deploy.model.vit import ViT

IMAGES = np.random.default_rng(3).standard_normal((2, 8, 12, 3)).astype(np.float32)


QUICK = ("SigLIP", "DeiT", "post-norm, RMS, probe", "BEiT", "ViT-22B", "EVA-02")  # the others combine their layers


@pytest.fixture(
    scope="module", params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES]
)
def model(request: Any) -> ViT:
    return vit(**as_arguments(FAMILIES[request.param]))


def test_a_keras_file_and_weights_alone_hold_the_model_that_was_saved(tmp_path: Path, model: ViT) -> None:
    model.save(tmp_path / "a.keras")
    model.save_weights(tmp_path / "a.weights.h5")

    whole = checkpoints.load(tmp_path / "a.keras")

    assert whole.config == model.config
    assert whole.digest() == model.to_checkpoint().digest()
    assert checkpoints.load(tmp_path / "a.weights.h5", config=model.config).digest() == whole.digest()


def test_a_file_written_without_a_model_is_one_that_keras_loads(tmp_path: Path, model: ViT) -> None:
    checkpoint = model.to_checkpoint()
    checkpoints.save(checkpoint, tmp_path / "a.keras")

    loaded = keras.saving.load_model(tmp_path / "a.keras")

    assert loaded.to_checkpoint().digest() == checkpoint.digest()


@pytest.mark.parametrize("name", ["SigLIP", "DeiT", "band RMS, both tokens"])
@pytest.mark.parametrize("use_bias", [True, False])
def test_a_new_head_on_any_vector_is_folded_into_the_model(tmp_path: Path, name: str, use_bias: bool) -> None:
    backbone = ViT(**TINY | as_arguments(FAMILIES[name]) | {"include_top": False})
    model = under(backbone, keras.layers.Dense(4, use_bias=use_bias))
    model.save(tmp_path / "a.keras")

    checkpoint = checkpoints.load(tmp_path / "a.keras")

    expected = keras.ops.convert_to_numpy(model(IMAGES))
    np.testing.assert_allclose(forward(checkpoint, IMAGES), expected, rtol=0, atol=1e-5 * np.abs(expected).max())
