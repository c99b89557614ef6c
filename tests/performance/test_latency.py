from __future__ import annotations

import dataclasses
import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from vit_deploy.core.gpu import Gpu, GpuState
from vit_deploy.core.host import read_host
from vit_deploy.errors import ConfigError, DataError
from vit_deploy.performance.latency import Case, Latency, Plan, to_json
from vit_deploy.performance.latency_json import from_json
from vit_deploy.performance.plan import LargestUnder
from vit_deploy.performance.saved_results import latency_in


@functools.cache
def here():
    """This machine as it is when it is first asked for: looking how busy it is takes a while."""
    return read_host()


def latency(samples_ns, **changes):
    facts = {
        "case": Case(Path("a"), "onnxruntime", batch=4, threads=2),
        "plan": Plan(),
        "host": dataclasses.replace(here(), competing=None, cores=8.0),
        "provider": "cpu",
        "samples_ns": tuple(samples_ns),
        "load_ms": 12.5,
        "first_ms": 3.5,
        "peak_rss_mb": 100.0,
        "warmup_calls": 9,
        "flat": True,
        "idle": True,
        "file_batch": None,
    }
    return Latency(**{**facts, **changes})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"seconds": None}, "expected one of them"),
        ({"runs": 3}, "expected one of them"),
        ({"seconds": math.nan}, "seconds is nan"),
        ({"seconds": None, "runs": 0}, "runs is 0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"warmup": -1}, "warmup is -1"),
        ({"timeout_s": 0}, "timeout_s is 0"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes, problem):
    with pytest.raises(ConfigError, match=problem):
        Plan(**changes)


def test_runs_are_shared_among_the_rounds():
    shares = [request["calls"] for request in Plan(seconds=None, runs=7, rounds=3).requests()]
    assert shares == [3, 2, 2]
    assert [request["calls"] for request in Plan(seconds=None, runs=2, rounds=5).requests()] == [1, 1]


def test_of_few_runs_every_stream_has_one_in_each_round():
    plan = Plan(seconds=None, runs=7, rounds=5)
    assert [request["calls"] for request in plan.requests(streams=3)] == [4, 3]
    assert [request["calls"] for request in plan.requests(streams=7)] == [7]
    with pytest.raises(ConfigError, match="runs is 7 for 8 streams, whose calls are to overlap"):
        plan.requests(streams=8)


def test_more_threads_than_cores_are_told():
    two = dataclasses.replace(here(), cores=2.0, competing=None)
    crowded = latency([1_000_000] * 9, case=Case(Path("a"), "litert", threads=2, streams=2), host=two)
    assert "4 threads share 2 cores" in crowded.notes
    assert not latency([1_000_000] * 9, case=Case(Path("a"), "litert", threads=1, streams=2), host=two).notes


def test_what_a_later_version_tells_beyond_this_one_is_passed_over():
    record = json.loads(json.dumps(to_json(latency([1_000_000] * 9, round_calls=(9,), round_ns=(9_000_000,)))))
    record["host"]["hostname"], record["plan"]["cooldown_s"], record["novelty"] = "board", 1.5, {}
    assert from_json(record).p50_ms == 1
    with pytest.raises(ValueError, match=r"9 samples in rounds of \(0, 9\)"):
        from_json({**record, "round_calls": [0, 9]})


def test_statistics_are_those_of_the_samples():
    samples = [int(value) for value in np.random.default_rng(0).integers(1_000_000, 9_000_000, 250)]
    result = latency(samples)
    ordered = sorted(samples)
    assert result.p50_ms == pytest.approx((ordered[124] + ordered[125]) / 2e6)
    assert result.p90_ms == pytest.approx((ordered[224] + 0.1 * (ordered[225] - ordered[224])) / 1e6)
    assert result.mean_ms == pytest.approx(sum(samples) / 250e6)
    assert result.std_ms == pytest.approx(
        math.sqrt(sum((sample / 1e6 - result.mean_ms) ** 2 for sample in samples) / 249)
    )
    assert result.min_ms == ordered[0] / 1e6
    assert result.min_ms <= result.p50_ms <= result.p90_ms <= result.p99_ms <= ordered[-1] / 1e6
    assert result.throughput_per_s == pytest.approx(4 * 1000 / result.mean_ms)


def test_nothing_derived_is_stored():
    stored = {field.name for field in dataclasses.fields(Latency)}
    assert not stored & {"mean_ms", "p50_ms", "p90_ms", "p99_ms", "std_ms", "min_ms", "throughput_per_s"}


def test_json_has_the_fields_of_the_contract_and_no_nan():
    values = json.loads(json.dumps(to_json(latency([1_000_000, 2_000_000])), allow_nan=False))
    assert {
        *("artifact", "runtime", "provider", "batch", "threads", "samples_ns", "p50_ms", "p90_ms", "p99_ms", "mean_ms"),
        *("throughput_per_s", "load_ms", "first_ms", "peak_rss_mb", "failures"),
    } <= set(values)
    assert values["samples_ns"] == [1_000_000, 2_000_000]
    assert values["p50_ms"] == 1.5
    assert values["failures"] == []


def test_a_figure_that_cannot_be_told_is_null_with_an_entry():
    values = json.loads(json.dumps(to_json(latency([0], peak_rss_mb=None)), allow_nan=False))
    assert values["peak_rss_mb"] is None
    assert values["throughput_per_s"] is None
    assert sorted(values["failures"]) == ["peak_rss_mb cannot be told", "throughput_per_s cannot be told"]


def test_what_has_to_be_known_is_noted():
    assert latency([1000] * 5).notes == ()
    assert latency([1000] * 5, file_batch=1).unsteady == ()
    drifting = latency([1000] * 5 + [1200] * 5, round_calls=(5, 5))
    assert "the slowest round took 20% longer than the fastest" in drifting.unsteady
    busy = dataclasses.replace(here(), competing=1.5)
    assert latency([1000] * 5, host=busy).unsteady == ("other processes kept 1.5 cores busy when it began",)
    assert "batch of 4 runs as 4 calls of 1" in latency([1000] * 5, file_batch=1).notes[0]
    assert "slower or faster after 9 warm-up calls" in latency([1000] * 5, flat=False).notes[0]
    assert "2 warm-up calls, too few to" in latency([1000] * 5, flat=False, warmup_calls=2).notes[0]  # of a slow model
    assert "kept working" in latency([1000] * 5, idle=False).notes[0]
    assert "may be busy" in latency([1000, 2000] * 5).notes[0]


def test_a_ratio_is_that_of_the_medians():
    base, slower = latency([1000, 1010] * 5, round_calls=(5, 5)), latency([1500, 1515] * 5, round_calls=(5, 5))
    ratio, interval = slower.ratio_to(base)
    assert ratio == pytest.approx(1.5)
    assert interval.low <= 1.5 <= interval.high and interval.excludes(1.3)
    assert to_json(slower, base)["ratio"] == ratio


def test_where_operators_ran_and_what_copies_took_is_kept_and_told():
    placement = {"cuda": 290, "cpu": 3}
    whole = latency(
        [4_000_000] * 4, placement=placement, transfer_ns=(2_000_000, 1_000_000, 9_000_000), gpu_energy_j=8.0
    )
    assert whole.transfer_ms == 2.0
    assert whole.gpu_energy_mj_per_image == 500.0  # 16 images
    assert whole.notes[0] == "of 293 operators 290 on cuda, 3 on cpu"
    record = to_json(whole)
    assert (record["placement"], record["transfer_ms"], record["gpu_energy_j"]) == (placement, 2.0, 8.0)
    read = from_json(json.loads(json.dumps(record)))
    assert (read.placement, read.transfer_ns, read.gpu_energy_j) == (placement, whole.transfer_ns, 8.0)
    plain = latency([4_000_000] * 4, placement={"cpu": 293})
    assert plain.notes == () and plain.transfer_ms is None and plain.gpu_energy_mj_per_image is None
    earlier = {name: value for name, value in to_json(plain).items() if name not in ("placement", "transfer_ns")}
    assert from_json(earlier).placement == {}


H100 = Gpu(
    "H100", "GPU-1", "580.1", "13.0", "9.0", 85e3, False, "default", 700.0, ((GpuState(1980.0), GpuState(1975.0)),)
)


def on_gpu(**changes):
    facts = {"provider": "cuda", "gpu": H100, "build_ms": 900.0, "peak_gpu_mb": 750.0, "remarks": ("a remark",)}
    facts |= {"queued_calls": (10, 20), "queued_ns": (5_000_000, 10_000_000), "transfer_ns": (2_000_000,)}
    facts |= {"case": Case(Path("a"), "onnxruntime", "cuda", batch=4, device=1, cuda_graph=True)}
    return latency([4_000_000] * 4, **{**facts, **changes})


def test_what_was_told_of_a_gpu_is_kept_in_a_file_and_read_back():
    whole = on_gpu(under=LargestUnder(5.0, 4))
    record = json.loads(json.dumps(to_json(whole), allow_nan=False))
    assert (record["device"], record["cuda_graph"], record["build_ms"], record["peak_gpu_mb"]) == (
        1,
        True,
        900.0,
        750.0,
    )
    assert record["gpu"]["rounds"][0][1]["sm_mhz"] == 1975.0 and record["remarks"] == ["a remark"]
    assert record["queued_throughput_per_s"] == pytest.approx(4 * 30 / 0.015)
    assert record["largest_under"] == {"limit_ms": 5.0, "batch": 4, "stopped_by": None}
    read = from_json(record)
    assert read == dataclasses.replace(whole, case=dataclasses.replace(whole.case, provider=None))
    assert {"a remark", "the largest batch under 5 ms is 4"} <= set(read.notes)
    assert any(
        "copying the images there and the outputs back, 2.00 ms a call, is told apart" in note for note in read.notes
    )


def test_results_of_before_gpus_were_told_still_load_and_processors_have_none_of_it():
    plain = to_json(latency([4_000_000] * 4))
    assert plain["gpu"] is None and plain["queued_throughput_per_s"] is None and plain["largest_under"] is None
    assert plain["failures"] == []
    new = (
        "device",
        "cuda_graph",
        "gpu",
        "build_ms",
        "peak_gpu_mb",
        "queued_calls",
        "queued_ns",
        "remarks",
        "largest_under",
    )
    earlier = {name: value for name, value in plain.items() if name not in new}
    assert from_json(earlier) == from_json(plain)


@pytest.mark.parametrize(
    "damage",
    [
        {"gpu": {"name": 5}},
        {"gpu": "H100"},
        {"build_ms": "long"},
        {"peak_gpu_mb": True},
        {"queued_ns": [1]},
        {"queued_calls": [0, 1]},
        {"device": -1},
        {"device": "1"},
        {"largest_under": {"limit_ms": 0, "batch": 1}},
        {"largest_under": {"limit_ms": 5, "batch": 0.5}},
    ],
)
def test_what_no_run_has_told_of_a_gpu_is_damage(damage):
    record = {**to_json(on_gpu()), **damage}
    with pytest.raises(DataError, match="is damaged"):
        latency_in("bench.json", json.loads(json.dumps(record)))


def test_a_gpu_whose_clock_changes_or_is_held_down_is_unsteady():
    slow = dataclasses.replace(H100, rounds=((GpuState(1980.0), GpuState(1500.0, ("power brake",))),))
    unsteady = on_gpu(gpu=slow).unsteady
    assert "the GPU's clock was between 1500 and 1980 MHz" in unsteady
    assert "the GPU's clock was held down: power brake" in unsteady
    assert on_gpu().unsteady == ()


def test_a_gpu_at_its_power_limit_is_steady_and_says_so():
    full = dataclasses.replace(H100, rounds=((GpuState(1500.0, ("power limit",)),) * 2,), power_limit_w=700.0)
    told = on_gpu(gpu=full)
    assert told.unsteady == ()
    assert "the GPU ran at its power limit of 700 W, which sets its clock then" in told.notes


def test_cases_that_took_no_turns_are_compared_as_such():
    alone = Plan(one_at_a_time=True)
    base = latency([1000, 1010] * 5, round_calls=(5, 5), plan=alone)
    slower = latency([1500, 1515] * 3, round_calls=(6,), plan=alone)  # of another number of rounds
    ratio, interval = slower.ratio_to(base)
    assert ratio == pytest.approx(1.5) and interval.low <= 1.5 <= interval.high
