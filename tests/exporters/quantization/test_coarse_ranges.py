"""Layers of a TFLite file whose outliers leave a fixed range of 8 bits too coarse."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tests.exporters.variants import exported, pixels, trained
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.clipping import NOTHING, signal_to_noise_db
from vit_deploy.exporters.quantization.coarse_ranges import LEAST_DB, RECORD, notes_on_coarse_ranges
from vit_deploy.exporters.quantization.outputs import answers, cosines
from vit_deploy.exporters.tflite.export import TFLiteExporter
from vit_deploy.exporters.tflite.quantize import TFLiteQuantizer
from vit_deploy.exporters.tflite.recipes import TFLITE_RECIPES

STATIC = TFLITE_RECIPES["int8-static"]
MASSIVE = 400.0


@pytest.fixture(scope="module")
def massive(tmp_path_factory):
    """A model whose first feed-forward writes one channel hundreds of times as large as the rest, into a stream that
    the second takes it out of again; and images."""
    checkpoint = trained(embed_dim=48, mlp_dim=64, num_heads=2)
    weights = dict(checkpoint.weights)
    for sign, index in ((1, 0), (-1, 1)):
        bias = weights[f"block_{index}.ffn.down.bias"].copy()
        bias[5] += sign * MASSIVE
        weights[f"block_{index}.ffn.down.bias"] = bias
    checkpoint = dataclasses.replace(checkpoint, weights=weights)
    folder = tmp_path_factory.mktemp("massive")
    source = exported(TFLiteExporter(), checkpoint, folder, ExportOptions(batch=1))
    return source, checkpoint.preprocess.normalize(pixels(checkpoint, 8))


def made(source, images, folder, **changes):
    folder.mkdir()
    recipe = dataclasses.replace(STATIC, **changes)
    target = dataclasses.replace(
        source, directory=folder, precision="int8-static", options={"recipe": recipe.to_dict()}
    )
    return TFLiteQuantizer().write(source, target, recipe, Calibration(images, (), 0, "tests"))


def test_layers_with_massive_activations_find_their_ranges_as_they_run_and_say_so(massive, tmp_path, monkeypatch):
    source, images = massive
    artifact = made(source, images, tmp_path / "mended")
    layers = artifact.options["recipe"][RECORD]
    assert {"block_0.ffn.down", "block_1.ffn.down"} <= set(layers)
    (note,) = notes_on_coarse_ranges(artifact)
    assert "block_0" in note and "find ranges of activations as they run" in note
    monkeypatch.setattr("vit_deploy.exporters.tflite.quantize.LEAST_DB", -np.inf)
    plain = made(source, images, tmp_path / "plain")
    assert RECORD not in plain.options["recipe"] and notes_on_coarse_ranges(plain) == []
    exact = answers(source, images)
    mended, before = (1 - cosines(answers(each, images), exact).min() for each in (artifact, plain))
    assert mended < before / 4
    assert artifact.model_bytes < 1.05 * plain.model_bytes


def test_layers_that_stay_in_float_are_not_among_them(massive, tmp_path):
    source, images = massive
    artifact = made(source, images, tmp_path / "kept", keep_float=("block_0.ffn.down",))
    assert "block_0.ffn.down" not in artifact.options["recipe"][RECORD]


def test_a_file_of_integers_alone_keeps_its_ranges(massive, tmp_path):
    source, images = massive
    recipe = TFLITE_RECIPES["int8-full"]
    target = dataclasses.replace(source, directory=tmp_path, options={"recipe": recipe.to_dict()})
    artifact = TFLiteQuantizer().write(source, target, recipe, Calibration(images, (), 0, "tests"))
    assert RECORD not in artifact.options["recipe"]


def test_what_is_left_of_the_usual_values_is_measured_beside_outliers():
    values = np.random.default_rng(0).uniform(-1, 1, 100000).astype(np.float32)
    seen = NOTHING.also(values, counted=True)
    assert signal_to_noise_db(seen, -1, 1, bits=8) == pytest.approx(20 * np.log10(2**8 - 1), abs=1.5)
    outlier = NOTHING.also(np.append(values, np.float32(300)), counted=True)
    assert signal_to_noise_db(outlier, -1, 300, bits=8) < LEAST_DB
    zeros = NOTHING.also(np.zeros(10, np.float32), counted=True)
    assert signal_to_noise_db(zeros, 0, 0, bits=8) == np.inf
