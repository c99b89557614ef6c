"""The processes of browsers, which scripts play: how they are started, told apart, measured and ended."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from played_page import SWIFTSHADER, good, write_browser

import vit_deploy
from tests.groups import is_gone, members
from vit_deploy import cli
from vit_deploy.core.manifest import write_manifest
from vit_deploy.errors import EngineError, MissingEngineError
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.web.browsers import Browser
from vit_deploy.runtimes.web.page import open_page

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="the script is started by its first line")
LOOK_S = 0.01


@pytest.fixture
def page_of(tmp_path):
    """Opens a page in a browser that does what a script says."""

    def opened(script):
        program, _ = write_browser(tmp_path, script)
        return open_page(Browser(program), {}, {}, timeout_s=20.0, look_s=LOOK_S)

    return opened


@pytest.fixture
def options(tmp_path, packages):
    def with_browser(script, **others):
        program, marks = write_browser(tmp_path, script)
        return RuntimeOptions(runtime_files=str(packages), browser=program, **others), marks

    return with_browser


def test_a_page_in_a_process_of_its_own_is_asked_and_nothing_is_left(page_of):
    script = """
held = alive()
for head, body in commands():
    answer(head["number"], {}, body[::-1])
"""
    with page_of(script) as page:
        assert page.ask("any", "answer", body=b"ab") == ({}, b"ba")
        group = page.process.group
        assert members(group)
        assert page.process.memory_mb() > 1 and page.process.cpu_s() > 0
    assert is_gone(group)


def test_a_browser_that_ends_is_told_with_its_code_and_its_words(page_of):
    script = 'sys.stderr.write("dbus noise\\nno display\\n"); sys.exit(3)'
    with pytest.raises(EngineError, match=r"cannot open a page: it ended \(exit 3\)\n  no display"), page_of(script):
        pass
    script = "os.kill(os.getpid(), 9)"
    with pytest.raises(EngineError, match=r"it ended \(killed by SIGKILL\)"), page_of(script):
        pass


def test_what_is_no_program_is_told(tmp_path):
    program = tmp_path / "played"
    program.write_bytes(b"\0")
    program.chmod(0o755)
    with (
        pytest.raises(EngineError, match=r"it ended \(exit 127\)\n  .*Exec format error"),
        open_page(Browser(str(program)), {}, {}, look_s=LOOK_S),
    ):
        pass


def test_children_of_the_browser_end_with_it_though_they_do_not_listen(page_of):
    script = """
import subprocess
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
subprocess.Popen([sys.executable, "-SEc", deaf], stdout=subprocess.PIPE).stdout.readline()
held = alive()
for head, body in commands():
    answer(head["number"], {})
"""
    with page_of(script) as page:
        page.ask("any", "answer")
        group = page.process.group
        assert len(members(group)) == 3
    assert is_gone(group)


def test_the_browser_and_its_profile_end_with_the_process_that_started_it(tmp_path):
    told = tmp_path / "profile.txt"
    script = f"""
profile = next(word.partition("=")[2] for word in sys.argv if word.startswith("--user-data-dir="))
open(profile + "/history", "w").close()
open({str(told)!r}, "w").write(profile)
held = alive()
time.sleep(60)
"""
    program, _ = write_browser(tmp_path, script)
    code = f"""
import sys, time
from vit_deploy.runtimes.web.browsers import Browser
from vit_deploy.runtimes.web.page import open_page
with open_page(Browser({program!r}), {{}}, {{}}) as page:
    print(page.process.group, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        group = int(parent.stdout.readline())
        assert len(members(group)) == 2
        profile = Path(told.read_text())
        assert (profile / "history").exists()
        parent.send_signal(signal.SIGKILL)
    assert is_gone(group) and not profile.exists()


def test_times_load_and_memory_of_a_bench_are_the_pages(bundle, options):
    chosen, marks = options(good())
    files, browser = chosen.runtime_files, chosen.browser
    [record] = vit_deploy.bench(
        bundle.path, runtime="web", runtime_files=files, browser=browser, runs=3, threads=1
    ).records
    assert record["samples_ns"] == [2_500_000] * 3 and record["first_ms"] == 2.5
    assert record["load_ms"] == 12.5 and record["provider"] == "wasm"
    assert record["engine"]["packages"][0]["version"] == "9.8.7"
    assert record["peak_rss_mb"] > 1 and record["notes"][0].startswith("Chrome 156.0.0.0, onnxruntime-web 9.8.7")
    assert len(marks.read_text().splitlines()) == 1


def test_a_software_adapter_is_not_timed(bundle, options):
    chosen, _ = options(good(adapter=repr(SWIFTSHADER)))
    wanted = {"provider": "webgpu", "runtime_files": chosen.runtime_files, "browser": chosen.browser}
    with pytest.raises(EngineError, match=r"is not timed: its WebGPU adapter is software \(webgpu-swiftshader\)"):
        vit_deploy.bench(bundle.path, **wanted, runs=1)


def test_artifacts_that_run_are_timed_beside_one_that_does_not(bundle, options, tmp_path, capfd):
    chosen, _ = options(good())
    halves = shutil.copytree(bundle.path, tmp_path / "onnx-bf16")
    write_manifest(dataclasses.replace(bundle, directory=halves, precision="bf16"))
    web = ["--runtime", "web", "--runtime-files", chosen.runtime_files, "--browser", chosen.browser, "--runs", "2"]
    assert cli.run(["bench", str(halves), str(bundle.path), *web, "--json"]) == 2
    said = capfd.readouterr()
    document = json.loads(said.out)
    assert [record["artifact"] for record in document["results"]] == [str(bundle.path)]
    assert [one["artifact"] for one in document["failed"]] == [str(halves)]
    assert "no kernels for bfloat16" in document["error"]["message"] and f"{halves} was not timed: " in said.err


def test_a_missing_browser_is_one_error_everywhere(bundle, packages):
    wanted = {"runtime": "web", "runtime_files": packages, "browser": "/nowhere"}
    for ask in (vit_deploy.verify, functools.partial(vit_deploy.bench, runs=1)):
        with pytest.raises(MissingEngineError, match="there is no browser /nowhere") as caught:
            ask(bundle.path, **wanted)
        assert caught.value.fix.startswith("give the path of a browser's program")
