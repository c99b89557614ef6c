from __future__ import annotations

import json


def test_operators_are_shown_and_saved_and_leave_the_samples_alone(run, bundles, tmp_path):
    saved = tmp_path / "saved.json"
    result = run(
        *("bench", bundles["onnx"], bundles["tflite"], "--runs", "3", "--threads", "1", "--profile"),
        *("--save", saved),
    )
    assert result.code == 0, result.err
    assert "operator" in result.out and "Softmax" in result.out and "share" in result.out
    assert "no profile: LiteRT's Python package gives no access to its profiler" in result.err
    results = {each["runtime"]: each for each in json.loads(saved.read_text())["results"]}
    first, second = results["onnxruntime"], results["litert"]
    assert first["profile"] and second["profile"] is None
    assert len(first["samples_ns"]) == len(second["samples_ns"]) == 3
    assert any(note.startswith("no profile") for note in second["notes"])


def test_without_being_asked_for_there_is_no_profile(run, bundles):
    result = run("bench", bundles["onnx"], "--runs", "2", "--threads", "1", "--json")
    assert "profile" not in result.document["results"][0]
