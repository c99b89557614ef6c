"""A model that became slower is told from one that was measured at a bad moment."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vit_deploy.core import documents
from vit_deploy.core.gpu import Gpu
from vit_deploy.core.host import read_host
from vit_deploy.errors import DataError
from vit_deploy.performance.latency import Case, Latency, Plan, to_json
from vit_deploy.performance.regression import changes, not_compared, read_results

HOST = dataclasses.replace(read_host(), competing=None)


def measured(
    median_ns: float, *, seed: int, noise: float = 0.01, artifact: str = "x/tiny/onnx-fp32", **case: Any
) -> Latency:
    """Five rounds of 20 calls."""
    rng = np.random.default_rng(seed)
    samples = tuple(int(each) for each in median_ns * rng.normal(1, noise, 100))
    return Latency(
        case=Case(Path(artifact), "onnxruntime", threads=2, **case),
        plan=Plan(),
        host=HOST,
        provider="cpu",
        samples_ns=samples,
        load_ms=1.0,
        first_ms=1.0,
        peak_rss_mb=None,
        warmup_calls=8,
        flat=True,
        idle=True,
        file_batch=None,
        round_calls=(20,) * 5,
        round_ns=(1,) * 5,
    )


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    path = tmp_path / "baseline.json"
    document = documents.document(
        "bench", [to_json(measured(1e6, seed=1)), to_json(measured(3e6, seed=2, batch=4))], ok=True
    )
    path.write_text(json.dumps(document))
    return path


def test_a_slower_median_beyond_chance_is_a_regression(baseline: Path) -> None:
    [change] = changes([measured(1.2e6, seed=3)], read_results(baseline), max_regression=0.05)
    assert change.regressed
    assert change.ratio == pytest.approx(1.2, rel=0.01)
    assert change.interval is not None and change.interval.low < 1.2 < change.interval.high
    assert "+20" in change.words and "95 % interval" in change.words and "slower than allowed" in change.words
    assert "p50 1.2 ms, 1 ms in the baseline" in change.words and "5 % allowed" in change.words


def test_a_slower_median_that_may_be_chance_is_none(baseline: Path) -> None:
    [change] = changes([measured(1.08e6, seed=4, noise=0.8)], read_results(baseline), max_regression=0.05)
    assert not change.regressed
    [change] = changes([measured(1.001e6, seed=5)], read_results(baseline), max_regression=0.05)
    assert not change.regressed and "no regression" in change.words


def test_a_case_is_found_by_all_that_it_was_measured_with(baseline: Path) -> None:
    moved = measured(3e6, seed=6, artifact="/elsewhere/tiny/onnx-fp32", batch=4)
    [change] = changes([moved, measured(1e6, seed=7, artifact="other")], read_results(baseline), max_regression=0.05)
    assert change.latency is moved and change.ratio == pytest.approx(1, rel=0.02)
    assert [*not_compared([moved], [change])] == []
    [words] = not_compared([measured(1e6, seed=7, artifact="other")], [change])
    assert words.startswith("other in onnxruntime (batch 1, 2 threads) by cpu: not in the baseline")
    with pytest.raises(DataError, match="none of the 1 cases"):
        changes([measured(1e6, seed=8, batch=2)], read_results(baseline), max_regression=0.05)


def test_another_machine_is_not_compared_unless_told_to(baseline: Path) -> None:
    other = dataclasses.replace(measured(1e6, seed=9), host=dataclasses.replace(HOST, cpu="Other CPU"))
    with pytest.raises(DataError, match=r"another machine: cpu .*, now Other CPU"):
        changes([other], read_results(baseline), max_regression=0.05)
    assert len(changes([other], read_results(baseline), max_regression=0.05, any_host=True)) == 1


H100 = Gpu("NVIDIA H100", "GPU-1", "580.65", mig=False, power_limit_w=700.0)


def on_gpu(median_ns: float, *, seed: int, gpu: Gpu | None = H100, **case: Any) -> Latency:
    return dataclasses.replace(measured(median_ns, seed=seed, **case), provider="cuda", gpu=gpu)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"name": "NVIDIA A10"}, "another GPU: GPU NVIDIA A10, now NVIDIA H100"),
        ({"mig": True}, "another GPU: MIG on, now off"),
        ({"power_limit_w": 350.0}, "another GPU: power limit in W 350, now 700"),
    ],
)
def test_another_gpu_in_the_same_machine_is_not_compared_unless_told_to(other: dict[str, Any], said: str) -> None:
    then = on_gpu(1e6, seed=1, gpu=dataclasses.replace(H100, **other))
    with pytest.raises(DataError, match=said):
        changes([on_gpu(1e6, seed=2)], [then], max_regression=0.05)
    assert len(changes([on_gpu(1e6, seed=2)], [then], max_regression=0.05, any_host=True)) == 1
    [change] = changes([on_gpu(1e6, seed=2)], [then, on_gpu(2e6, seed=3)], max_regression=0.05)
    assert change.before.p50_ms == pytest.approx(2, rel=0.01)


def test_another_card_of_the_kind_is_compared_and_another_driver_is_a_remark() -> None:
    then = on_gpu(1e6, seed=1, gpu=dataclasses.replace(H100, uuid="GPU-2"))
    assert changes([on_gpu(1e6, seed=2)], [then], max_regression=0.05)[0].remarks == ()
    then = on_gpu(1e6, seed=1, gpu=dataclasses.replace(H100, driver="570.1"))
    [change] = changes([on_gpu(1e6, seed=2)], [then], max_regression=0.05)
    assert "driver is 580.65, 570.1 in the baseline" in change.remarks[0]
    assert change.to_dict()["remarks"] == list(change.remarks)


def test_a_baseline_that_knows_no_gpu_is_compared_and_that_is_said() -> None:
    [change] = changes([on_gpu(1e6, seed=2)], [on_gpu(1e6, seed=1, gpu=None)], max_regression=0.05)
    assert "the baseline does not tell which GPU it was" in change.remarks[0]
    [plain] = changes([measured(1e6, seed=2)], [measured(1e6, seed=1)], max_regression=0.05)
    assert plain.remarks == ()


def test_a_case_with_a_cuda_graph_is_another_case() -> None:
    with pytest.raises(DataError, match="none of the 1 cases"):
        changes([on_gpu(1e6, seed=2, cuda_graph=True)], [on_gpu(1e6, seed=1)], max_regression=0.05)


def test_a_case_that_another_provider_ran_is_told_as_not_compared(baseline: Path) -> None:
    # LiteRT's "xnnpack" becomes "cpu" where a new operator keeps it from the whole graph: no change, but another case.
    fell_back = dataclasses.replace(measured(9e6, seed=6), provider="xnnpack")
    same = measured(3e6, seed=7, batch=4)
    compared = changes([fell_back, same], read_results(baseline), max_regression=0.05)
    assert [change.latency for change in compared] == [same]
    assert "by xnnpack: not in the baseline" in not_compared([fell_back, same], compared)[0]


def test_another_model_of_the_same_name_is_not_taken_for_one_that_moved(baseline: Path) -> None:
    own = measured(1e6, seed=6)
    other = measured(1e6, seed=6, artifact="y/tiny/onnx-fp32")
    compared = changes([own, other], read_results(baseline), max_regression=0.05)
    assert [change.latency for change in compared] == [own]


def test_machines_that_are_reached_by_an_address_are_compared_each_with_itself(tmp_path: Path) -> None:
    board = {**dataclasses.asdict(HOST), "cpu": "Board"}
    server = {**dataclasses.asdict(HOST), "cpu": "Server"}
    records = []
    for address, host, median in (("ssh://a", board, 1e6), ("ssh://b", board, 2e6), ("ssh://c", server, 5e5)):
        records.append({**to_json(measured(median, seed=1)), "host": host, "on": address})
    path = tmp_path / "boards.json"
    path.write_text(json.dumps(documents.document("bench", records, ok=True)))
    before = read_results(path)
    assert [change.ratio for change in changes(before, before, max_regression=0.05)] == [1, 1, 1]
    new = dataclasses.replace(before[0], on="ssh://d")  # the same model of a board is another machine all the same
    with pytest.raises(DataError, match="another machine"):
        changes([new], before, max_regression=0.05)
    assert changes([new], before, max_regression=0.05, any_host=True)[0].ratio == 1
    here = dataclasses.replace(before[2], on=None)  # at the machine itself, without its address
    assert changes([here], before, max_regression=0.05)[0].before == before[2]


def test_what_cannot_be_compared_is_said_before_anything_is_measured(
    run: Any, bundles: dict[str, Path], baseline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vit_deploy.performance.bench.CaseProcess", None)
    said = run("bench", bundles["onnx"], "--runs", 3, "--baseline", baseline)
    assert said.code == 2 and "none of the" in said.err
    document = json.loads(baseline.read_text())
    for result in document["results"]:
        result |= {"artifact": str(bundles["onnx"]), "host": {**result["host"], "cpu": "Another"}}
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    said = run("bench", bundles["onnx"], "--runs", 3, "--baseline", other)
    assert said.code == 2 and "another machine: cpu Another, now" in said.err


def test_what_was_measured_is_kept_where_it_turns_out_that_another_provider_ran_it_then(
    run: Any, bundles: dict[str, Path], baseline: Path, tmp_path: Path
) -> None:
    document = json.loads(baseline.read_text())
    for result in document["results"]:
        result |= {"artifact": str(bundles["onnx"]), "provider": "cuda", "host": read_host().to_dict()}
        result |= {"threads": read_host().threads}
    other, saved = tmp_path / "other.json", tmp_path / "saved.json"
    other.write_text(json.dumps(document))
    options = ["--runtime", "onnxruntime", "--runs", 3]
    said = run("bench", bundles["onnx"], *options, "--baseline", other, "--save", saved)
    assert said.code == 2 and "the baseline has none of the 1 cases" in said.err
    [kept] = json.loads(saved.read_text())["results"]
    assert len(kept["samples_ns"]) == 3 and kept["baseline"] is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("nonsense", "is not JSON"),
        ("[]", "no document of vit-deploy"),
        ('{"schema": 1, "command": "bench", "results": [{"p50_ms": NaN}]}', "is not JSON: NaN is no number"),
        ('{"schema": 2, "command": "bench", "results": []}', "another version of vit-deploy: its schema is 2"),
        ('{"schema": 1, "command": "export", "results": []}', "is of export; expected one of bench"),
        ('{"schema": 1, "command": "bench", "results": 5}', "results is no list of records"),
        ('{"schema": 1, "command": "bench", "results": [{}]}', "'samples_ns' is missing"),
        ('{"schema": 1, "command": "bench", "results": [{"samples_ns": [], "round_calls": []}]}', "no samples"),
    ],
)
def test_a_file_that_is_no_baseline_is_an_error(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "b.json").write_text(text)
    with pytest.raises(DataError, match=problem):
        read_results(tmp_path / "b.json")
    with pytest.raises(DataError, match="No such file"):
        read_results(tmp_path / "none.json")


def test_a_baseline_of_no_time_is_damaged_and_no_division_by_it(baseline: Path) -> None:
    document = json.loads(baseline.read_text())
    document["results"][0]["samples_ns"] = [0] * 100
    baseline.write_text(json.dumps(document))
    with pytest.raises(DataError, match="a call took no time"):
        read_results(baseline)


@pytest.mark.slow
def test_the_command_saves_and_compares(run: Any, bundles: dict[str, Path], tmp_path: Path) -> None:
    saved = tmp_path / "now.json"
    said = run("bench", bundles["onnx"], "--runs", 10, "--save", saved)
    assert said.code == 0, said.err
    assert run("bench", bundles["onnx"], "--runs", 3, "--save", saved).code == 2  # it is there
    document = json.loads(saved.read_text())
    slower, faster = tmp_path / "slower.json", tmp_path / "faster.json"
    for path, factor in ((slower, 50), (faster, 0.02)):
        changed = json.loads(json.dumps(document))
        for result in changed["results"]:
            result["samples_ns"] = [int(sample * factor) for sample in result["samples_ns"]]
        path.write_text(json.dumps(changed))
    said = run("bench", bundles["onnx"], "--runs", 10, "--baseline", slower)
    assert said.code == 0, said.err
    said = run("bench", bundles["onnx"], "--runs", 10, "--baseline", faster, "--max-regression", "10%", "--json")
    assert said.code == 1
    assert said.document["results"][0]["baseline"]["regressed"] is True
    assert "slower than allowed" in said.err
    said = run("bench", bundles["onnx"], "--runs", 10, "--baseline", faster, "--quiet")
    assert said.code == 1 and "slower than allowed" in said.err
    assert run("bench", bundles["onnx"], "--max-regression", "ten").code == 2
