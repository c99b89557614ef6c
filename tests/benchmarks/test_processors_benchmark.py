"""The table of processors without VNNI, and that a file which saturates there shows."""

from __future__ import annotations

import pytest

from benchmarks.processors_tables import FITTING, FULL, render, targets


def file(weights, emulated, simulated, format="onnx", precision="int8"):
    engines = {"onnxruntime": {"here": 33.0, "emulated": emulated}, "openvino": {"here": None, "emulated": None}}
    return {"format": format, "precision": precision, "weights": weights, "engines": engines, "simulated": simulated}


def result(*files):
    host = {"cpu": "a", "cores": 2, "python": "3.11", "load_1m": 0.0}
    facts = {"started": "2026-01-01 00:00 UTC", "host": host, "versions": {}}
    return {"digits-0": {**facts, "model": "digits-0", "plain": list(files), "planted": []}}


def verdicts(results):
    return {target.text: target.met for target in targets(results) if target.met is not None}


@pytest.mark.parametrize(("emulated", "met"), [(32.5, True), (8.0, False)])
def test_only_files_as_the_recipe_makes_them_have_to_be_right(emulated, met):
    found = verdicts(result(file(FITTING, emulated, emulated), file(FULL, 7.0, 7.0)))
    assert list(found.values()) == [met, True]


def test_a_simulation_that_is_not_what_the_processor_answers_misses_its_target():
    (lost, apart) = verdicts(result(file(FITTING, 32.9, 32.8), file(FULL, 7.0, 9.0))).values()
    assert lost and not apart


def test_each_engine_has_a_row_and_what_was_not_measured_a_dash():
    lines = render(result(file(FITTING, 32.9, 32.8), file(FULL, None, 9.0))).splitlines()
    assert "| digits: onnx-int8 | the recipe's | onnxruntime | 33.0 | 32.9 | 32.8 |" in lines
    assert "| digits: onnx-int8 | the recipe's | openvino | - | - | - |" in lines
    assert "| digits: onnx-int8 | to 127 | onnxruntime | 33.0 | - | 9.0 |" in lines
