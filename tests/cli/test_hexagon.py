"""Commands on an emulated Hexagon processor."""

from __future__ import annotations

import json

import pytest

from tests.hexagon import ON_HEXAGON

pytestmark = ON_HEXAGON


@pytest.mark.slow
def test_times_of_an_emulated_processor_are_marked_and_are_no_baseline(bundles, tmp_path, run):
    saved = tmp_path / "saved.json"
    timed = run("bench", bundles["onnx"], "--provider", "htp", "--runs", 2, "--save", saved)
    assert timed.code == 0, timed.err
    assert "htp-emulated: times of an emulator, which say nothing about a real machine" in timed.err
    [record] = json.loads(saved.read_text())["results"]
    assert record["emulated"] and record["provider"] == "htp-emulated"
    assert record["placement"] == {"htp-emulated": sum(record["placement"].values())}
    compared = run("bench", bundles["onnx"], "--runs", 2, "--baseline", saved)
    assert compared.code == 2 and "times of an emulator" in compared.err
    real = tmp_path / "real.json"
    document = json.loads(saved.read_text())
    del document["results"][0]["emulated"]
    document["results"][0]["provider"] = "htp"  # as on a chip
    real.write_text(json.dumps(document))
    refused = run("bench", bundles["onnx"], "--provider", "htp", "--runs", 2, "--baseline", real)
    assert refused.code == 2 and "htp-emulated: times of an emulator are compared with nothing" in refused.err


def test_the_doctor_says_what_the_plugin_runs_on(run):
    found = run("doctor", "--json").document["results"][0]
    assert found["hexagon"] in (["CPU"], ["NPU"])
    assert not [conflict for conflict in found["conflicts"] if "qnn" in conflict["problem"]]
