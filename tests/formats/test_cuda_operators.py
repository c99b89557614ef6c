"""What CUDA does with the quantized operators of ONNX files that are made here."""

from __future__ import annotations

import pytest

from vit_deploy.cli import run
from vit_deploy.core.manifest import read_artifact
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.pipeline import quantize
from vit_deploy.formats.cuda_operators import FOUR_BITS, IN_FLOAT, TO_THE_CPU
from vit_deploy.formats.inspect import inspect


@pytest.fixture(scope="module")
def quantized(bundles, tmp_path_factory):
    folder = tmp_path_factory.mktemp("quantized")
    options = QuantizeOptions(measure_speed=False)
    made = quantize(read_artifact(bundles["onnx"]), folder, ["int8", "int8-static", "int4"], options, keep_failed=True)
    return {result.artifact.precision: result.artifact.directory for result in made.results}


def fates(path):
    return {operator["operator"]: operator["fate"] for operator in inspect(path).to_dict()["cuda"]}


def test_products_of_int8_go_to_the_cpu(quantized):
    assert fates(quantized["int8"]) == {"DynamicQuantizeLinear": TO_THE_CPU, "MatMulInteger": TO_THE_CPU}


def test_calibrated_files_are_computed_in_float(quantized):
    assert fates(quantized["int8-static"]) == {"QuantizeLinear": IN_FLOAT, "DequantizeLinear": IN_FLOAT}


def test_four_bits_have_kernels(quantized):
    assert fates(quantized["int4"]) == {"com.microsoft.MatMulNBits": FOUR_BITS}


def test_counts_are_those_of_the_file_and_people_read_them(quantized, capfd):
    found = inspect(quantized["int8"])
    assert {operator.operator: operator.count for operator in found.on_cuda} == {
        name: found.graph.operators[name] for name in ("DynamicQuantizeLinear", "MatMulInteger")
    }
    assert run(["inspect", str(quantized["int8"])]) == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert "ONNX Runtime on CUDA" in printed and "MatMulInteger" in printed and TO_THE_CPU in printed


def test_files_in_float_and_other_formats_have_none(bundles):
    assert inspect(bundles["onnx"]).to_dict()["cuda"] == []
    assert inspect(bundles["tflite"]).to_dict()["cuda"] is None
