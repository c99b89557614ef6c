"""Sums in half precision, compared with what ONNX Runtime gave on QEMU's Cortex-A76."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest

from tests.exporters.variants import exported, pixels, trained
from vit_deploy.core.reference import forward
from vit_deploy.errors import ConfigError
from vit_deploy.exporters import ExportOptions
from vit_deploy.exporters.onnx.export import OnnxExporter
from vit_deploy.exporters.onnx.quantize import OnnxQuantizer
from vit_deploy.exporters.onnx.recipes import ONNX_RECIPES
from vit_deploy.runtimes import open_session
from vit_deploy.runtimes.simulators import SIMULATORS, refuse_unchanged
from vit_deploy.runtimes.simulators.onnx_arm_fp16 import Conv, Gelu, half_product

# ONNX Runtime 1.32: products of (2, 192) by (192, 3), with and without a bias, and of (2, 3, 16) by (2, 16, 4).
MEASURED = Path(__file__).with_name("cortex_a76.npz")


def test_products_are_those_of_a_cortex_a76_bit_by_bit() -> None:
    with np.load(MEASURED) as measured:
        assert np.array_equal(half_product(measured["left"], measured["right"]), measured["product"])
        assert np.array_equal(half_product(measured["left"], measured["right"], measured["bias"]), measured["layer"])
        assert np.array_equal(half_product(measured["queries"], measured["keys"]), measured["scores"])
        exact = measured["left"].astype(np.float64) @ measured["right"].astype(np.float64)
        assert not np.array_equal(exact.astype(np.float16), measured["product"])


def test_a_sum_of_ones_ends_where_half_precision_cannot_count_on() -> None:
    ones = np.ones((2, 4096), np.float16)
    assert np.all(half_product(ones, ones.T[:, :1]) == 2048)
    assert np.all(half_product(ones[:, :300], ones.T[:300, :1], np.float16(-300)) == 0)


def test_a_sum_may_pass_the_largest_half() -> None:
    large = np.full((1, 2), 255, np.float16)
    assert np.isinf(half_product(large, np.full((2, 1), 255, np.float16))).all()


def test_a_convolution_sums_each_window_in_the_order_of_channels_last() -> None:
    rng = np.random.default_rng(5)
    images = rng.standard_normal((2, 3, 8, 12)).astype(np.float16)
    kernel = rng.standard_normal((5, 3, 4, 3)).astype(np.float16)
    bias = rng.standard_normal(5).astype(np.float16)
    [found] = Conv._run(None, images, kernel, bias, pads=(1, 0, 3, 0), strides=(4, 3))
    assert found.shape == (2, 5, 3, 4)
    padded = np.pad(images, ((0, 0), (0, 0), (1, 3), (0, 0)))
    total = bias[2]
    for row in range(4):
        for column in range(3):
            for channel in range(3):
                factors = float(padded[1, channel, 4 + row, 6 + column]), float(kernel[2, channel, row, column])
                total = np.float16(float(total) + factors[0] * factors[1])
    assert found[1, 2, 1, 2] == total


def test_a_gelu_in_float_is_exact_and_one_in_half_is_coarse() -> None:
    x = np.linspace(-4, 4, 33)
    single, half = (Gelu._run(None, x.astype(kind))[0] for kind in (np.float32, np.float16))
    assert single.dtype == np.float32 and half.dtype == np.float16
    exact = [value * 0.5 * (1 + math.erf(value / math.sqrt(2))) for value in x]
    np.testing.assert_allclose(single, exact, rtol=0, atol=1e-6)
    assert 1e-4 < np.abs(half - exact).max() < 2e-2


@pytest.mark.parametrize(
    "options", [ExportOptions(), ExportOptions(batch=2, layout="nchw", include_preprocessing=True)]
)
def test_a_whole_file_is_coarser_there_than_here(options: ExportOptions, tmp_path: Path) -> None:
    checkpoint = trained()
    taken = pixels(checkpoint, 4)
    normalised = checkpoint.preprocess.normalize(taken)
    images = taken if options.include_preprocessing else normalised
    (tmp_path / "fp32").mkdir()
    source = exported(OnnxExporter(), checkpoint, tmp_path / "fp32", options)
    target = dataclasses.replace(source, directory=tmp_path, precision="fp16")
    artifact = OnnxQuantizer().write(source, target, ONNX_RECIPES["fp16"], None)
    refuse_unchanged(artifact, "arm-fp16")
    expected = forward(checkpoint, normalised)
    with SIMULATORS.load("arm-fp16")().open(artifact) as session:
        assert session.provider == "arm-fp16"
        there = session.infer(images)
    with open_session(artifact, "onnxruntime") as session:
        here = session.infer(images)

    def noise(outputs: np.ndarray) -> float:
        return float(np.square(outputs - expected).mean() / np.square(expected).mean())

    assert there.shape == expected.shape
    assert 3 * noise(here) < noise(there) < 1e-3


def test_what_is_no_different_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fp32").mkdir()
    artifact = exported(OnnxExporter(), trained(), tmp_path / "fp32", ExportOptions())
    with pytest.raises(ConfigError, match="keep no sums in half precision") as refused:
        refuse_unchanged(artifact, "arm-fp16")
    assert refused.value.fix.startswith("simulate onnx in fp16")
