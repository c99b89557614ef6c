"""Which operators accelerators leave to the CPU: of the files that are made here, and of every reason that there is."""

from __future__ import annotations

import pytest

from vit_deploy.accelerators import ACCELERATORS, fallbacks, to_json
from vit_deploy.artifact import read_artifact
from vit_deploy.errors import ArtifactError
from vit_deploy.inspection import inspect
from vit_deploy.quantizers import QuantizeOptions
from vit_deploy.quantizers.stage import quantize


@pytest.fixture(scope="module")
def files(bundles, tmp_path_factory):
    source = read_artifact(bundles["tflite"])
    options = QuantizeOptions(measure_speed=False)
    made = quantize(source, tmp_path_factory.mktemp("made"), ["int8-full", "int16x8"], options)
    return {each.artifact.precision: each.artifact.model_path for each in made.results} | {"fp32": source.model_path}


def test_of_an_integer_file_only_what_the_device_lacks_falls_back(files):
    found = {each.operator: each for each in fallbacks(files["int8-full"], ACCELERATORS["coral"])}
    assert set(found) == {"BATCH_MATMUL", "GELU", "SOFTMAX"}  # the small model has two blocks
    assert [found[name].count for name in ("BATCH_MATMUL", "GELU", "SOFTMAX")] == [4, 2, 2]
    assert found["SOFTMAX"].reason == "computes in int16"
    assert found["GELU"].reason == "Coral Edge TPU does not have it"


def test_a_float_file_falls_back_as_a_whole(files):
    operators = inspect(files["fp32"]).graph.operators
    for device in ACCELERATORS.values():
        found = {each.operator: each.count for each in fallbacks(files["fp32"], device)}
        assert found == dict(operators)
        assert all(each.reason == "computes in float32" for each in fallbacks(files["fp32"], device))


def test_sixteen_bits_are_for_the_device_that_has_them(files):
    reasons = {
        key: {each.operator: each.reason for each in fallbacks(files["int16x8"], device)}
        for key, device in ACCELERATORS.items()
    }
    assert reasons["coral"]["FULLY_CONNECTED"] == "computes in int16"
    assert "FULLY_CONNECTED" not in reasons["ethos-u"]
    assert reasons["ethos-u"]["SOFTMAX"] == "computes in float32"


def test_inspect_lists_them_and_has_none_for_other_formats(files, bundles):
    assert inspect(files["int8-full"]).to_dict()["accelerators"] == to_json(files["int8-full"])
    assert inspect(bundles["tflite"]).to_dict()["accelerators"]["coral"]
    assert inspect(bundles["onnx"]).to_dict()["accelerators"] is None


def test_what_is_no_tflite_file_is_refused(tmp_path):
    (tmp_path / "model.tflite").write_bytes(b"nothing of the kind")
    with pytest.raises(ArtifactError, match="is not a TFLite file"):
        fallbacks(tmp_path / "model.tflite", ACCELERATORS["coral"])
