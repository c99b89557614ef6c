"""The largest batch under a time is found by doubling and halving, and every batch on the way is told."""

from __future__ import annotations

import dataclasses

import pytest

from tests.linear_bundle import write_bundle
from tests.performance.test_latency import latency
from vit_deploy.core.options.parsing import milliseconds
from vit_deploy.errors import ConfigError, EngineError
from vit_deploy.performance.bench import Case, Plan, bench, cases_of
from vit_deploy.performance.sweep import largest_under, largest_under_each, next_batch

CASE = Case("a", "onnxruntime", "cuda", batch=7)


def taking(ms_of, full_from=10**9):
    """A benchmark of calls that take `ms_of` their batch; the GPU has no room for those from `full_from` on."""

    def run(cases, plan, progress):
        [case] = cases
        if case.batch >= full_from:
            raise EngineError(f"{case}: CUDA failure 2: out of memory", fix="a smaller batch")
        return [dataclasses.replace(latency([int(1e6 * ms_of(case.batch))] * 9), case=case, plan=plan)]

    return run


def searched(limit_ms, ms_of, **options):
    found = largest_under(CASE, limit_ms, run=taking(ms_of, options.pop("full_from", 10**9)), **options)
    assert len({each.under for each in found}) == 1
    return found[0].under, [each.case.batch for each in found]


def test_it_doubles_until_a_call_takes_too_long_and_then_halves_what_is_between():
    under, batches = searched(5.0, lambda batch: 0.4 * batch + 0.1)
    assert under.batch == 12  # 4.9 ms; 13 take 5.3
    assert batches == [1, 2, 4, 8, 12, 13, 14, 16]
    assert under.words == "the largest batch under 5 ms is 12"
    for largest in (1, 2, 3, 31, 32, 33, 100):
        assert searched(largest + 0.5, lambda batch: batch)[0].batch == largest


def test_a_time_that_not_even_one_image_keeps_is_said():
    under, batches = searched(0.5, lambda batch: batch)
    assert under.batch is None and batches == [1]
    assert under.words == "not even a batch of 1 stays under 0.5 ms"


def test_it_ends_where_no_larger_batch_is_tried_or_the_gpu_has_no_room_and_says_so():
    under, batches = searched(1e9, lambda batch: batch, most=16)
    assert (under.batch, batches[-1]) == (16, 16)
    assert under.words.endswith("is 16; no batch above 16 was tried")
    under, batches = searched(1e9, lambda batch: batch, most=6)
    assert (under.batch, batches) == (6, [1, 2, 4, 6])
    under, batches = searched(1e9, lambda batch: batch, full_from=11)
    assert (under.batch, batches) == (10, [1, 2, 4, 8, 10])
    assert "the GPU has no room for one of 11" in under.words


def test_a_gpu_that_has_no_room_for_one_image_and_an_engine_that_fails_are_errors():
    with pytest.raises(EngineError, match="out of memory"):
        searched(5.0, lambda batch: batch, full_from=1)

    def broken(cases, plan, progress):
        raise EngineError("INVALID_GRAPH")

    with pytest.raises(EngineError, match="INVALID_GRAPH"):
        largest_under(CASE, 5.0, run=broken)


def test_what_was_measured_before_says_what_comes_next():
    assert next_batch({}) == 1
    assert next_batch({1: True, 2: True}) == 4
    assert next_batch({1: True, 2: True, 4: False}) == 3
    assert next_batch({1: True, 2: True, 4: False, 3: True}) is None
    assert next_batch({1: False}) is None
    assert next_batch({1: True, 2: False, 4: True}) is None  # slower than a larger one: it is not under the time


def test_it_works_on_processors_and_each_combination_is_searched_once(tmp_path):
    bundle = write_bundle(tmp_path / "onnx-fp32")
    plan = Plan(seconds=None, runs=3, rounds=1, warmup=1)
    cases = [Case(bundle, "onnxruntime", batch=batch, threads=1) for batch in (1, 4)]
    found = largest_under_each(cases, 1e-6, plan)
    assert [each.case.batch for each in found] == [1]
    assert found[0].under.batch is None and found[0].plan.one_at_a_time
    assert bench(cases[:1], plan)[0].under is None


@pytest.mark.parametrize(
    ("text", "ms"), [("5ms", 5.0), ("0.5 ms", 0.5), (".25s", 250.0), ("2s", 2000.0), ("800us", 0.8)]
)
def test_times_are_read(text, ms):
    assert milliseconds(text) == pytest.approx(ms)


@pytest.mark.parametrize("text", ["5", "ms", "-1ms", "0ms", "1e3ms", "5 min", "nan ms", ""])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="a time as 5ms"):
        milliseconds(text)


def test_what_is_for_gpus_is_given_to_cases_that_may_run_on_one(tmp_path):
    path = tmp_path / "a"
    asked = {"batches": [1], "threads": [None], "device": 1, "cuda_graph": True}
    cases = cases_of([(path, "onnx")], ["onnxruntime"], ["cpu", "cuda"], **asked)
    assert [(case.provider, case.device, case.cuda_graph) for case in cases] == [("cpu", 0, False), ("cuda", 1, True)]
    [tensorflow] = cases_of([(path, "savedmodel")], ["savedmodel"], [None], **{**asked, "cuda_graph": False})
    assert tensorflow.device == 1  # which it chooses by itself where it is there
    [plan] = cases_of([(path, "tensorrt")], ["tensorrt"], [None], **asked)
    assert (plan.device, plan.cuda_graph) == (1, True)
    with pytest.raises(ConfigError) as error:
        cases_of([(path, "onnx")], ["onnxruntime"], ["cpu", None], **asked)
    assert error.value.message == "device is 1 and CUDA graphs are requested, and no case runs on a GPU"
    assert "--provider cuda" in error.value.fix


def test_what_is_for_browsers_is_given_to_cases_that_run_in_one(tmp_path):
    path = tmp_path / "a"
    asked = {"batches": [1], "threads": [None], "browser": "firefox", "runtime_files": "npm"}
    cases = cases_of([(path, "onnx")], ["onnxruntime", "web"], [None], **asked)
    assert [(case.browser, case.runtime_files) for case in cases] == [(None, None), ("firefox", "npm")]
    with pytest.raises(ConfigError) as error:
        cases_of([(path, "onnx")], ["onnxruntime"], [None], **asked)
    assert error.value.message == "browser is firefox and runtime_files is npm, and no case runs in a browser"
    assert "--runtime web" in error.value.fix
