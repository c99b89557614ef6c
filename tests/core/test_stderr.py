import os
import subprocess
import sys
import threading

import pytest

from vit_deploy.core.stderr import quiet_stderr, stdout_to_stderr


def test_what_is_written_to_the_descriptor_is_kept_and_not_shown(capfd):
    with quiet_stderr() as captured:
        os.write(2, b"noise\n\nmore noise\n")
    os.write(2, b"after\n")

    assert captured.text == "noise\n\nmore noise\n"
    assert captured.tail(1) == "more noise"
    assert capfd.readouterr().err == "after\n"


MEANWHILE = """
import os, sys
from vit_deploy.core.stderr import quiet_stderr
with quiet_stderr():
    print("progress", file=sys.stderr)
    os.write(2, b"noise")
print("after", file=sys.stderr)
"""


def test_what_python_writes_meanwhile_is_still_shown():
    ran = subprocess.run([sys.executable, "-c", MEANWHILE], capture_output=True, text=True, check=True)

    assert ran.stderr == "progress\nafter\n"


def test_stderr_comes_back_after_an_error(capfd):
    before = sys.stderr
    with pytest.raises(ValueError, match="inside"), quiet_stderr():
        raise ValueError("inside")
    os.write(2, b"shown\n")

    assert sys.stderr is before
    assert capfd.readouterr().err == "shown\n"


def test_threads_that_are_quiet_at_the_same_time_leave_stderr_as_it_was(capfd):
    before, first, second, over = sys.stderr, threading.Event(), threading.Event(), threading.Event()

    def begin_and_end_first():
        with quiet_stderr():
            first.set()
            second.wait(0.2)
        over.set()

    def begin_and_end_last():
        first.wait()
        with quiet_stderr():
            second.set()
            over.wait()

    threads = [threading.Thread(target=order) for order in (begin_and_end_first, begin_and_end_last)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"shown\n")

    assert sys.stderr is before
    assert capfd.readouterr().err == "shown\n"


def test_stdout_is_lent_to_whoever_has_the_stream(capfd):
    with stdout_to_stderr() as stdout:
        os.write(1, b"from C\n")
        print("from Python")
        print("the document", file=stdout)
    print("after")

    shown = capfd.readouterr()
    assert shown.out == "the document\nafter\n"
    assert sorted(shown.err.splitlines()) == ["from C", "from Python"]


def test_stdout_comes_back_after_an_error(capfd):
    before = sys.stdout
    with pytest.raises(ValueError, match="inside"), stdout_to_stderr():
        raise ValueError("inside")
    os.write(1, b"shown\n")

    assert sys.stdout is before
    assert capfd.readouterr().out == "shown\n"


DETACHED = """
import os, sys
from pathlib import Path
from vit_deploy.core.stderr import detach_streams
detach_streams(Path(sys.argv[1]))
print(f"read {sys.stdin.read()!r}", flush=True)
os.write(2, b"said")
"""


def test_a_detached_process_reads_nothing_and_writes_to_its_log(tmp_path):
    log = tmp_path / "log"
    ran = subprocess.run(
        [sys.executable, "-c", DETACHED, log], input="typed", capture_output=True, text=True, check=True
    )

    assert (ran.stdout, ran.stderr) == ("", "")
    assert log.read_text() == "read ''\nsaid"
    assert log.stat().st_mode & 0o777 == 0o600
