"""What quantizing costs a trained model whose activations have outliers, measured on images that no training saw."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import digits
from benchmarks.accuracy import planted
from vit_deploy import checkpoints
from vit_deploy.datasets import read_dataset
from vit_deploy.evaluation import evaluate
from vit_deploy.exporters.stage import plan
from vit_deploy.quantizers import QuantizeOptions
from vit_deploy.quantizers.stage import export
from vit_deploy.reference import forward

MOST = {"fp16": 0.3, "int8": 0.3, "int8-static": 0.7, "int8-full": 1.5, "int16x8": 1.5, "int4": 1.5}  # points of top-1

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("digits")
    ((_, right),) = digits.write(folder, seeds=[0])
    assert right > 0.95
    return folder


@pytest.fixture(scope="module")
def model(home):
    return planted(checkpoints.load(home / "digits-0.keras"))


def test_planting_leaves_the_function_and_makes_channels_larger(home, model):
    plain = checkpoints.load(home / "digits-0.keras")
    images = plain.preprocess.normalize(np.load(home / "digits-test.npz")["images"][:16])
    np.testing.assert_allclose(forward(model, images), forward(plain, images), atol=1e-4)
    ratios = model.weights["block_0.attention.value.kernel"] / plain.weights["block_0.attention.value.kernel"]
    assert np.isclose(np.median(ratios, axis=0), 30, rtol=1e-3).sum() == 10


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_with_outliers_every_precision_stays_within_what_it_may_cost(format, home, model, tmp_path):
    jobs, _ = plan([format], ["fp32", *MOST])
    options = QuantizeOptions(calibrate=home / "digits-train.npz", measure_speed=False)
    made = export(model, tmp_path, jobs, options)
    assert all(each.published for each in made.results)
    found = evaluate([each.artifact for each in made.results], read_dataset(home / "digits-test.npz"))
    exact = found[0].top1
    for each in found[1:]:
        assert 100 * (exact - each.top1) <= MOST[each.artifact.precision], each.artifact.name
