"""Every option of `bench` that says what to time counts here, and reaches another machine."""

from __future__ import annotations

from typing import Any

import pytest

from vit_deploy.core.options.commands import BenchOptions
from vit_deploy.errors import UsageError
from vit_deploy.performance import bench as bench_module
from vit_deploy.performance.process import CaseProcess
from vit_deploy.performance.requests import plan_for


def test_a_time_is_looked_for_without_a_batch(run: Any, bundles: Any) -> None:
    with pytest.raises(UsageError, match="expected no --batch, found 8"):
        BenchOptions(batch=(8,), under=5.0)
    said = run("bench", bundles["onnx"], "--under", "5ms", "--batch", 8, "--json")
    assert said.code == 2 and said.document["error"]["type"] == "UsageError"
    assert said.document["error"]["fix"] == "see vit-deploy bench --help"
    said = run("bench", bundles["onnx"], "--under", "5")
    assert said.code == 2 and "--under is '5'; expected a time as 5ms" in said.err
    assert plan_for(BenchOptions(under=5.0)).one_at_a_time and not plan_for(BenchOptions()).one_at_a_time


def test_a_step_may_take_as_long_as_was_said_on_this_machine_too(
    run: Any, bundles: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed = []

    class Recorded(CaseProcess):
        def __init__(self, name: str, timeout_s: float) -> None:
            allowed.append(timeout_s)
            super().__init__(name, timeout_s)

    monkeypatch.setattr(bench_module, "CaseProcess", Recorded)
    options = ["--runtime", "onnxruntime", "--runs", 2]
    assert run("bench", bundles["onnx"], *options, "--timeout", 1234).code == 0
    assert run("bench", bundles["onnx"], *options).code == 0
    assert allowed == [1234.0, 600.0]


def test_the_largest_batch_is_told_in_the_document_and_in_the_table(run: Any, bundles: Any) -> None:
    options = ["--runtime", "onnxruntime", "--runs", 2, "--threads", 1]
    said = run("bench", bundles["onnx"], *options, "--under", "1us", "--json")
    assert said.code == 0, said.err
    [record] = said.document["results"]
    assert record["largest_under"] == {"limit_ms": 0.001, "batch": None, "stopped_by": None}
    assert "not even a batch of 1 stays under 0.001 ms" in said.err
    assert run("bench", bundles["onnx"], *options, "--under", "soon").code == 2


def test_a_gpu_that_no_case_runs_on_is_refused(run: Any, bundles: Any) -> None:
    for option in (["--device", 1], ["--cuda-graph"]):
        said = run("bench", bundles["onnx"], "--runtime", "onnxruntime", *option)
        assert said.code == 2 and "no case runs on a GPU" in said.err and "--provider cuda" in said.err


def test_cases_that_were_measured_one_at_a_time_say_so(run: Any, bundles: Any) -> None:
    options = ["--runtime", "onnxruntime", "--runs", 4, "--threads", 1, "--batch", "1,2"]
    said = run("bench", bundles["onnx"], *options, "--one-at-a-time", "--json")
    assert said.code == 0, said.err
    assert "all cases: each case was measured on its own: their rounds took no turns" in said.err
    assert [result["plan"]["one_at_a_time"] for result in said.document["results"]] == [True, True]
