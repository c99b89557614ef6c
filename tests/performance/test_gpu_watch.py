"""What the process that times a case does on a GPU, with stand-ins for the engine, the driver, and NVML."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import time
from typing import ClassVar

import numpy as np
import pytest

from tests.fake_gpu import H100, FakeDriver, FakeNvml, install, running
from vit_deploy.core import child_processes
from vit_deploy.core.host import read_host
from vit_deploy.errors import ConfigError, EngineError
from vit_deploy.performance import bench as bench_module
from vit_deploy.performance import gpu_watch, worker
from vit_deploy.performance.bench import Case, Plan, bench, has_no_room, takes_threads
from vit_deploy.performance.gpu_watch import GpuWatch, is_for_gpu
from vit_deploy.runtimes import DeviceRuntime, DeviceSession, RuntimeOptions

IMAGES = np.zeros((2, 4, 6, 3), np.float32)
REQUEST = {"artifact": "a", "runtime": "onnxruntime", "provider": "cuda", "threads": None, "batch": 2}


class FakeSession:
    """A model on a GPU; it counts what it is asked, and `log` is shared among the streams."""

    provider, trial_ns, build_ns = "cuda", 0, 0
    placement: ClassVar[dict[str, int]] = {}
    notes = ("a note of the engine's",)

    def __init__(self, nvml, log, index=0):
        self.nvml, self.log, self.index = nvml, log, index

    def _made(self, what):
        self.log.append((what, self.index))
        state = self.nvml.state[H100["bus_id"]]
        state["energy"] += 1_000
        time.sleep(0.001)

    def infer(self, images):
        raise AssertionError("it is asked step by step")

    def upload(self, images):
        self._made("upload")

    def compute(self):
        self._made("compute")

    def launch(self):
        self.log.append(("launch", self.index))

    def wait(self):
        self.log.append(("wait", self.index))

    def download(self):
        self._made("download")
        return np.zeros((2, 5), np.float32)


@pytest.fixture
def nvml(monkeypatch):
    found = FakeNvml()
    install(monkeypatch, found)
    monkeypatch.setattr(gpu_watch, "GpuWatch", lambda device: GpuWatch(device, lambda: FakeDriver(H100)))
    monkeypatch.setattr(worker, "GPU_WARMUP_S", 0.05)
    monkeypatch.setattr(gpu_watch, "REWARM_S", 0.03)
    monkeypatch.setattr(gpu_watch, "QUEUED_S", 0.02)
    monkeypatch.setattr(worker, "_sleep_until_idle", lambda calls: True)
    return found


def served(nvml, *requests, streams=1, session=FakeSession, log=None):
    """The answers to a case and to requests about it."""
    answers, log = [], [] if log is None else log
    count = iter(range(streams))

    @contextlib.contextmanager
    def open_case(case):
        nvml.state[H100["bus_id"]]["used"] += 500_000_000
        yield session(nvml, log, next(count)), IMAGES, {"load_ms": 1.0, "file_batch": None}

    lines = [{**REQUEST, "streams": streams}, *requests]
    worker._serve(io.StringIO("".join(json.dumps(line) + "\n" for line in lines)), answers.append, open_case)
    return answers


ROUND = {"calls": 3, "seconds": None}


def test_the_card_is_told_with_the_case_and_its_state_at_both_ends_of_each_round(nvml):
    nvml.state[H100["bus_id"]] |= {"reasons": 0x4, "processes": [running(None)]}
    loaded, first, second = served(nvml, ROUND, ROUND)
    assert loaded["gpu"]["name"] == "NVIDIA H100 80GB HBM3" and loaded["gpu"]["driver"] == "580.65.06"
    assert loaded["notes"][0] == "a note of the engine's"
    assert "how much that in use on the card grew" in loaded["notes"][1]
    for one in (first, second):
        assert [state["sm_mhz"] for state in one["gpu_states"]] == [1980.0, 1980.0]
        assert one["gpu_states"][0]["reasons"] == ["power limit"]
        assert one["peak_gpu_mb"] == pytest.approx(500.0)


def test_without_the_drivers_library_the_figures_are_none_and_one_note_says_why(nvml, monkeypatch):
    def absent():
        raise OSError("no libcuda.so.1")

    monkeypatch.setattr(gpu_watch, "GpuWatch", lambda device: GpuWatch(device, absent))
    loaded, measured = served(nvml, ROUND)
    assert loaded["gpu"] is None and measured["peak_gpu_mb"] is None and measured["gpu_energy_j"] is None
    assert measured["gpu_states"] == [None, None]
    assert len(loaded["notes"]) == 2 and "libcuda.so.1" in loaded["notes"][1]


def test_each_stream_makes_its_first_call_before_any_is_warmed_up(nvml):
    log = []
    _, warmed = served(nvml, {"warmup": 2}, streams=3, log=log)
    computed = [index for what, index in log if what == "compute"]
    assert computed[:3] == [0, 1, 2]
    assert len(warmed["samples_ns"]) == 6


def test_first_call_of_a_stream_is_no_part_of_the_warm_up(nvml):
    class Building(FakeSession):
        def compute(self):
            if ("compute", self.index) not in self.log:  # an engine is built in the first run
                time.sleep(0.2)
            super().compute()

    _, warmed = served(nvml, {"warmup": 2}, streams=2, session=Building)
    assert max(warmed["samples_ns"]) < 100_000_000


def test_the_clock_is_brought_up_before_each_round_and_that_is_neither_timed_nor_counted(nvml):
    log = []
    loaded, measured = served(nvml, ROUND, log=log)
    assert loaded["provider"] == "cuda"
    before = len([1 for what, _ in log if what == "compute"]) - 3
    assert before > 1 + worker.TRANSFERS + 5  # 0.03 s of calls of a millisecond
    assert len(measured["samples_ns"]) == 3
    assert measured["gpu_energy_j"] == 3.0  # a joule a call


def test_calls_are_queued_without_a_wait_for_each_and_one_at_the_end(nvml):
    log = []
    _, measured = served(nvml, ROUND, log=log, streams=2)
    for stream in (0, 1):
        own = [what for what, index in log if index == stream and what in ("launch", "wait")]
        assert own == ["launch"] * (len(own) - 1) + ["wait"] and len(own) > 5
    launched = sum(what == "launch" for what, _ in log)
    assert measured["queued_calls"] == launched and 0 < measured["queued_ns"] < 1_000_000_000
    assert worker._queued([], [1]) == {"queued_calls": None, "queued_ns": None}


def test_memory_that_another_case_takes_meanwhile_is_not_counted(nvml):
    answers = []

    @contextlib.contextmanager
    def open_case(case):
        nvml.state[H100["bus_id"]]["used"] += 500_000_000
        yield FakeSession(nvml, []), IMAGES, {"load_ms": 1.0, "file_batch": None}

    class Requests:
        def readline(self):
            return json.dumps({**REQUEST, "streams": 1}) + "\n"

        def __iter__(self):
            nvml.state[H100["bus_id"]]["used"] += 7_000_000_000
            yield json.dumps(ROUND)

    worker._serve(Requests(), answers.append, open_case)
    assert answers[1]["peak_gpu_mb"] == pytest.approx(500.0)


class FakeRuntime:
    """An engine that opens the device first."""

    log: ClassVar[list[str]] = []

    def prepare(self, options: RuntimeOptions = RuntimeOptions()) -> None:
        self.log.append(f"prepare {options.provider} {options.device}")

    @contextlib.contextmanager
    def open(self, artifact, options=RuntimeOptions()):
        self.log.append(f"open {options.threads} {options.largest_batch} {options.cuda_graph}")
        session = FakeSession(FakeNvml(), [])
        session.trial_ns, session.build_ns = 2_000_000, 5_000_000
        time.sleep(0.02)
        yield session


def test_the_device_is_opened_before_the_resting_memory_is_read_and_loading_is_timed(nvml, monkeypatch, tmp_path):
    from tests.linear_bundle import write_bundle

    log = FakeRuntime.log = []
    assert isinstance(FakeRuntime(), DeviceRuntime) and isinstance(FakeSession(nvml, []), DeviceSession)
    monkeypatch.setattr(worker.RUNTIMES, "load", lambda name: FakeRuntime)
    monkeypatch.setattr(worker, "rss_mb", lambda: log.append("resting") or 100.0)
    case = {**REQUEST, "artifact": str(write_bundle(tmp_path / "bundle")), "device": 1, "cuda_graph": True}
    with worker._opened({**case, "spare_threads": 4}) as (_, _, facts):
        assert log == ["prepare cuda 1", "resting", "open None 2 True"]
        assert facts["build_ms"] == 5.0 and facts["first_ms"] == 2.0
        assert 12.0 < facts["load_ms"] < 20.0 + 500.0  # 20 ms without the first call and the building
        assert facts["threads"] is None


def test_threads_are_given_to_processors_alone_and_what_the_user_asks_for_always(nvml, monkeypatch, tmp_path):
    from tests.linear_bundle import write_bundle

    FakeRuntime.log = []
    monkeypatch.setattr(worker.RUNTIMES, "load", lambda name: FakeRuntime)
    case = {**REQUEST, "artifact": str(write_bundle(tmp_path / "bundle")), "spare_threads": 4}
    for asked in ({"provider": "cpu"}, {"provider": "cuda"}, {"provider": "cuda", "threads": 3}):
        with worker._opened({**case, **asked}):
            pass
    assert [event.split()[1] for event in FakeRuntime.log if event.startswith("open")] == ["4", "None", "3"]


@pytest.mark.parametrize(
    ("runtime", "provider", "backend", "takes"),
    [
        ("onnxruntime", None, "tensorflow", True),
        ("onnxruntime", "cuda", "tensorflow", False),
        ("onnxruntime", "tensorrt", "tensorflow", False),
        ("savedmodel", "cuda", "tensorflow", False),
        ("tensorrt", None, "tensorflow", False),
        ("keras", "cpu", "tensorflow", True),
        ("keras", "cpu", "jax", False),
        ("keras", None, "torch", False),
        ("keras", "cuda-eager", "torch", False),
    ],
)
def test_who_takes_a_number_of_threads(monkeypatch, runtime, provider, backend, takes):
    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setattr(child_processes, "_before", {})
    assert takes_threads(runtime, provider) is takes


def test_tensorflow_may_choose_a_gpu_that_is_there():
    def absent():
        raise OSError("no libcuda.so.1")

    case = {"runtime": "savedmodel", "provider": None}
    assert is_for_gpu(case, lambda: FakeDriver(H100)) and not is_for_gpu(case, absent)
    assert not is_for_gpu({**case, "provider": "cpu"}, lambda: FakeDriver(H100))
    assert not is_for_gpu({**case, "runtime": "onnxruntime"}, lambda: FakeDriver(H100))
    assert is_for_gpu({**case, "runtime": "tensorrt"}, absent)  # which knows no other place


class Worker:
    """Answers as the process of a case on a GPU does; `log` is shared."""

    log: ClassVar[list[tuple[str, str]]] = []
    fails: str | None = None

    def __init__(self, name, timeout_s):
        self.name, self.timeout_s = name, timeout_s

    def __enter__(self):
        self.log.append(("begin", self.name))
        return self

    def __exit__(self, *error):
        self.log.append(("end", self.name))

    def ask(self, request, *, extra_s=0.0):
        if "artifact" in request:
            if self.fails and len([1 for what, _ in self.log if what == "load"]) == 1:
                raise EngineError(f"{self.name}: {self.fails}", fix="the engine's own")
            self.log.append(("load", self.name))
            facts = {"name": "H100", "power_limit_w": 700.0}
            return {
                **{"provider": "cuda", "load_ms": 1.0, "first_ms": 1.0, "bytes": 5, "resting_rss_mb": None},
                **{"file_batch": None, "placement": {}, "transfer_ns": [1_000_000], "build_ms": 9.0, "gpu": facts},
                **{"notes": ["said"], "threads": request["threads"]},
            }
        if "warmup" in request:
            return {"samples_ns": [1], "flat": True}
        self.log.append(("round", self.name))
        state = {"sm_mhz": 1980.0, "reasons": [], "temperature_c": 40.0}
        return {
            **{"samples_ns": [1_000_000] * 3, "round_ns": 600_000_000, "idle": True, "peak_rss_mb": 100.0},
            **{"energy_j": None, "gpu_energy_j": 60.0, "queued_calls": 10, "queued_ns": 5_000_000},
            **{"gpu_states": [state, {**state, "sm_mhz": 1700.0}], "peak_gpu_mb": 900.0, "preprocess_ns": []},
        }


@pytest.fixture
def two(monkeypatch, tmp_path):
    """Two cases on a GPU."""
    from tests.linear_bundle import write_bundle

    Worker.log, Worker.fails = [], None
    monkeypatch.setattr(bench_module, "CaseProcess", Worker)
    bundle = write_bundle(tmp_path / "onnx-fp32")
    return [Case(bundle, "onnxruntime", "cuda", batch=batch) for batch in (1, 4)]


PLAN = Plan(seconds=None, runs=6, rounds=2)


def test_a_case_keeps_all_that_was_told_of_its_gpu(two):
    first, second = bench(two, PLAN)
    assert first.case.threads is None
    assert first.gpu is not None and (first.gpu.name, len(first.gpu.rounds)) == ("H100", 2)
    assert first.gpu_energy_j == 120.0 and second.gpu_energy_mj_per_image == pytest.approx(120e3 / 24)
    assert first.build_ms == 9.0 and first.peak_gpu_mb == 900.0
    assert second.queued_throughput_per_s == pytest.approx(4 * 20 / 0.01)
    assert "said" in first.notes
    assert "the GPU's clock was between 1700 and 1980 MHz" in first.unsteady
    assert any("told apart" in note for note in first.notes)


def test_cases_are_loaded_together_and_take_turns_unless_they_are_measured_one_at_a_time(two):
    bench(two, PLAN)
    assert [what for what, _ in Worker.log] == ["begin"] * 2 + ["load"] * 2 + ["round"] * 4 + ["end"] * 2
    Worker.log = []
    results = bench(two, dataclasses.replace(PLAN, one_at_a_time=True))
    assert [what for what, _ in Worker.log] == ["begin", "load", "round", "round", "end"] * 2
    assert [result.case.batch for result in results] == [1, 4]
    assert all("their rounds took no turns" in str(result.notes) for result in results)


@pytest.mark.parametrize(
    "said",
    [
        "CUDA failure 2: out of memory",
        "Failed to allocate memory for requested buffer of size 4096",
        "RESOURCE_EXHAUSTED: OOM when allocating tensor",
        "CUDA failure 46: all CUDA-capable devices are busy or unavailable",
        "out of GPU memory: a smaller batch",
        "the GPU is busy with another process that has it alone, or not available",
    ],
)
def test_a_gpu_without_room_for_all_cases_leads_to_loading_one_at_a_time(two, said):
    Worker.fails = said
    with pytest.raises(EngineError) as error:
        bench(two, PLAN)
    assert said in error.value.message and "--one-at-a-time" in error.value.fix
    assert has_no_room(error.value)


def test_other_failures_and_a_case_alone_keep_their_own_fix(two):
    Worker.fails = "INVALID_GRAPH"
    with pytest.raises(EngineError) as error:
        bench(two, PLAN)
    assert error.value.fix == "the engine's own"
    Worker.log, Worker.fails = [], "CUDA failure 2: out of memory"
    with pytest.raises(EngineError) as error:
        bench(two, dataclasses.replace(PLAN, one_at_a_time=True))
    assert error.value.fix == "the engine's own"


def test_graphs_of_cuda_and_gpus_that_cannot_be_are_refused_before_anything_starts(two):
    wrong = [dataclasses.replace(two[0], provider=None, cuda_graph=True), dataclasses.replace(two[0], device=-1)]
    with pytest.raises(ConfigError) as error:
        bench(wrong, PLAN)
    assert "cuda_graph is of GPUs; the provider is not given" in error.value.message
    assert "device is -1" in error.value.message
    assert Worker.log == []


def test_processors_get_their_share_of_the_cores_as_before(two, monkeypatch):
    asked = []

    class Asked(Worker):
        def ask(self, request, *, extra_s=0.0):
            asked.append(request.get("spare_threads", "no case"))
            return super().ask(request, extra_s=extra_s)

    monkeypatch.setattr(bench_module, "CaseProcess", Asked)
    bench([*two[:1], dataclasses.replace(two[0], provider="cpu")], PLAN)
    assert asked[:2] == [None, read_host().threads]
