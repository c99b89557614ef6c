"""TensorRT's own parser and builder take ONNX files as they are: TensorRT for RTX builds engines without a GPU."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import pytest

import vit_deploy
from tests.exporters.onnx_files import operators, write
from tests.exporters.variants import VARIANTS, trained

trt = pytest.importorskip("tensorrt_rtx")

GENERATIONS = ("SM80", "SM86", "SM89", "SM120")  # of NVIDIA GPUs; Turing, before them, has no products in float32


class Log(trt.ILogger):
    """What TensorRT complains about."""

    def __init__(self):
        super().__init__()
        self.complaints: list[str] = []

    def log(self, severity, message):
        if severity <= trt.ILogger.Severity.ERROR:
            self.complaints.append(message)


class Network:
    """An ONNX file as TensorRT reads it, with what it is made of kept alive."""

    def __init__(self, path: Path):
        self.log = Log()
        self.builder = trt.Builder(self.log)
        self.network = self.builder.create_network(0)
        self.read = trt.OnnxParser(self.network, self.log).parse_from_file(str(path))

    def layers(self, kind: Any = None) -> Iterator[Any]:
        """All of them, or those of a kind."""
        every = map(self.network.get_layer, range(self.network.num_layers))
        return (each for each in every if kind in (None, each.type))

    def writer(self, tensor: Any) -> Any:
        """The layer that computes a tensor, past those that only order it again."""
        (layer,) = (each for each in self.layers() if each.get_output(0).name == tensor.name)
        moves = layer.type in (trt.LayerType.SHUFFLE, trt.LayerType.CAST)
        return self.writer(layer.get_input(0)) if moves else layer

    def engine(self, generations: Sequence[str] = GENERATIONS[-1:]) -> bytes:
        """For batches of up to eight images."""
        settings = self.builder.create_builder_config()
        settings.num_compute_capabilities = len(generations)
        for index, name in enumerate(generations):
            settings.set_compute_capability(getattr(trt.ComputeCapability, name), index)
        images = self.network.get_input(0)
        if images.shape[0] == -1:
            profile = self.builder.create_optimization_profile()
            profile.set_shape(images.name, *((batch, *tuple(images.shape)[1:]) for batch in (1, 4, 8)))
            settings.add_optimization_profile(profile)
        built = self.builder.build_serialized_network(self.network, settings)
        assert built is not None, self.log.complaints
        return bytes(built)


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_tensorrt_builds_every_variant(name, tmp_path):
    _, path, _ = write(tmp_path, **VARIANTS[name])
    network = Network(path)
    assert network.read and len(network.engine()) > 0 and not network.log.complaints


FORMS = ({"batch": 2}, {"layout": "nchw"}, {"include_preprocessing": True}, {"opset": 17})


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "options"), list(itertools.product(("fp16", "int8-static"), FORMS)))
def test_tensorrt_builds_smaller_precisions_in_every_form(precision, options, tmp_path):
    (bundle,) = vit_deploy.export(trained(), tmp_path, formats=["onnx"], precisions=[precision], **options)
    network = Network(bundle.model_path)
    assert network.read and not network.log.complaints
    assert len(network.engine()) > 0 and not network.log.complaints


@pytest.mark.slow
def test_tensorrt_knows_both_sides_of_all_layers_of_int8_static_as_quantized(tmp_path):
    (bundle,) = vit_deploy.export(trained(), tmp_path, formats=["onnx"], precisions=["int8-static"])
    network = Network(bundle.model_path)
    sides = [
        {network.writer(product.get_input(side)).type for side in (0, 1)}
        for product in network.layers(trt.LayerType.MATRIX_MULTIPLY)
    ]
    restored = trt.LayerType.DEQUANTIZE
    counts = operators(onnx.load(str(bundle.model_path)))
    assert sides.count({restored}) == counts["Gemm"] > 0
    assert sum(restored not in each for each in sides) == counts["MatMul"] > 0  # of attention
    assert len(network.engine(GENERATIONS)) > 0 and not network.log.complaints


@pytest.mark.slow  # what another release of TensorRT may change, and no change here
@pytest.mark.parametrize(("precision", "operator"), [("int8", "DynamicQuantizeLinear"), ("int4", "MatMulNBits")])
def test_tensorrt_takes_no_ranges_that_are_found_as_they_run_nor_blocks(precision, operator, tmp_path):
    # As the README's table says. Once this fails, a release of TensorRT takes them: then the table is to be mended.
    (bundle,) = vit_deploy.export(trained(), tmp_path, formats=["onnx"], precisions=[precision])
    network = Network(bundle.model_path)
    assert not network.read
    assert any(operator in complaint for complaint in network.log.complaints)
