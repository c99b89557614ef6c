"""The folder of a training: one run at a time, until the process that trains has ended too."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from vit_deploy.compression import training_folder as folders
from vit_deploy.compression.state import State, save_state
from vit_deploy.compression.training_folder import TrainingFolder, training_folder
from vit_deploy.core.child_processes import python
from vit_deploy.core.staging import HAS_LOCKS, staged_file
from vit_deploy.errors import OutputError

HANG_S = 120  # that nothing takes, however busy the machine is
needs_locks = pytest.mark.skipif(not HAS_LOCKS, reason="no locks here")

# Starts a process to train in a folder, tells its number once it is there, and waits for it.
STARTER = """
import sys
from pathlib import Path
from vit_deploy.compression import stage
from vit_deploy.compression.training_folder import training_folder
stage.WORKER = ("-c", sys.argv[2])
with training_folder(Path(sys.argv[1])) as folder:
    stage._run(folder, lambda doing: print(doing, flush=True), lambda record: None)
"""
TELLS_ITS_NUMBER = """
import json, os, time
print(json.dumps({"doing": str(os.getpid())}), flush=True)
"""
STAYS = f"{TELLS_ITS_NUMBER}\ntime.sleep(600)"  # even when its parent is gone
AS_THE_WORKER = f"""
import threading
from vit_deploy.compression import worker
threading.Thread(target=worker.end_with_stdin, daemon=True).start()
{STAYS}
"""


@pytest.fixture
def orphan(tmp_path):
    """A process to train in a folder, whose parent was killed; its number."""
    numbers: list[int] = []

    def call(program: str) -> int:
        parent = subprocess.Popen(
            [sys.executable, "-c", STARTER, tmp_path / "out.training", program], stdout=subprocess.PIPE, text=True
        )
        assert parent.stdout is not None
        with parent.stdout:
            numbers.append(int(parent.stdout.readline()))
        parent.kill()
        parent.wait()
        return numbers[-1]

    yield call
    for number in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)


@needs_locks
def test_a_second_run_is_refused_and_takes_nothing_away(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "PATIENCE_S", 0)
    with training_folder(tmp_path / "out.training") as first:
        with staged_file(first.path / "job.json") as file:  # takes the folder's own lock
            file.write_text("of the first")
        with pytest.raises(OutputError, match=r"another run is writing .*out\.training") as error:
            training_folder(tmp_path / "out.training").__enter__()
        assert error.value.fix == "wait for it, or give another output"
        assert (first.path / "job.json").read_text() == "of the first"
    with training_folder(tmp_path / "out.training"):
        pass


@needs_locks
def test_a_process_that_trains_keeps_the_lock_of_a_parent_that_was_killed(orphan, tmp_path, monkeypatch):
    number = orphan(STAYS)
    monkeypatch.setattr(folders, "PATIENCE_S", 0)
    with pytest.raises(OutputError, match="another run is writing"):
        training_folder(tmp_path / "out.training").__enter__()
    monkeypatch.setattr(folders, "PATIENCE_S", HANG_S)
    os.kill(number, signal.SIGKILL)
    with training_folder(tmp_path / "out.training") as folder:
        assert folder.lock is not None


@needs_locks
def test_the_process_that_trains_ends_with_its_parent(orphan, tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "PATIENCE_S", HANG_S)
    orphan(AS_THE_WORKER)
    with training_folder(tmp_path / "out.training") as folder:  # whose lock that process had
        assert folder.lock is not None


def test_the_worker_watches_its_stdin_from_the_start(tmp_path):
    command = python("-m", "vit_deploy.compression.worker", str(tmp_path / "no job is here"))
    done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")


def test_an_error_takes_away_what_nobody_can_go_on_from(tmp_path):
    for kept in (False, True):
        with pytest.raises(KeyboardInterrupt), training_folder(tmp_path / "made" / "out.training") as folder:
            assert isinstance(folder, TrainingFolder)
            if kept:
                save_state(State(3), folder.path, "a job")
            raise KeyboardInterrupt
        assert (tmp_path / "made").exists() == kept
