from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from records import HOST, evaluated, latency, measured, verified

from vit_deploy.errors import DataError
from vit_deploy.performance.latency import to_json
from vit_deploy.performance.profilers import OperatorTime
from vit_deploy.performance.report.documents import gather


def test_what_other_commands_say_is_joined_by_the_path_of_the_artifact(gathered):
    first, *_, last = gathered.cases
    assert first.quality.precision == "fp32" and first.quality.top1 == 0.9 and first.quality.max_abs == 1e-6
    assert last.quality.top1 == pytest.approx(0.88) and last.quality.verdict == "same"
    assert last.ratio == pytest.approx(last.latency.p50_ms / first.latency.p50_ms)
    assert first.profile == (OperatorTime("MatMul", 12, 0.8, 0.8), OperatorTime("Softmax", 2, 0.2, 0.2))
    assert last.profile == () and gathered.untimed == ()


def test_another_folder_is_found_by_the_last_two_names_if_they_are_its_own(write):
    bench = write("bench", [to_json(latency("/there/arts/onnx-int8"))])
    one = gather([bench, write("evaluate", [evaluated("arts/onnx-int8")])])
    assert one.cases[0].quality.top1 == 0.9
    two = gather([bench, write("evaluate", [evaluated("a/arts/onnx-int8"), evaluated("b/arts/onnx-int8")])])
    assert two.cases[0].quality.top1 is None
    assert [case.artifact for case in two.untimed] == ["a/arts/onnx-int8", "b/arts/onnx-int8"]


def test_later_documents_win_and_leave_alone_what_they_do_not_tell(write):
    first = write("verify", [verified("arts/onnx-int8")], "first.json")
    later = write("verify", [verified("arts/onnx-int8", metrics={"max_abs": 0.5})], "later.json")
    quality = gather([write("bench", measured()), first, later]).cases[2].quality
    assert quality.max_abs == 0.5 and quality.snr_db == 91.25


def test_machines_are_told_apart_and_ratios_stay_within_one(write):
    other = dataclasses.replace(HOST, cores=8.0)
    records = [to_json(latency("a", ms=2.0)), to_json(latency("a", ms=1.0, host=other))]
    records += [to_json(latency("a", ms=3.0, host=other)), {**to_json(latency("a")), "on": "ssh://pi@board"}]
    gathered = gather([write("bench", records)])
    assert list(gathered.machines) == [
        case.machine for case in (gathered.cases[3], gathered.cases[1], gathered.cases[0])
    ]
    assert {case.machine for case in gathered.cases} == {HOST.cpu, f"{HOST.cpu} (2)", "ssh://pi@board"}
    assert [round(case.ratio, 6) for case in gathered.cases] == [1, 1, 3, 1]


def test_ratios_have_intervals_which_are_paired_within_one_run_alone(write):
    calls = np.random.default_rng(3).normal(1, 0.002, (2, 27))
    drift = np.repeat([1.0, 1.3, 0.8], 9)  # that the cases of one run share
    slow, fast = (
        to_json(latency("a", samples_ns=tuple(int(each) for each in ms * 1e6 * drift * noise)))
        for ms, noise in zip((2.0, 1.0), calls, strict=True)
    )
    paired = gather([write("bench", [slow, fast])]).cases
    assert paired[0].ratio_interval is None
    assert paired[1].ratio_interval.low < 0.5 < paired[1].ratio_interval.high < 0.55
    apart = gather([write("bench", [slow], "one.json"), write("bench", [fast], "two.json")]).cases
    assert apart[1].ratio_interval.high > 0.6  # the one may have had the slow rounds, the other the fast ones


def test_text_that_cannot_be_printed_or_deceives_is_replaced(tmp_path):
    record = {**to_json(latency("a")), "artifact": "x\u202ecod.exe\ud800\x07"}
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({"schema": 1, "command": "bench", "results": [record]}))
    assert str(gather([path]).cases[0].latency.case.artifact) == "x\ufffdcod.exe\ufffd\ufffd"


DAMAGES = {
    "no samples": {"samples_ns": []},
    "samples that are words": {"samples_ns": ["x"]},
    "samples of no time": {"samples_ns": [0] * 27},
    "a batch of nothing": {"batch": 0},
    "a truth for a number": {"threads": True},
    "words for a figure": {"load_ms": "<script>"},
    "a figure without end": {"peak_rss_mb": 10**400},
    "a file for no images": {"file_batch": 0},
    "a record for a number": {"threads": {}},
    "energy that is a list": {"gpu_energy_j": [1]},
    "rounds of less than nothing": {"round_calls": [-1, 28]},
    "a round without a call": {"round_calls": [0, 27]},
    "samples past all clocks": {"samples_ns": [10**30] * 27},
    "operators on no record": {"placement": [1]},
    "rounds of no time": {"round_ns": [0, 0, 0], "streams": 2},
    "a time past all clocks": {"transfer_ns": [10**30]},
    "no host": {"host": None},
    "another host": {"host": {"cpu": "x"}},
    "a host of words": {"host": {**HOST.to_dict(), "cores": "two"}},
    "a profile of words": {"profile": "x"},
    "an operator without time": {"profile": [{"operator": "Add", "calls": 1, "ms": None, "share": 1}]},
    "an operator without name": {"profile": [{"operator": 3, "calls": 1, "ms": 1, "share": 1}]},
    "no plan that can be": {"plan": {"seconds": -1}},
}


@pytest.mark.parametrize("changes", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_result_is_an_error_that_names_the_file(write, changes):
    path = write("bench", [{**measured()[0], **changes}])
    with pytest.raises(DataError, match=r"bench\.json is damaged"):
        gather([path])


@pytest.mark.parametrize(
    ("command", "record"),
    [
        ("evaluate", evaluated("a", top1="high")),
        ("evaluate", evaluated("a", top1=1e308)),
        ("evaluate", evaluated(7)),
        ("verify", verified("a", metrics=[])),
        ("verify", verified("a", metrics={"max_abs": True})),
        ("export", {"path": "a", "parity": "good"}),
    ],
)
def test_damaged_findings_are_errors_too(write, command, record):
    with pytest.raises(DataError, match=rf"{command}\.json is damaged"):
        gather([write("bench", measured()), write(command, [record])])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "is not JSON"),
        ("[1, NaN]", "is not JSON: NaN is no number"),
        ("[" * 100_000, "is not JSON"),
        ("\ufeff\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "is not JSON"),
        ("[]", "is no document of vit-deploy"),
        ('{"command": "bench", "results": []}', "is no document of vit-deploy"),
        ('{"schema": 2, "command": "bench", "results": []}', "by another version of vit-deploy: its schema is 2"),
        ('{"schema": 1, "command": "doctor", "results": []}', "is of doctor; expected one of bench"),
        ('{"schema": 1, "command": "bench", "results": {}}', "is damaged: results is no list"),
        ('{"schema": 1, "command": "bench", "results": [], "error": {"message": "no GPU"}}', "a failure: no GPU"),
        ('{"schema": 1, "command": "bench", "results": []}', "nothing was timed in"),
    ],
)
def test_what_is_no_document_is_refused(tmp_path, text, words):
    path = tmp_path / "given.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        gather([path])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"cannot read .*none\.json: No such file"):
        gather([tmp_path / "none.json"])
