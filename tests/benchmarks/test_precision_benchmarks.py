"""The arithmetic and the tables of the precisions' and the trained models' benchmarks, on results made up here."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import accuracy_tables, precision_tables
from benchmarks.accuracy import FACTOR, OUTLIERS, planted
from benchmarks.accuracy_tables import drops
from benchmarks.precision_tables import size_ratio
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.config import ViTConfig
from vit_deploy.core.reference import forward

HOST = {"host": {"cpu": "a CPU", "cores": 2, "python": "3.12"}, "versions": {"numpy": "2"}, "started": "today"}


def made(format, precision, count, cosine=1.0):
    return {"format": format, "precision": precision, "bytes": count, "facts": {"cosine": cosine}}


def timed(way, *rounds):
    return {"way": way, "error": None, "samples_ns": [[round_] for round_ in rounds], "load_1m": [1.0]}


SPEED = {
    "tiny": {
        **HOST,
        "parameters": 5,
        "made": [made("onnx", "fp32", 1000), made("onnx", "int8", 270, 0.9995), made("onnx", "fp16", 520)],
        "latency": [
            timed("onnx-fp32", 100, 300),
            timed("onnx-int8", 60, 150),
            timed("onnx-int8-static", 90, 180),
        ],
    }
}


def evaluated(artifact, top1, agreement=1.0):
    return {"artifact": artifact, "top1": top1, "agreement": agreement}


def trained(data, drop, agreement):
    results = [evaluated("onnx-fp32", 0.98), evaluated("onnx-int8", 0.98 - drop, agreement)]
    return {**HOST, "data": data, "images": 597, "plain": results, "planted": results}


ACCURACY = {
    "digits-0": trained("digits", 0.004, 0.99),
    "digits-1": trained("digits", 0.0, 1.0),
    "photos-0": trained("photos", 0.02, 0.995),
}


def test_ratios_are_those_of_the_same_formats_fp32_in_the_same_round():
    found = {target.text: target for target in precision_tables.targets(SPEED)}
    assert size_ratio(SPEED["tiny"], "onnx-int8") == 0.27
    assert size_ratio(SPEED["tiny"], "tflite-int8") is None and size_ratio(None, "onnx-int8") is None
    fast = found["onnx `int8` of tiny: latency over fp32's"]
    assert fast.measured == pytest.approx(0.55) and fast.met
    static = found["onnx `int8-static` of tiny: latency over `int8`'s"]
    assert static.measured == pytest.approx(1.35) and static.met is False
    assert found["onnx `fp16` of tiny: size over fp32's"].met is False
    assert found["onnx `int8` of base: latency over fp32's"].met is None


def test_losses_are_in_points_and_means_over_the_seeds():
    digits = [ACCURACY["digits-0"], ACCURACY["digits-1"]]
    assert drops(digits, "plain", "onnx-int8") == pytest.approx([0.4, 0.0])
    assert drops(digits, "plain", "onnx-int4") == []
    found = {target.text: target for target in accuracy_tables.targets(ACCURACY)}
    lost = found["onnx `int8` on digits: points of top-1 lost, mean of the seeds"]
    assert lost.measured == pytest.approx(0.2) and lost.met
    kept = found["onnx `int8` on photographs, outliers planted: first classes as fp32's"]
    assert kept.measured == 0.995 and kept.met
    assert found["tflite `int8` on digits: points of top-1 lost, mean of the seeds"].met is None


def test_an_artifact_that_failed_its_proof_with_one_seed_has_no_mean():
    other = trained("digits", 0.0, 1.0) | {"planted": [evaluated("onnx-fp32", 0.9)]}
    models = [ACCURACY["digits-0"], other]
    assert drops(models, "planted", "onnx-int8") == [] and len(drops(models, "plain", "onnx-int8")) == 2
    assert "| onnx-int8 | 0.20 | 0.40 | 99.5% | - | - | - |" in accuracy_tables.render({"a": models[0], "b": models[1]})


def test_the_tables_show_ratios_losses_and_agreement():
    assert "| onnx-int8 | 0.0 | 0.270 | 0.00 | 0.55 | 0.99950 |" in precision_tables.render(SPEED)
    assert "| onnx-int8 | 0.20 | 0.40 | 99.5% | 0.20 | 0.40 | 99.5% |" in accuracy_tables.render(ACCURACY)


def test_planted_outliers_are_large_and_leave_the_function_as_it_is():
    config = ViTConfig(
        image_size=(8, 12), patch_size=4, channels=1, embed_dim=24, num_heads=2, num_layers=2, mlp_dim=32, num_classes=4
    )
    checkpoint = Checkpoint.random(config, 3)
    changed = planted(checkpoint)
    images = np.random.default_rng(0).standard_normal((3, 8, 12, 1)).astype(np.float32)
    expected = forward(checkpoint, images)
    np.testing.assert_allclose(forward(changed, images), expected, atol=1e-6 * np.abs(expected).max())
    for name in ("block_0.norm1.scale", "block_1.norm2.scale"):
        ratios = changed.weights[name] / checkpoint.weights[name]
        assert sorted(ratios)[-OUTLIERS:] == [FACTOR] * OUTLIERS and (ratios == 1).sum() == 24 - OUTLIERS
