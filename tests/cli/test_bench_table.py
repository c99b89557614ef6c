"""What the terminal shows of a benchmark: the best, ratios with their intervals, and what is true of all cases once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from vit_deploy.cli.bench import _note
from vit_deploy.cli.bench_table import COLUMNS, SORTS, best_of, columns_of, row
from vit_deploy.cli.options import OutputOptions
from vit_deploy.cli.output import Output
from vit_deploy.core.host import read_host
from vit_deploy.performance.latency import Case, Latency, Plan
from vit_deploy.performance.plan import LargestUnder

HOST = dataclasses.replace(read_host(), competing=None, cores=2.0)


def latency(ms: float, batch: int = 1, **changes) -> Latency:
    facts = {
        "case": Case(Path(f"batch-{batch}"), "onnxruntime", batch=batch, threads=2),
        "plan": Plan(),
        "host": HOST,
        "provider": "cpu",
        "samples_ns": (int(ms * 1e6),) * 10,
        "load_ms": 12.0,
        "first_ms": 3.0,
        "peak_rss_mb": 100.0,
        "warmup_calls": 9,
        "flat": True,
        "idle": True,
        "file_batch": None,
        "round_calls": (5, 5),
        "round_ns": (1, 1),
        "bytes": 5_000_000 * batch,
    }
    return Latency(**{**facts, **changes})


def cells(result: Latency, base: Latency, best: dict[str, float]) -> dict[str, str]:
    return dict(zip(COLUMNS, row(result, base, best), strict=True))


def test_the_best_latency_and_throughput_are_marked_and_what_it_is_sorted_by():
    one, four = latency(1.0), latency(2.0, batch=4, load_ms=5.0)
    shown = [cells(each, one, best_of([one, four], "load")) for each in (one, four)]
    assert [each["p50 ms"] for each in shown] == ["1.00 *", "2.00"]
    assert [each["images/s"] for each in shown] == ["1000.0", "2000.0 *"]
    assert [each["load ms"] for each in shown] == ["12", "5 *"]
    assert not any("*" in text for text in cells(one, one, best_of([one], None)).values())


def test_a_ratio_stands_with_its_interval_and_the_first_is_one():
    one, two = latency(1.0), latency(2.0)
    assert cells(one, one, {})["to first"] == "1.00"
    assert cells(two, one, {})["to first"] == "2.00 (2.00-2.00)"
    single = latency(3.0, samples_ns=(3_000_000,), round_calls=(1,))
    assert cells(single, one, {})["to first"] == "3.00"


@pytest.mark.parametrize("name", SORTS)
def test_whatever_it_is_sorted_by_has_a_best(name):
    results = [latency(1.0, peak_rss_mb=90.0), latency(2.0, batch=3, load_ms=50.0)]
    shown = [row(result, results[0], best_of(results, name)) for result in results]
    order = sorted(range(2), key=lambda index: SORTS[name](results[index]))
    assert any("*" in text for text in shown[order[0]])


def test_what_is_true_of_all_cases_is_said_once(capsys):
    busy = dataclasses.replace(HOST, competing=1.5)
    results = [latency(1.0, host=busy), latency(2.0, host=busy, flat=False)]
    _note(Output("bench", OutputOptions()), [("one", results[0]), ("two", results[1])])
    assert capsys.readouterr().err.splitlines() == [
        "all cases: other processes kept 1.5 cores busy when it began",
        "two: still getting slower or faster after 9 warm-up calls",
    ]
    _note(Output("bench", OutputOptions()), [("one", results[0])])
    assert capsys.readouterr().err.startswith("one: other processes")


def on_gpu(ms: float, **changes) -> Latency:
    told = {"provider": "cuda", "transfer_ns": (250_000,), "gpu_energy_j": 0.5, "peak_gpu_mb": 812.0}
    told |= {"queued_calls": (10,), "queued_ns": (5_000_000,)}
    case = Case(Path("batch-1"), "onnxruntime", "cuda", **changes.pop("case", {}))
    return latency(ms, **{"case": case, **told, **changes})


def test_what_gpus_alone_have_stands_in_the_table_when_a_case_ran_on_one_and_copies_beside_the_calls():
    results = [latency(9.0), on_gpu(1.0)]
    columns = columns_of(results)
    assert set(columns) - set(COLUMNS) == {"copies ms", "queued images/s", "GPU mJ/image", "GPU MB"}
    assert columns.index("copies ms") == columns.index("p99 ms") + 1
    shown = [dict(zip(columns, row(result, results[0], {}, columns), strict=True)) for result in results]
    assert [each["copies ms"] for each in shown] == ["-", "0.25"]
    assert shown[1]["queued images/s"] == "2000.0" and shown[1]["GPU MB"] == "812"
    assert shown[1]["GPU mJ/image"] == "50.00" and shown[1]["threads"] == "-"
    built = on_gpu(1.0, build_ms=41_000.0)
    assert (
        dict(zip(columns_of([built]), row(built, built, {}, columns_of([built])), strict=True))["build ms"] == "41000"
    )
    assert columns_of([latency(9.0)]) == COLUMNS


def test_a_graph_and_another_gpu_are_named_with_the_provider():
    plain, other = on_gpu(1.0), on_gpu(1.0, case={"device": 1, "cuda_graph": True})
    assert cells(plain, plain, {})["runtime"] == "onnxruntime (cuda)"
    assert cells(other, plain, {})["runtime"] == "onnxruntime (cuda 1, graph)"


def test_the_largest_batch_under_a_time_stands_in_its_row():
    under = LargestUnder(5.0, 4)
    two, four = latency(1.0, batch=2, under=under), latency(2.0, batch=4, under=under)
    assert [cells(each, two, {})["batch"] for each in (two, four)] == ["2", "4 (largest under 5 ms)"]
    none = latency(9.0, under=LargestUnder(5.0, None))
    assert cells(none, none, {})["batch"] == "1" and "not even a batch of 1 stays under 5 ms" in none.notes
