"""Ranges of a TFLite file of integers alone, of a model with outliers, where one token sums an image up."""

from __future__ import annotations

import dataclasses

import pytest

from tests.exporters.quantization.test_coarse_ranges import FULL, WIDE, made
from tests.exporters.variants import exported, pixels, trained
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.quantization.calibration import Calibration
from vit_deploy.exporters.quantization.outputs import answers, cosines
from vit_deploy.exporters.tflite.export import TFLiteExporter
from vit_deploy.exporters.tflite.ranges import observe
from vit_deploy.exporters.tflite.widening import tokens_beside_summary


@pytest.fixture(scope="module")
def apart(tmp_path_factory):
    """A model whose class token alone has massive channels, with images."""
    checkpoint = trained(embed_dim=48, mlp_dim=64, num_heads=2, image_size=(24, 40), patch_size=(4, 4))
    table = checkpoint.weights["pos_embed.table"].copy()
    table[0, [7, 11]] += 60, -90
    checkpoint = dataclasses.replace(checkpoint, weights={**checkpoint.weights, "pos_embed.table": table})
    source = exported(TFLiteExporter(), checkpoint, tmp_path_factory.mktemp("apart"), ExportOptions(batch=1))
    return source, checkpoint.preprocess.normalize(pixels(checkpoint, 8))


def test_the_class_token_counts_as_much_as_all_others(apart):
    source, images = apart
    tokens = tokens_beside_summary(source.config)
    assert tokens == source.config.sequence_length == 61
    alike, weighed = (
        observe(source.model_path, source.input, Calibration(images, (), 0, "tests"), counted=True, class_token_of=each)
        for each in (0, tokens)
    )
    of_rows = [name for name, seen in weighed.tensors.items() if seen.worth.size and not alike.tensors[name].worth.size]
    assert of_rows
    for name in of_rows:
        assert weighed.tensors[name].worth.sum() == alike.tensors[name].counts.sum() * 2 * (tokens - 1) / tokens
    scores = {name: seen.worth.sum() for name, seen in alike.tensors.items() if seen.worth.size}
    heavier = {name: weighed.tensors[name].worth.sum() / worth for name, worth in scores.items()}
    # Shares of a row are one in all. Of the last block the class token's row alone is computed.
    first, last = heavier.values()
    assert first == pytest.approx(2 * (tokens - 1) / tokens) and last == 1


def test_a_file_of_integers_alone_is_nearer_so(apart, tmp_path, monkeypatch):
    source, images = apart
    weighed = made(source, images, tmp_path / "weighed", FULL)
    monkeypatch.setattr("vit_deploy.exporters.tflite.quantize.tokens_beside_summary", lambda config: 0)
    alike = made(source, images, tmp_path / "alike", FULL)
    assert weighed.options["recipe"][WIDE] and alike.options["recipe"][WIDE]
    exact = answers(source, images)
    better, worse = (1 - cosines(answers(each, images), exact).mean() for each in (weighed, alike))
    assert better < 0.8 * worse, (better, worse)


def test_files_of_models_without_outliers_are_what_they_were(tmp_path, monkeypatch):
    checkpoint = trained(embed_dim=48, mlp_dim=64, num_heads=2)
    source = exported(TFLiteExporter(), checkpoint, tmp_path, ExportOptions(batch=1))
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 8))
    files = [made(source, images, tmp_path / "found", FULL)]
    monkeypatch.setattr("vit_deploy.exporters.tflite.quantize.tokens_beside_summary", lambda config: 0)
    files.append(made(source, images, tmp_path / "alike", FULL))
    assert WIDE not in files[0].options["recipe"]
    assert files[0].model_path.read_bytes() == files[1].model_path.read_bytes()


@pytest.mark.parametrize(
    ("changes", "counts"),
    [({}, True), ({"pooling": "mean"}, False), ({"pooling": "cls_mean"}, True), ({"include_top": False}, True)],
)
def test_the_class_token_sums_an_image_up_where_it_is_read(changes, counts):
    config = trained().config.replace(**changes)
    assert bool(tokens_beside_summary(config)) == counts
