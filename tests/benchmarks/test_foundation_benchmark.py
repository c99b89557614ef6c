"""The real pretrained model: how it is taken out of the package's file, and how its results are judged."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks import foundation, foundation_probes, foundation_tables, foundation_vectors, img_focus, massive
from benchmarks.foundation_tables import render, targets
from benchmarks.job import Job
from benchmarks.records import RESULTS, read
from tests.exporters.variants import pixels, trained
from vit_deploy.core.reference import forward
from vit_deploy.errors import ConfigError


def result(precision, *, lost=0.0, cosine=1.0):
    host = {"cpu": "a", "cores": 2, "python": "3.11", "load_1m": 0.0}
    facts = {"started": "2026-01-01 00:00 UTC", "host": host, "versions": {}, "model": "dinov2-small"}
    right = {"fp32_linear_probe": 0.9, "linear_probe": 0.9 - lost / 100, "fp32_knn": 0.8, "knn": 0.8}
    shares = {"probe_agreement": 0.99, "knn_agreement": 0.98, "told": 1000, "compared": 32, "halvings": 10}
    shares |= {"linear_probe_error": 0.002, "knn_error": 0.003}
    cosines = {f"{worst}{kind}_cosine": cosine for worst in ("", "worst_") for kind in ("patch", "class")}
    return {**facts, **right, **shares, **cosines, "artifact": f"tflite-{precision}", "bytes": 2e7, "proven": True}


def test_losses_and_cosines_are_held_to_the_limits_of_their_precision():
    stored = {
        "dinov2-small-proof": {"model": "dinov2-small", "proof": {"max_abs": 5e-5}},
        "dinov2-small-tflite-int8-static": result("int8-static", lost=0.8, cosine=0.995),
    }
    found = {target.text: target for target in targets(stored) if target.text.startswith("DINOv2-small")}
    (proof,) = (target for text, target in found.items() if "rebuilt checkpoint" in text)
    assert proof.met
    (lost,) = (target for text, target in found.items() if "tflite `int8-static`: points" in text)
    assert lost.measured == pytest.approx(0.8) and lost.met is False
    (cosine,) = (target for text, target in found.items() if "tflite `int8-static`: mean cosine" in text)
    assert cosine.met
    assert all(target.met is None for text, target in found.items() if "int16x8" in text)


@pytest.mark.parametrize(
    ("told", "error", "verdict"), [(200, 0.0063, "cannot be told"), (25, 0.0, "cannot be told"), (2000, 0.0005, "met")]
)
def test_what_so_few_photographs_cannot_tell_is_not_met(told, error, verdict):
    found = {**result("int8"), "told": told, "linear_probe_error": error}
    (lost,) = (
        target
        for target in targets({"dinov2-small-tflite-int8": found})
        if target.text.startswith("DINOv2-small: tflite `int8`: points")
    )
    assert lost.measured == pytest.approx(0) and lost.verdict == verdict


def test_a_run_of_fewer_photographs_than_a_whole_one_says_so_and_of_how_many_it_made_its_probes():
    whole = render({"dinov2-small-tflite-fp32": {**result("fp32"), "told": 8000, "calibrated": 64, "known": 900}})
    assert "calibrated on 64 others, and 900 more were known to probes." in whole
    assert "less than a whole run" not in whole
    few = render({"dinov2-small-tflite-fp32": {**result("fp32"), "told": 200}})
    assert "That is less than a whole run has, which tells 8000." in few and "were known" not in few


def test_the_table_has_a_row_a_file_and_says_what_was_told_by_how_many():
    stored = {f"dinov2-small-tflite-{name}": result(name, lost=0.25) for name in ("fp32", "fp16", "int8")}
    stored["dinov2-small-tflite-fp16"]["told"] = 400
    stored["dinov2-small-tflite-fp32"]["made_of"] = 700
    text = render(stored)
    assert "Of 1000 photographs fp32's linear probes tell 89.8%" in text
    assert "are the first 700, and all others are told by both sides" in text
    assert "`tflite-fp16`: the first 400." in text and "`tflite-int8`: the first" not in text
    assert "| `tflite-fp16` | 20.0 | - | - | 1.0000 |" in text and "| 0.25 ± 0.39 |" in text


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


def test_latencies_are_those_of_the_files_that_a_run_has_left(tmp_path, monkeypatch):
    timed = []

    def measure_artifacts(artifacts, size, rounds, seconds):
        timed.extend(kind["artifact"] for kind, _ in artifacts)
        return [{**kind, "samples_ns": [[1]], "load_1m": [0.0]} for kind, _ in artifacts]

    monkeypatch.setattr(foundation, "measure_artifacts", measure_artifacts)
    monkeypatch.setattr(
        foundation,
        "read_artifact",
        lambda path: SimpleNamespace(name=path.name, directory=path, format=path.name.partition("-")[0]),
    )
    job = Job(tmp_path / "results", tmp_path, latency_only=True)
    with pytest.raises(ConfigError, match="no files of dinov2-small"):
        list(foundation.measure(job))
    for name in ("tflite-int8", "onnx-fp32"):
        folder = tmp_path / "foundation" / "dinov2-small-artifacts" / name
        folder.mkdir(parents=True)
        (folder / "artifact.json").write_text("{}")
    ((name, result),) = foundation.measure(job)
    assert name == "dinov2-small-latency" and timed == ["onnx-fp32", "tflite-int8"]
    assert [entry["way"] for entry in result["latency"]] == timed


def judged_photographs():
    """Two classes that lie apart in one of six features, in the order in which they are told, and the judge."""
    rng = np.random.default_rng(0)
    classes = np.arange(60) % 2
    vectors = rng.standard_normal((60, 6)).astype(np.float32)
    vectors[:, 2] += 6 * classes
    return vectors, classes, foundation_probes.judge(vectors[:20], classes[:20], vectors[20:], classes[20:], 40)


def test_what_a_file_loses_is_told_by_probes_that_other_photographs_made():
    vectors, _, judge = judged_photographs()
    same = judge.told(vectors[20:])
    assert same["told"] == 40 and same["fp32_linear_probe"] == same["linear_probe"] >= 0.95
    assert same["probe_agreement"] == same["knn_agreement"] == 1 and same["linear_probe_error"] == 0
    broken = vectors[20:].copy()
    broken[:10, 2] = 6 - broken[:10, 2]  # a quarter of them looks like the other class
    lost = judge.told(broken)
    assert lost["fp32_linear_probe"] - lost["linear_probe"] == pytest.approx(0.25, abs=0.04)
    assert 0.04 < lost["linear_probe_error"] < 0.1
    fewer = judge.told(broken[:10])
    assert fewer["told"] == 10 and fewer["linear_probe"] < 0.2 and fewer["knn"] < 0.2


@pytest.mark.parametrize("made_of", [40, 24])
def test_no_photograph_is_told_by_what_it_made_itself(made_of):
    vectors, classes, _ = judged_photographs()
    rng = np.random.default_rng(1)
    noise = rng.standard_normal(vectors.shape).astype(np.float32)
    judge = foundation_probes.judge(noise[:20], classes[:20], noise[20:], classes[20:], made_of)
    told = judge.told(noise[20:])
    assert told["linear_probe"] < 0.75 and told["knn"] < 0.75  # by itself each would be told right


def test_photographs_beyond_those_that_probes_are_made_of_change_nothing_for_the_first():
    vectors, classes, _ = judged_photographs()
    fewer, more = (
        foundation_probes.judge(vectors[:20], classes[:20], vectors[20:end], classes[20:end], 24) for end in (44, 60)
    )
    broken = vectors[20:].copy()
    broken[::3, 2] = 6 - broken[::3, 2]
    of_the_first = fewer.told(broken[:24])
    assert more.told(broken[:24]) == of_the_first and 0 < of_the_first["linear_probe"] < 0.9
    of_all = more.told(broken)
    assert of_all["told"] == 40 and of_all["linear_probe"] == pytest.approx(26 / 40, abs=0.1)


def test_vectors_are_kept_by_file_and_photographs(tmp_path, monkeypatch):
    calls = []

    def tokens(artifact, pixels):
        calls.append(len(pixels))
        return np.repeat(pixels.mean(axis=(1, 2))[:, None], 3, axis=1).astype(np.float32)

    monkeypatch.setattr(foundation_vectors, "tokens", tokens)
    pixels = np.random.default_rng(0).integers(0, 256, (30, 2, 3, 4), np.uint8)
    file = SimpleNamespace(name="onnx-int8", files={"golden.npz": ("b", 1), "model.onnx": ("a" * 64, 1)})
    first = foundation_vectors.vectors(file, pixels, tmp_path)
    assert first.shape == (30, 8) and calls == [25, 5]
    np.testing.assert_array_equal(foundation_vectors.vectors(file, pixels, tmp_path), first)
    assert calls == [25, 5]
    other = SimpleNamespace(name="onnx-int8", files={"model.onnx": ("c" * 64, 1)})
    foundation_vectors.vectors(other, pixels[:25], tmp_path)
    assert calls == [25, 5, 25]
    for digest in ("d", "e"):
        parts = {"saved_model/saved_model.pb": ("a" * 64, 1), "saved_model/variables/variables.data": (digest * 64, 1)}
        foundation_vectors.vectors(SimpleNamespace(name="savedmodel-fp32", files=parts), pixels[:5], tmp_path)
    assert calls == [25, 5, 25, 5, 5]


def massive_result(seed, lost):
    """A stored model of massive activations in which each precision loses these points."""
    host = {"cpu": "a", "cores": 2, "python": "3.11", "load_1m": 0.0}
    names = [
        f"{format}-{precision}" for format in ("onnx", "tflite") for precision in ("fp32", *foundation_tables.LOST)
    ]
    samples = [
        {"artifact": name, "top1": 0.96 - (0 if name.endswith("fp32") else lost / 100), "agreement": 0.99}
        for name in names
    ]
    seen = {"largest": 290.0, "median": 1.0, "tokens": 0.1, "channels": 2}
    facts = {"started": "2026-01-01 00:00 UTC", "host": host, "versions": {}, "model": f"massive-{seed}"}
    return {**facts, "data": "massive", "images": 597, "massive": seen, "plain": samples, "planted": samples}


def test_models_with_massive_activations_are_judged_by_the_mean_of_the_seeds():
    stored = {f"massive-{seed}": massive_result(seed, lost) for seed, lost in ((0, 0.2), (1, 0.6))}
    found = {target.text: target for target in targets(stored)}
    for variant in ("", ", and more by rewriting"):
        start = f"digits with massive activations{variant}"
        assert found[f"{start}: tflite `int8`: points of top-1 lost, mean"].met is False
        assert found[f"{start}: onnx `int8-static`: points of top-1 lost, mean"].met
    text = render(stored)
    assert "up to 290, 290 times the median, in 2 channels of 10% of the tokens" in text
    assert "| tflite-int8 | 0.40 | 0.60 | 99.0% |" in text


def test_making_channels_massive_by_rewriting_leaves_the_function():
    checkpoint = trained(embed_dim=12, num_heads=2)
    images = checkpoint.preprocess.normalize(pixels(checkpoint, 2))
    sizes = [{}, {}]
    models = [checkpoint, massive.planted(checkpoint)]
    outputs = [
        forward(each, images, detail=lambda name, values, seen=seen: seen.__setitem__(name, np.abs(values).max()))
        for each, seen in zip(models, sizes, strict=True)
    ]
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=0, atol=1e-4)
    for name in ("query", "value", "norm"):
        assert sizes[1][f"block_0.attention.{name}"] > 50 * sizes[0][f"block_0.attention.{name}"]


def test_massive_activations_are_counted_where_they_are_most():
    checkpoint = trained()
    weights = dict(checkpoint.weights)
    table = weights["pos_embed.table"].copy()
    table[[0, 3], 4] += 500
    weights["pos_embed.table"] = table
    checkpoint = dataclasses.replace(checkpoint, weights=weights)
    found = massive.statistics(checkpoint, checkpoint.preprocess.normalize(pixels(checkpoint, 2)))
    assert found.largest == pytest.approx(500, rel=0.05) and found.median < 5 and found.channels == 1
    assert found.tokens == pytest.approx(2 / len(table))


def test_the_stored_run_is_within_the_limits():
    assert [target.text for target in targets(read(RESULTS / "foundation")) if target.met is False] == []


def test_what_is_measured_is_what_is_judged():
    judged = {precision for precisions in foundation_tables.PRECISIONS.values() for precision in precisions}
    assert judged == foundation_tables.LOST.keys() and foundation_tables.COSINE.keys() < judged
    assert foundation.NAME in foundation_tables.MODELS and set(foundation.RUNTIMES) == set(foundation_tables.PRECISIONS)
