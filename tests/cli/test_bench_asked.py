"""Every option of `bench` that says what to time counts here, and reaches another machine."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import typer

from vit_deploy.cli.bench_asked import Asked
from vit_deploy.performance import bench as bench_module
from vit_deploy.performance.process import CaseProcess
from vit_deploy.remote.device import _parser

PLAIN = Asked(None, None, "1", None, 1, 0, False, None, False, 3.0, None, 600.0, False)
ODD = Asked(["onnxruntime"], ["cuda", "cpu"], "2,3", "1,4", 2, 1, True, None, True, 1.5, 9, 900.0, True)


def test_another_machine_is_asked_for_the_same() -> None:
    there = _parser().parse_args(ODD.arguments)
    assert (there.runtime, there.provider) == (["onnxruntime"], ["cuda", "cpu"])
    assert (there.batch, there.threads, there.streams) == ([2, 3], [1, 4], 2)
    assert (there.device, there.cuda_graph, there.one_at_a_time, there.profile) == (1, True, True, True)
    assert (there.seconds, there.runs, there.timeout, there.under) == (1.5, 9, 900.0, None)
    assert _parser().parse_args(dataclasses.replace(PLAIN, under="250us").arguments).under == 0.25
    plain = _parser().parse_args(PLAIN.arguments)
    assert plain == _parser().parse_args(["bench"])


def test_a_time_is_looked_for_without_a_batch() -> None:
    with pytest.raises(typer.BadParameter, match="expected no --batch, found 8"):
        dataclasses.replace(PLAIN, batch="8", under="5ms")
    with pytest.raises(typer.BadParameter, match="--under is '5'; expected a time as 5ms"):
        dataclasses.replace(PLAIN, under="5")
    assert dataclasses.replace(PLAIN, under="5ms").plan.one_at_a_time and not PLAIN.plan.one_at_a_time


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
    assert [each["plan"]["one_at_a_time"] for each in said.document["results"]] == [True, True]
