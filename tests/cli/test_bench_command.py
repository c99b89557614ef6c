from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from vit_deploy import cli
from vit_deploy.core import child_processes
from vit_deploy.performance.bench import takes_threads
from vit_deploy.runtimes import RUNTIMES

CONTRACT = {
    *("artifact", "runtime", "provider", "batch", "threads", "samples_ns", "p50_ms", "p90_ms", "p99_ms", "mean_ms"),
    *("throughput_per_s", "load_ms", "first_ms", "peak_rss_mb"),
}


@pytest.mark.slow
def test_every_artifact_is_timed_in_every_runtime_that_runs_it(run, bundles, keras_file):
    options = ["--batch", "3", "--threads", "1", "--runs", "5", "--json"]
    result = run("bench", bundles["onnx"], bundles["tflite"], keras_file, *options)
    assert result.code == 0, result.err
    found = result.document["results"]
    assert [(each["artifact"], each["runtime"], each["provider"]) for each in found] == [
        (str(bundles["onnx"]), "onnxruntime", "cpu"),
        *([] if RUNTIMES["openvino"].missing() else [(str(bundles["onnx"]), "openvino", "cpu")]),
        (str(bundles["tflite"]), "litert", "xnnpack"),
        (str(keras_file), "keras", "cpu"),
    ]
    for each in found:
        assert set(each) >= CONTRACT
        assert each["batch"] == 3 and each["threads"] == 1 and len(each["samples_ns"]) == 5
        samples = np.array(each["samples_ns"])
        assert each["mean_ms"] == pytest.approx(samples.mean() / 1e6)
        for percent in (50, 90, 99):
            assert each[f"p{percent}_ms"] == pytest.approx(np.percentile(samples, percent) / 1e6)
        assert each["throughput_per_s"] == pytest.approx(3 * 5 / (samples.sum() / 1e9))
        assert each["load_ms"] > 0 and each["first_ms"] > 0 and each["peak_rss_mb"] > 10


def test_people_get_a_table(run, bundles):
    result = run("bench", bundles["onnx"], "--runs", "4")
    assert result.code == 0
    assert "p99 ms" in result.out and "onnxruntime (cpu)" in result.out and str(bundles["onnx"]) in result.out


def test_a_runtime_that_does_not_take_the_format_is_exit_2(run, bundles):
    result = run("bench", bundles["onnx"], "--runtime", "litert", "--runs", "3")
    assert result.code == 2 and "litert does not run" in result.err and result.out == ""


def test_a_changed_bundle_is_not_timed(run, bundles, tmp_path):
    copied = shutil.copytree(bundles["onnx"], tmp_path / "changed")
    (copied / "golden.npz").write_bytes(b"other")
    result = run("bench", copied, "--runs", "3", "--json")
    assert result.code == 2 and "golden.npz has" in result.document["error"]["message"]


def test_batches_and_threads_are_swept(run, bundles):
    result = run(
        "bench",
        bundles["onnx"],
        "--runtime",
        "onnxruntime",
        "--batch",
        "2,1",
        "--threads",
        "1,2",
        "--runs",
        "3",
        "--json",
    )
    found = [(record["batch"], record["threads"]) for record in result.document["results"]]
    assert found == [(2, 1), (2, 2), (1, 1), (1, 2)]


@pytest.mark.parametrize("given", ["0", "1,", "two", "-1", "1.5"])
def test_a_number_of_images_that_cannot_be_is_exit_2(run, bundles, given):
    result = run("bench", bundles["onnx"], f"--batch={given}")
    assert result.code == 2 and "expected positive numbers as 1 or 1,2,8" in result.err


def test_keras_is_timed_on_the_users_backend_whatever_the_command_line_traces_with(monkeypatch):
    monkeypatch.setattr(child_processes, "_before", {})
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    cli._hush_engines(verbose=True)
    assert os.environ["KERAS_BACKEND"] == "tensorflow"
    assert child_processes.of_children()["KERAS_BACKEND"] == "jax"
    assert not takes_threads("keras", "cpu")
