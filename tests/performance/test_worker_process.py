from __future__ import annotations

import os
import signal
import sys

import numpy as np
import pytest

from tests.linear_bundle import write_bundle
from vit_deploy.core import child_processes
from vit_deploy.core.memory import peak_rss_mb
from vit_deploy.errors import EngineError
from vit_deploy.performance import worker as worker_module
from vit_deploy.performance.process import CaseProcess

HANG_S = 600.0  # that no worker takes which answers, however busy the machine is


def worker(tmp_path, body, timeout_s=HANG_S):
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
    with worker(tmp_path, "time.sleep(3600)", timeout_s=0.3) as process:
        with pytest.raises(EngineError, match=r"the case: no answer in 0\.3 s"):
            process.ask({})
        assert process._process.wait(HANG_S) == -signal.SIGKILL


def test_an_interrupt_leaves_no_process_behind(tmp_path):
    with pytest.raises(KeyboardInterrupt), worker(tmp_path, "time.sleep(3600)") as process:
        raise KeyboardInterrupt
    assert process._process.returncode is not None


def test_what_an_engine_prints_does_not_get_into_the_answers(tmp_path):
    # The worker as it is, with an engine that prints on all ways there are and reads from stdin.
    body = """
import sys
from vit_deploy.performance import worker
from vit_deploy.runtimes.ort import sessions as ort
original = ort.OnnxSession._run
def noisy(self, images):
    print("from Python"); sys.stdout.flush(); os.write(1, b"from C"); os.system("echo from a child")
    assert sys.stdin.read() == ""
    return original(self, images)
ort.OnnxSession._run = noisy
sys.exit(worker.main())
"""
    case = {
        "artifact": str(write_bundle(tmp_path / "onnx-fp32")),
        "runtime": "onnxruntime",
        "provider": None,
        "threads": 1,
        "batch": 2,
    }
    with worker(tmp_path, body) as process:
        assert process.ask(case)["provider"] == "cpu"
        assert len(process.ask({"calls": 2, "seconds": None})["samples_ns"]) == 2
        process._stderr.seek(0)
        assert process._stderr.read().count(b"from C") == 4


def test_peak_memory_is_the_processs_own_and_not_its_parents(tmp_path):
    ballast = np.ones(60_000_000, np.float32)  # 240 MB
    body = """
from vit_deploy.core.memory import peak_rss_mb
sys.stdin.readline()
print(json.dumps({"mb": peak_rss_mb()}))
"""
    with worker(tmp_path, body) as process:
        assert 10 < process.ask({})["mb"] < 200
    assert peak_rss_mb() > ballast.nbytes / 1e6


def test_peak_memory_is_told_where_there_is_no_proc(tmp_path):
    told = peak_rss_mb(tmp_path / "nothing")
    assert told == pytest.approx(peak_rss_mb(), rel=0.5)


class Clocks:
    """Time as a worker sees it whose threads keep a core busy for a number of its naps."""

    def __init__(self, busy_naps):
        self.busy_naps, self.naps = busy_naps, 0
        self.now = self.used = 0.0

    def perf_counter(self):
        return self.now

    def process_time(self):
        return self.used

    def sleep(self, seconds):
        self.now += seconds
        self.used += seconds if self.naps < self.busy_naps else 0.01 * seconds
        self.naps += 1


def test_a_worker_waits_until_its_threads_sleep(monkeypatch):
    monkeypatch.setattr(worker_module, "time", clocks := Clocks(busy_naps=20))
    assert worker_module._sleep_until_idle([])
    assert clocks.naps == 21


def test_a_thread_that_never_sleeps_is_told(monkeypatch):
    monkeypatch.setattr(worker_module, "time", clocks := Clocks(busy_naps=10**9))
    assert not worker_module._sleep_until_idle([])
    assert clocks.now == pytest.approx(worker_module.IDLE_LIMIT_S, abs=2 * worker_module.IDLE_STEP_S)


def test_what_a_session_set_for_its_libraries_is_not_handed_to_workers_and_what_the_user_set_is(tmp_path, monkeypatch):
    monkeypatch.setattr(child_processes, "_before", {})
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    body = """
sys.stdin.readline()
print(json.dumps({"seen": [os.environ.get(each) for each in ("NVIDIA_TF32_OVERRIDE", "CUDA_VISIBLE_DEVICES")]}))
"""
    child_processes.set_for_libraries("NVIDIA_TF32_OVERRIDE", "0")
    child_processes.set_for_libraries("CUDA_VISIBLE_DEVICES", "0")
    child_processes.set_for_libraries("CUDA_VISIBLE_DEVICES", "2")
    assert (os.environ["NVIDIA_TF32_OVERRIDE"], os.environ["CUDA_VISIBLE_DEVICES"]) == ("0", "2")
    with worker(tmp_path, body) as process:
        assert process.ask({})["seen"] == [None, "1"]
