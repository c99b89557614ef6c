"""The page's own proof measures as `verify` does, and refuses what `verify` refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from node import module, needs_node, run

from vit_deploy.core.config import ViTConfig
from vit_deploy.verification.golden import Golden
from vit_deploy.verification.metrics import measure
from vit_deploy.verification.parity import judge
from vit_deploy.verification.tolerances import margin_noise, tolerance_for

pytestmark = needs_node

SCRIPT = f"""
import {{judge, measure, topClasses}} from {json.dumps(module("proof.mjs"))};
import {{attentionMap, similarityMap}} from {json.dumps(module("maps.mjs"))};
import fs from "node:fs";
const numbers = (values) => values.map((value) => (value === null ? NaN : value));
const answers = JSON.parse(fs.readFileSync(process.argv[1])).map(([name, ...given]) => {{
  if (name === "judge") return judge(numbers(given[0]), ...given.slice(1));
  if (name === "top") return topClasses(...given);
  if (name === "attention") return Array.from(attentionMap(...given));
  if (name === "similarity") return Array.from(similarityMap(Float32Array.from(given[0]), ...given.slice(1)));
  return measure(...given);
}});
process.stdout.write(JSON.stringify(answers));
"""
IMAGES, CLASSES = 5, 7


def asked(folder, *cases):
    plain = [[np.asarray(part).ravel().tolist() if isinstance(part, np.ndarray) else part for part in c] for c in cases]
    (folder / "cases.json").write_text(json.dumps(plain).replace("NaN", "null"))
    return json.loads(run(SCRIPT, str(folder / "cases.json")))


@pytest.fixture
def reference():
    return np.random.default_rng(3).standard_normal((IMAGES, CLASSES))


def test_every_metric_is_that_of_verify(tmp_path, reference):
    rng = np.random.default_rng(4)
    near = (reference + 0.3 * rng.standard_normal(reference.shape)).astype(np.float32)
    flat = np.zeros_like(near)
    found = asked(tmp_path, *(("measure", each, reference, IMAGES, 0.05) for each in (near, flat)))
    for outputs, answer in zip((near, flat), found, strict=True):
        expected = measure(outputs, reference, classes=True, noise=0.05)
        for name, value in answer.items():
            assert value == pytest.approx(getattr(expected, name), rel=1e-9), name


def test_equal_outputs_have_no_noise_and_pass(tmp_path, reference):
    [answer] = asked(tmp_path, ("judge", reference, reference, IMAGES, {"snr_db": 40, "flips": 0}, 0))
    assert answer["ok"] and answer["metrics"]["snr_db"] is None


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("size", [1e-7, 1e-5, 0.05, 0.4])
def test_the_verdict_and_its_words_are_those_of_verify(tmp_path, reference, precision, size):
    noise_floor = 1e-6
    outputs = (reference + size * np.random.default_rng(5).standard_normal(reference.shape)).astype(np.float32)
    tolerance = tolerance_for(precision, noise_floor)
    noise = margin_noise(tolerance, noise_floor, float(np.sqrt(np.mean(reference**2))))
    [answer] = asked(tmp_path, ("judge", outputs, reference, IMAGES, tolerance.held(), noise))
    expected = judge(outputs, Golden(outputs, reference, noise_floor), classes=True, precision=precision)
    assert answer["ok"] == expected.ok
    assert answer["failures"] == list(expected.failures)


def test_nan_and_other_numbers_of_outputs_never_pass(tmp_path, reference):
    broken = reference.copy()
    broken[1, 2] = np.nan
    nan, short = asked(
        tmp_path,
        ("judge", broken, reference, IMAGES, {"max_abs": 1e9}, 0),
        ("judge", reference[:-1], reference, IMAGES, {"max_abs": 1e9}, 0),
    )
    assert nan["failures"] == ["1 of 35 outputs are NaN or infinite"]
    assert short["failures"] == ["the output has 28 values, expected 35"]


@pytest.mark.parametrize("by", ["softmax", "sigmoid"])
def test_classes_are_ranked_as_predict_ranks_them(tmp_path, by):
    logits = np.array([0.5, 3.0, -2.0, 3.0, 1.0, 90.0 if by == "sigmoid" else 2.0])
    config = ViTConfig((8, 8), (4, 4), 3, 4, 1, 1, 8, 6, probabilities=by)
    [top] = asked(tmp_path, ("top", logits, 5, by == "sigmoid"))
    order = np.argsort(-logits, kind="stable")[:5]
    assert [seen["index"] for seen in top] == order.tolist()
    expected = config.probabilities.of(logits)[order]
    assert [seen["probability"] for seen in top] == pytest.approx(expected.tolist(), rel=1e-12)


def test_attention_is_that_of_the_class_token_to_the_patches(tmp_path):
    heads, prefix, patches = 2, 2, 3
    attention = np.random.default_rng(6).random((heads, prefix + patches, prefix + patches))
    with_class, without = asked(
        tmp_path,
        ("attention", attention, heads, prefix, patches, True),
        ("attention", attention, heads, prefix, patches, False),
    )
    for found, rows in ((with_class, [0]), (without, [2, 3, 4])):
        expected = attention[:, rows, prefix:].sum(axis=(0, 1))
        expected = (expected - expected.min()) / np.ptp(expected)
        assert found == pytest.approx(expected.tolist(), abs=1e-6)


def test_similarity_is_the_cosine_with_the_chosen_patch(tmp_path):
    tokens = np.random.default_rng(7).standard_normal((6, 4)).astype(np.float32)
    [found] = asked(tmp_path, ("similarity", tokens, 6, 2))
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    expected = unit @ unit[2]
    expected = (expected - expected.min()) / np.ptp(expected)
    assert found == pytest.approx(expected.tolist(), abs=1e-6)
    assert found[2] == pytest.approx(1)
