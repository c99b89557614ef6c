"""A probe's query is a constant of a TFLite file, and the file is made of integers all the same."""

from __future__ import annotations

import pytest

from vit_deploy.exporters.plan import plan
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.pipeline import export

PRECISIONS = ("int8", "int8-static", "int8-full")


@pytest.fixture(scope="module")
def made(make_checkpoint, tmp_path_factory):
    checkpoint = make_checkpoint(pooling="map", class_token=False, num_layers=1)
    jobs = plan(["tflite"], PRECISIONS)[0]
    results = export(checkpoint, tmp_path_factory.mktemp("map"), jobs, QuantizeOptions(measure_speed=False)).results
    return {result.artifact.precision: result for result in results}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_map_pooled_file_of_integers_is_made_and_proven(made, precision):
    assert made[precision].parity.ok and made[precision].published
