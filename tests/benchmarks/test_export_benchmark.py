"""The arithmetic and the tables of the exports' benchmark, on results made up here, and one miniature run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.export_tables import render, targets
from benchmarks.figures import export_s, latency_ratio, p50_ms
from benchmarks.sizes import SIZES
from benchmarks.ways import WAYS

ROOT = Path(__file__).parents[2]


def latency(way, *rounds, error=None):
    facts = {"load_ms": 12.0, "peak_rss_mb": 100.0, "load_1m": [1.0] * len(rounds), "threads": 2}
    return {"way": way, "runtime": WAYS[way].runtime, "samples_ns": list(rounds), "error": error, **facts}


def export(way, *seconds, proof_s=0.0, error=None):
    runs = [{"wall_s": second, "proof_s": proof_s, "peak_rss_mb": 500.0} for second in seconds]
    return {"way": way, "runs": runs, "bytes": None if error else 23_000_000, "error": error}


@pytest.fixture
def result():
    host = {"cpu": "a processor", "cores": 2.0, "python": "3.12"}
    return {
        "parameters": 5_700_000,
        "started": "2030-01-02 03:04 UTC",
        "host": host,
        "versions": {"numpy": "2"},
        "exports": [
            export("vit-deploy-onnx", 9.0, 7.0, 11.0, proof_s=2.0),
            export("keras-onnx", 70.0),
            export("timm-script", 14.0),
            export("timm-dynamo", error="it broke"),
        ],
        "latency": [
            latency("vit-deploy-onnx", [1_000_000] * 3, [2_000_000] * 3, [40_000_000] * 3),
            latency("timm-script-optimized", [2_000_000], [4_000_000], [20_000_000]),
            {"way": "keras-onnx", "runtime": "onnxruntime", "error": "x\nNo Op registered for Erfc"},
        ],
        "skipped": [["keras-litert", ["tensorflow"]]],
    }


def test_the_proof_is_no_part_of_an_export_and_the_median_round_counts(result):
    assert export_s(result, "vit-deploy-onnx") == 7.0
    assert export_s(result, "timm-dynamo") is None
    assert export_s(result, "keras-litert") is None


def test_latencies_are_compared_round_by_round(result):
    assert latency_ratio(result, "vit-deploy-onnx", "timm-script-optimized") == 0.5


def test_the_milliseconds_shown_are_those_of_the_best_round(result):
    assert p50_ms(result["latency"][1]) == 2.0
    assert p50_ms(result["latency"][2]) is None


def test_what_does_not_load_has_no_ratio(result):
    assert latency_ratio(result, "vit-deploy-onnx", "keras-onnx") is None


def test_targets_are_met_missed_or_not_measured(result):
    verdicts = [(target.measured, target.met) for target in targets({"tiny": result, "base": result})]
    assert verdicts == [(10.0, True), (None, None), (0.5, True), (0.5, True), (None, None), (None, None)]
    slow = result | {"exports": [export("vit-deploy-onnx", 15.0), export("timm-script", 14.0)]}
    assert [target.met for target in targets({"base": slow})][:3] == [None, None, False]


def test_tables_say_what_failed_and_what_was_skipped(result):
    text = render({"tiny": result})
    assert "| vit-deploy (.onnx) | 7.0 | 5.0 to 9.0 | 2.0 | 500 | 23.0 |" in text
    assert '| Keras `model.export(format="onnx")` | ONNX Runtime | does not load | - | - | - |' in text
    assert "No Op registered for Erfc" in text
    assert "skipped, tensorflow not installed" in text


def test_every_way_exports_the_same_architecture():
    for size in SIZES.values():
        assert size.config.image_size == size.image_size
        height, width = size.image_size
        assert size.arguments[:3] == [size.scale, "--image-size", f"{height}x{width}"]


@pytest.mark.slow
def test_a_miniature_run_measures_every_way_that_is_installed(tmp_path):
    command = [sys.executable, "-m", "benchmarks", "--quick", "--only", "export", "--results", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "export" / "quick.json").read_text(encoding="utf-8"))
    assert done.stdout.strip().endswith(render({"quick": result}))
    exports, latencies = ({each["way"]: each for each in result[kind]} for kind in ("exports", "latency"))
    skipped = dict(result["skipped"])
    assert sorted([*exports, *skipped]) == sorted(WAYS)
    assert skipped == {name: gaps for name, way in WAYS.items() if (gaps := way.missing())}
    assert all(run["wall_s"] > run["proof_s"] >= 0 for entry in exports.values() for run in entry["runs"])
    assert all(run["peak_rss_mb"] > 50 for entry in exports.values() for run in entry["runs"])
    # Some exporters keep equal tensors once: the norms of random weights are all ones, the biases all zeros.
    assert all(entry["bytes"] > 0.99 * 4 * result["parameters"] for entry in exports.values())
    assert "Erfc" in latencies.pop("keras-onnx")["error"]
    assert latencies
    assert all(len(entry["samples_ns"]) == 2 and min(map(min, entry["samples_ns"])) > 0 for entry in latencies.values())
