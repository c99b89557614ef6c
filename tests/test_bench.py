from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from vit_deploy import bench as bench_module
from vit_deploy import bench_worker
from vit_deploy.artifact import Artifact, InputSpec, write_manifest
from vit_deploy.bench import Case, Latency, Plan, bench, to_json
from vit_deploy.bench_process import CaseProcess
from vit_deploy.bench_worker import peak_rss_mb
from vit_deploy.config import ViTConfig
from vit_deploy.energy import EnergyMeter
from vit_deploy.errors import ArtifactError, ConfigError, EngineError
from vit_deploy.golden import Golden, write_golden
from vit_deploy.host import read_host
from vit_deploy.latency import from_json
from vit_deploy.preprocess import Preprocess

HEIGHT, WIDTH, CHANNELS, CLASSES = 6, 5, 3, 4
QUICK = Plan(seconds=None, runs=7, rounds=3, warmup=2, timeout_s=60)


@pytest.fixture
def make_bundle(tmp_path):
    """An ONNX bundle of one matrix product, with golden images."""

    def make(name="onnx-fp32", batch=None):
        rng = np.random.default_rng(5)
        directory = tmp_path / name
        directory.mkdir()
        shape = (batch, HEIGHT, WIDTH, CHANNELS)
        weight = rng.standard_normal((HEIGHT * WIDTH * CHANNELS, CLASSES)).astype(np.float32)
        sides = ["batch" if side is None else side for side in shape]
        graph = helper.make_graph(
            [helper.make_node("Flatten", ["images"], ["x"]), helper.make_node("MatMul", ["x", "w"], ["logits"])],
            "linear",
            [helper.make_tensor_value_info("images", TensorProto.FLOAT, sides)],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [sides[0], CLASSES])],
            [numpy_helper.from_array(weight, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, directory / "model.onnx")
        images = rng.standard_normal((2, HEIGHT, WIDTH, CHANNELS)).astype(np.float32)
        write_golden(Golden(images, images.reshape(2, -1).astype(np.float64) @ weight, 1e-6), directory)
        return write_manifest(
            Artifact(
                directory=directory,
                format="onnx",
                precision="fp32",
                config=ViTConfig((HEIGHT, WIDTH), (3, 5), CHANNELS, 4, 1, 1, 8, CLASSES),
                preprocess=Preprocess.for_channels(CHANNELS),
                labels=(),
                input=InputSpec(shape),
                weights_digest="",
            )
        ).directory

    return make


def latency(samples_ns, **changes):
    facts = {
        "case": Case(Path("a"), "onnxruntime", batch=4, threads=2),
        "plan": Plan(),
        "host": dataclasses.replace(read_host(), competing=None),
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
    assert "vit-deploy[gpu]" in error.value.fix


def test_all_that_cannot_be_is_said_before_any_process_starts(make_bundle, monkeypatch):
    bundle = make_bundle()
    monkeypatch.setattr(bench_module, "CaseProcess", None)
    with pytest.raises(ConfigError) as error:
        bench([Case(bundle, "litert"), Case(bundle, "onnxruntime", batch=0), Case(bundle, "onnxruntime", threads=-1)])
    assert "litert does not run" in error.value.message
    assert "batch is 0" in error.value.message
    assert "threads is -1" in error.value.message
    with pytest.raises(ArtifactError, match="is not a bundle"):
        bench([Case(bundle / "nothing", "onnxruntime")])
    (bundle / "golden.npz").unlink()
    with pytest.raises(ArtifactError, match=r"golden\.npz is missing"):
        bench([Case(bundle, "onnxruntime")])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"seconds": None}, "expected one of them"),
        ({"runs": 3}, "expected one of them"),
        ({"seconds": math.nan}, "seconds is nan"),
        ({"seconds": None, "runs": 0}, "runs is 0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"warmup": -1}, "warmup is -1"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes, problem):
    with pytest.raises(ConfigError, match=problem):
        Plan(**changes)


def test_runs_are_shared_among_the_rounds():
    shares = [request["calls"] for request in Plan(seconds=None, runs=7, rounds=3).requests()]
    assert shares == [3, 2, 2]
    assert [request["calls"] for request in Plan(seconds=None, runs=2, rounds=5).requests()] == [1, 1]


def worker(tmp_path, body, timeout_s=20.0):
    script = tmp_path / "worker.py"
    script.write_text(f"import json, os, sys, time\n{body}\n")
    return CaseProcess("the case", timeout_s, [sys.executable, str(script)])


def test_a_crash_is_an_error_with_what_the_process_said_last(tmp_path):
    body = "sys.stdin.readline(); print('out of tensors', file=sys.stderr); sys.exit(3)"
    with (
        worker(tmp_path, body) as process,
        pytest.raises(EngineError, match=r"the case: .*exit 3(?s:.*)out of tensors"),
    ):
        process.ask({})


def test_a_process_that_the_system_kills_is_an_error_that_names_the_signal(tmp_path):
    body = "sys.stdin.readline(); sys.stdout.write('{\"half'); sys.stdout.flush(); os.kill(os.getpid(), 9)"
    with worker(tmp_path, body) as process, pytest.raises(EngineError, match=r"SIGKILL(?s:.*)smaller batch"):
        process.ask({})


def test_a_process_that_died_before_it_was_asked_is_an_error(tmp_path):
    with worker(tmp_path, "sys.exit(4)") as process:
        process._process.wait()
        with pytest.raises(EngineError, match="exit 4"):
            process.ask({"long": "x" * 100_000})


def test_a_process_that_hangs_is_killed_in_time(tmp_path):
    begun = time.monotonic()
    with worker(tmp_path, "time.sleep(60)", timeout_s=0.3) as process:
        with pytest.raises(EngineError, match=r"the case: no answer in 0\.3 s"):
            process.ask({})
        assert process._process.wait(5) < 0
    assert time.monotonic() - begun < 10


def test_an_interrupt_leaves_no_process_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), worker(tmp_path, "time.sleep(60)") as process:
        raise KeyboardInterrupt
    assert process._process.returncode is not None


def test_what_an_engine_prints_does_not_get_into_the_answers(make_bundle, tmp_path):
    # The worker as it is, with an engine that prints on all ways there are and reads from stdin.
    body = """
import sys
from vit_deploy import bench_worker
from vit_deploy.runtimes import ort
original = ort.OnnxSession._run
def noisy(self, images):
    print("from Python"); sys.stdout.flush(); os.write(1, b"from C"); os.system("echo from a child")
    assert sys.stdin.read() == ""
    return original(self, images)
ort.OnnxSession._run = noisy
sys.exit(bench_worker.main())
"""
    case = {"artifact": str(make_bundle()), "runtime": "onnxruntime", "provider": None, "threads": 1, "batch": 2}
    with worker(tmp_path, body) as process:
        assert process.ask(case)["provider"] == "cpu"
        assert len(process.ask({"calls": 2, "seconds": None})["samples_ns"]) == 2
        process._stderr.seek(0)
        assert process._stderr.read().count(b"from C") == 4


def test_peak_memory_is_the_processs_own_and_not_its_parents(tmp_path):
    ballast = np.ones(60_000_000, np.float32)  # 240 MB
    body = """
from vit_deploy.bench_worker import peak_rss_mb
sys.stdin.readline()
print(json.dumps({"mb": peak_rss_mb()}))
"""
    with worker(tmp_path, body) as process:
        assert 10 < process.ask({})["mb"] < 200
    assert peak_rss_mb() > ballast.nbytes / 1e6


def test_peak_memory_is_told_where_there_is_no_proc(tmp_path):
    told = peak_rss_mb(tmp_path / "nothing")
    assert told == pytest.approx(peak_rss_mb(), rel=0.5)


def test_a_worker_waits_until_its_threads_sleep(monkeypatch):
    monkeypatch.setattr(bench_worker, "IDLE_LIMIT_S", 30.0)
    end = time.monotonic() + 0.4
    spinning = threading.Thread(target=lambda: [None for _ in iter(lambda: time.monotonic() < end, False)])
    spinning.start()
    assert bench_worker._sleep_until_idle()
    assert time.monotonic() >= end - 0.05
    spinning.join()


def test_a_thread_that_never_sleeps_is_told(monkeypatch):
    monkeypatch.setattr(bench_worker, "IDLE_LIMIT_S", 0.2)
    stop = threading.Event()
    spinning = threading.Thread(target=lambda: [None for _ in iter(stop.is_set, True)])
    spinning.start()
    try:
        assert not bench_worker._sleep_until_idle()
    finally:
        stop.set()
        spinning.join()


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
    busy = dataclasses.replace(read_host(), competing=1.5)
    assert latency([1000] * 5, host=busy).unsteady == ("other processes kept 1.5 cores busy when it began",)
    assert "batch of 4 runs as 4 calls of 1" in latency([1000] * 5, file_batch=1).notes[0]
    assert "9 warm-up calls" in latency([1000] * 5, flat=False).notes[0]
    assert "kept working" in latency([1000] * 5, idle=False).notes[0]
    assert "may be busy" in latency([1000, 2000] * 5).notes[0]


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


def test_a_ratio_is_that_of_the_medians():
    base, slower = latency([1000, 1010] * 5, round_calls=(5, 5)), latency([1500, 1515] * 5, round_calls=(5, 5))
    ratio, interval = slower.ratio_to(base)
    assert ratio == pytest.approx(1.5)
    assert interval.low <= 1.5 <= interval.high and interval.excludes(1.3)
    assert to_json(slower, base)["ratio"] == ratio


def test_energy_is_what_the_counters_of_the_packages_grew_by(tmp_path):
    def put(name, **files):
        (tmp_path / name).mkdir(exist_ok=True)
        for key, value in files.items():
            (tmp_path / name / key).write_text(f"{value}\n")

    put("intel-rapl:0", energy_uj=9_000_000, max_energy_range_uj=10_000_000)
    put("intel-rapl:0:0", energy_uj=1, max_energy_range_uj=10_000_000)
    meter = EnergyMeter(tmp_path)
    put("intel-rapl:0", energy_uj=1_500_000)  # it went past its range and began anew
    put("intel-rapl:0:0", energy_uj=900_000)
    assert meter.joules() == pytest.approx(2.5)
    assert EnergyMeter(tmp_path / "nothing").joules() is None
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("secret")
    assert meter.joules() is None


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
