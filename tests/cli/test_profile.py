from __future__ import annotations

import json

import pytest


@pytest.mark.slow
def test_operators_are_shown_and_saved_and_leave_the_samples_alone(run, bundles, tmp_path):
    saved = tmp_path / "saved.json"
    result = run(
        *("bench", bundles["onnx"], bundles["tflite"], "--runs", "3", "--threads", "1", "--profile"),
        *("--save", saved),
    )
    assert result.code == 0, result.err
    assert "operator" in result.out and "Softmax" in result.out and "share" in result.out
    results = {record["runtime"]: record for record in json.loads(saved.read_text())["results"]}
    first, second = results["onnxruntime"], results["litert"]
    assert first["profile"] and second["profile"]
    assert len(first["samples_ns"]) == len(second["samples_ns"]) == 3


def test_where_there_is_no_profile_the_reason_is_told_and_the_samples_are_kept(run, bundles, monkeypatch):
    from vit_deploy.errors import EngineError
    from vit_deploy.performance import profilers

    options = ["--runs", "3", "--threads", "1", "--profile", "--json"]
    result = run("bench", bundles["tflite"], "--provider", "cpu", *options)
    [found] = result.document["results"]
    assert found["profile"] is None and found["notes"][-1].startswith("no profile: litert is profiled on xnnpack alone")

    def crashed(case):
        raise EngineError("profiling ended (killed by SIGSEGV)", fix="leave it out")

    monkeypatch.setattr(profilers, "profile", crashed)
    [found] = run("bench", bundles["tflite"], *options).document["results"]
    assert found["profile"] is None and len(found["samples_ns"]) == 3
    assert found["notes"][-1] == "no profile: profiling ended (killed by SIGSEGV)"


def test_without_being_asked_for_there_is_no_profile(run, bundles):
    result = run("bench", bundles["onnx"], "--runs", "2", "--threads", "1", "--json")
    assert "profile" not in result.document["results"][0]
