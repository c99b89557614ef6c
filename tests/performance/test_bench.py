from __future__ import annotations

import dataclasses
import os

import pytest

from tests.linear_bundle import write_bundle
from vit_deploy.core.host import read_host
from vit_deploy.core.manifest import read_artifact, write_manifest
from vit_deploy.errors import ArtifactError, ConfigError, EngineError
from vit_deploy.performance import bench as bench_module
from vit_deploy.performance.bench import Case, Plan, bench
from vit_deploy.performance.process import CaseProcess

QUICK = Plan(seconds=None, runs=7, rounds=3, warmup=2, timeout_s=60)


@pytest.fixture
def make_bundle(tmp_path):
    return lambda name="onnx-fp32", batch=None: write_bundle(tmp_path / name, batch)


def test_cases_are_timed_side_by_side_and_told_in_order(make_bundle):
    bundle, fixed = make_bundle(), make_bundle("fixed", batch=2)
    told = []
    cases = [
        Case(bundle, "onnxruntime", batch=1, threads=1),
        Case(bundle, "onnxruntime", batch=3),
        Case(fixed, "onnxruntime", batch=3, threads=1),
    ]
    results = bench(cases, QUICK, lambda what, done: told.append((what, done)))
    assert [result.case.batch for result in results] == [1, 3, 3]
    assert results[1].case.threads == read_host().threads
    for result in results:
        assert len(result.samples_ns) == 7
        assert min(result.samples_ns) > 0
        assert result.provider == "cpu"
        assert result.warmup_calls == 2
        assert result.load_ms > 0 and result.first_ms > 0
        assert 20 < result.peak_rss_mb < 2000
        assert result.plan is QUICK
    assert results[2].notes[0] == (
        "the file is made for batch 2: a batch of 3 runs as 2 calls of 2, the last filled up from 1"
    )
    steps = [what.split()[0] for what, _ in told]
    assert steps == ["loading"] * 3 + ["warming"] * 3 + ["measuring"] * 9 + ["measured"]
    assert [done for _, done in told] == sorted(done for _, done in told)
    assert told[0][1] == 0 and told[-1][1] == 1


def test_cases_take_turns(make_bundle, monkeypatch):
    bundle = make_bundle()
    turns = []

    class Recorded(CaseProcess):
        def ask(self, request, **others):
            answer = super().ask(request, **others)
            turns.append((self._process.pid, *request))
            return answer

    monkeypatch.setattr(bench_module, "CaseProcess", Recorded)
    bench([Case(bundle, "onnxruntime", threads=1), Case(bundle, "onnxruntime", threads=1, batch=2)], QUICK)
    order = [pid for pid, *_ in turns]
    assert len(set(order)) == 2
    assert os.getpid() not in order
    assert order == order[:2] * 5
    for pid in set(order):  # and none outlives the benchmark
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_plan_in_seconds_is_kept(make_bundle):
    (result,) = bench([Case(make_bundle(), "onnxruntime", threads=1)], Plan(seconds=0.3, rounds=2, warmup=1))
    assert 0.15 < sum(result.samples_ns) / 1e9 < 1.0


@pytest.mark.slow
def test_a_checkpoint_file_is_timed_in_keras(checkpoint, tmp_path):
    from vit_deploy.model.vit import ViT

    path = tmp_path / "small.keras"
    ViT.from_checkpoint(checkpoint).save(path)
    (result,) = bench([Case(path, "keras", batch=3, threads=1)], QUICK)
    assert len(result.samples_ns) == 7
    assert result.file_batch is None
    assert not any("made for" in note for note in result.notes)


def test_no_cases_are_no_results():
    assert bench([]) == []


def test_an_engine_that_refuses_is_an_error_that_names_the_case(make_bundle):
    bundle = make_bundle()
    case = Case(bundle, "onnxruntime", provider="tensorrt", threads=1)
    with pytest.raises(EngineError, match=r"in onnxruntime on tensorrt \(batch 1, 1 thread\)") as error:
        bench([Case(bundle, "onnxruntime"), case], QUICK)
    assert "TensorrtExecutionProvider" in error.value.message
    assert "vit-deploy[tensorrt]" in error.value.fix


def test_the_others_go_on_where_one_case_cannot_run_and_it_is_named(make_bundle):
    bundle, damaged = make_bundle(), make_bundle("damaged")
    (damaged / "model.onnx").write_bytes(b"no model")
    write_manifest(read_artifact(damaged, check_digests=False))
    cases = [Case(damaged, "onnxruntime", threads=1), Case(bundle, "onnxruntime", threads=1)]
    left = []
    for plan in (QUICK, dataclasses.replace(QUICK, one_at_a_time=True)):
        [result] = bench(cases, plan, left_out=lambda case, error: left.append((case, type(error), error.message)))
        assert result.case.artifact == bundle and len(result.samples_ns) == 7
    assert [case for case, *_ in left] == [cases[0]] * 2
    assert all(kind is EngineError and f"{damaged} in onnxruntime" in words for _, kind, words in left)
    with pytest.raises(EngineError, match="damaged in onnxruntime"):
        bench(cases[:1], QUICK, left_out=lambda case, error: None)


def test_all_that_cannot_be_is_said_before_any_process_starts(make_bundle, monkeypatch):
    bundle = make_bundle()
    monkeypatch.setattr(bench_module, "CaseProcess", None)
    with pytest.raises(ConfigError) as error:
        bench([Case(bundle, "litert"), Case(bundle, "onnxruntime", batch=0), Case(bundle, "onnxruntime", threads=-1)])
    assert "litert does not run" in error.value.message
    assert "batch is 0" in error.value.message
    assert "threads is -1" in error.value.message
    with pytest.raises(ArtifactError, match="does not exist"):
        bench([Case(bundle / "nothing", "onnxruntime")])
    (bundle / "golden.npz").unlink()
    with pytest.raises(ArtifactError, match=r"golden\.npz is missing"):
        bench([Case(bundle, "onnxruntime")])


def test_calls_of_several_streams_overlap(make_bundle):
    bundle = make_bundle()
    cases = [Case(bundle, "onnxruntime", threads=1), Case(bundle, "onnxruntime", threads=1, streams=2)]
    one, two = bench(cases, QUICK)
    assert (len(one.samples_ns), len(two.samples_ns)) == (7, 7)
    assert two.round_calls == (3, 2, 2)
    assert two.throughput_per_s == pytest.approx(7 / (sum(two.round_ns) / 1e9))
    assert "2 streams" in str(two.case)
    assert one.bytes == (bundle / "model.onnx").stat().st_size
    assert one.preprocess_ms > 0
    assert 0 < one.growth_mb < 500


def test_cores_are_shared_among_the_streams(make_bundle, monkeypatch):
    four = dataclasses.replace(read_host(), cores=4.0)
    monkeypatch.setattr(bench_module, "read_host", lambda: four)
    (result,) = bench([Case(make_bundle(), "onnxruntime", streams=2)], QUICK)
    assert result.case.threads == 2
