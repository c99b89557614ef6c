"""What goes between a page and its server, and what goes wrong there; a script plays the browser."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from played_page import good, write_browser

import vit_deploy
from tests.linear_bundle import write_bundle
from vit_deploy.core.image_sizes import ImageSize
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import ConfigError, EngineError, MissingEngineError
from vit_deploy.runtimes import ClockedSession, DeviceSession, RuntimeOptions, open_session
from vit_deploy.runtimes.web.browsers import Browser
from vit_deploy.runtimes.web.page import open_page
from vit_deploy.runtimes.web.runtime import Web

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="the script is started by its first line")
SWIFTSHADER = {"name": "google swiftshader", "software": True, "f16": False}


def group_of(page):
    return page.process.group


def members(group):
    """The processes of a group that still run."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except (OSError, NotADirectoryError):
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(process.name)
    return found


@pytest.fixture
def page_of(tmp_path):
    """Opens a page in a browser that does what a script says."""

    def opened(script, timeout_s=20.0, **files):
        program, _ = write_browser(tmp_path, script)
        return open_page(Browser(program), files.get("packages", {}), files.get("models", {}), timeout_s=timeout_s)

    return opened


@pytest.fixture
def packages(tmp_path):
    """A folder with all packages, whose files nobody reads."""
    folder = tmp_path / "node_modules"
    scripts = {
        "onnxruntime-web": ("dist/ort.wasm.bundle.min.mjs", "dist/ort.webgpu.bundle.min.mjs"),
        "@litertjs/core": ("dist/index.js",),
        "@litertjs/wasm-utils": (),
    }
    for name, files in scripts.items():
        (folder / name / "dist").mkdir(parents=True)
        (folder / name / "package.json").write_text(json.dumps({"name": name, "version": "9.8.7", "license": "MIT"}))
        for file in files:
            (folder / name / file).write_text("")
    return folder


@pytest.fixture
def bundle(tmp_path):
    return read_artifact(write_bundle(tmp_path / "bundle"))


@pytest.fixture
def options(tmp_path, packages):
    def with_browser(script, **others):
        program, marks = write_browser(tmp_path, script)
        return RuntimeOptions(runtime_files=str(packages), browser=program, **others), marks

    return with_browser


def test_commands_and_their_bytes_arrive_and_answers_come_back(page_of):
    script = """
held = alive()
for head, body in commands():
    answer(head["number"], {"seen": head["more"]}, body[::-1])
"""
    with page_of(script) as page:
        assert page.ask("any", "answer", body=b"a\nb\0", more=[1, None]) == ({"seen": [1, None]}, b"\0b\na")
        assert page.ask("any", "answer", more="again")[0] == {"seen": "again"}
        group = group_of(page)
        assert members(group)
    assert not members(group)


def test_the_page_is_isolated_and_may_ask_nobody_else(page_of):
    script = """
held = alive()
for head, body in commands():
    answer(head["number"], {"got": [ask("")[:2], ask("page.js")[:2]]})
"""
    with page_of(script) as page:
        for status, headers in page.ask("any", "answer")[0]["got"]:
            assert status == 200 and headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            assert headers["Cross-Origin-Opener-Policy"] == headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert headers["Content-Security-Policy"].startswith("default-src 'self'")
            assert "http" not in headers["Content-Security-Policy"]


def test_whoever_lacks_the_secret_or_comes_by_another_name_gets_nothing(page_of, tmp_path):
    (tmp_path / "outside.txt").write_text("private")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "index.js").write_text("public")
    (tmp_path / "package" / "link.js").symlink_to(tmp_path / "outside.txt")
    script = """
held = alive()
for head, body in commands():
    tries = {
        "file": ask("npm/@a/b/index.js"),
        "no secret": ask("npm/@a/b/index.js", root="/"),
        "another secret": ask("npm/@a/b/index.js", root="/AAAAAAAAAAAAAAAAAAAAAA/"),
        "another host": ask("npm/@a/b/index.js", host="evil.example:80"),
        "a posted answer": ask("answer/1", b"{}", root="/x/"),
        "up": ask("npm/@a/b/../outside.txt"),
        "coded": ask("npm/@a/b/%2e%2e/outside.txt"),
        "link": ask("npm/@a/b/link.js"),
        "code": ask("server.py"),
        "model": ask("model/package.json"),
    }
    answer(head["number"], {name: status for name, (status, _, _) in tries.items()}, tries["file"][2])
"""
    with page_of(script, packages={"@a/b": tmp_path / "package"}) as page:
        found, body = page.ask("any", "answer")
    assert found.pop("file") == 200 and body == b"public"
    assert set(found.values()) == {404}, found


def test_a_refusal_says_what_the_console_said_and_which_files_were_not_there(page_of):
    script = """
held = alive()
for head, body in commands():
    ask("model/weights.data")
    answer(head["number"], {"error": "Error: no backend", "said": ["INFO: noise", "wasm streaming failed"]})
"""
    with page_of(script) as page, pytest.raises(EngineError) as caught:
        page.ask("open", "load model.onnx")
    assert caught.value.message.splitlines()[0].endswith("/played cannot load model.onnx: Error: no backend")
    assert caught.value.message.splitlines()[1:] == ["  there is no model/weights.data", "  wasm streaming failed"]


def test_a_page_that_is_gone_is_told_at_once(page_of):
    script = """
held = alive()
for head, body in commands():
    held.close()
    time.sleep(60)
"""
    with page_of(script) as page, pytest.raises(EngineError, match="cannot run it: the page crashed or was closed"):
        group = group_of(page)
        page.ask("run", "run it")
    assert not members(group)


def test_a_page_that_ends_in_the_middle_of_an_answer_has_given_none(page_of):
    script = """
held = alive()
for head, body in commands():
    half = http.client.HTTPConnection(where.netloc)
    half.putrequest("POST", where.path + f"answer/{head['number']}")
    half.putheader("Content-Length", "100")
    half.endheaders(b"{}\\nhalf")
    half.sock.shutdown(1)
    half.sock.recv(1)
    half.close()
    held.close()
    time.sleep(60)
"""
    with page_of(script) as page, pytest.raises(EngineError, match="cannot run it: the page crashed or was closed"):
        page.ask("run", "run it")


def test_an_endless_loop_ends_after_the_limit(page_of):
    script = """
held = alive()
for head, body in commands():
    time.sleep(60)
"""
    with (
        page_of(script, timeout_s=0.5) as page,
        pytest.raises(EngineError, match=r"cannot run it: no answer in 0\.5 s"),
    ):
        page.ask("run", "run it")
    assert not members(group_of(page))


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
        open_page(Browser(str(program)), {}, {}),
    ):
        pass


def test_an_error_before_the_first_command_is_told(page_of):
    script = 'held = alive()\nanswer(0, {"error": "SyntaxError: old browser"})\ntime.sleep(60)'
    with pytest.raises(EngineError, match="SyntaxError: old browser"), page_of(script) as page:
        page.ask("look", "say what it is")


def test_a_page_that_never_comes_is_told(page_of):
    with pytest.raises(EngineError, match=r"cannot open a page: no answer in 0\.3 s"), page_of("time.sleep(60)", 0.3):
        pass


def test_children_of_the_browser_end_with_it_though_they_do_not_listen(page_of):
    script = """
import signal, subprocess
subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"])
time.sleep(0.2)
held = alive()
for head, body in commands():
    answer(head["number"], {})
"""
    with page_of(script) as page:
        page.ask("any", "answer")
        group = group_of(page)
        assert len(members(group)) == 3
    assert not members(group)


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
    end = time.monotonic() + 20
    while members(group) and time.monotonic() < end:
        time.sleep(0.01)
    assert not members(group) and not profile.exists()


def test_a_session_gives_answers_times_and_what_it_is(bundle, options):
    chosen, marks = options(good())
    images = np.zeros((3, 6, 5, 3), np.float32)
    with open_session(bundle, "web", chosen) as session:
        assert isinstance(session, ClockedSession) and not isinstance(session, DeviceSession)
        assert session.provider == "wasm" and session.load_ns == 12_500_000 and not session.unfit
        assert np.array_equal(session.infer(images), np.ones((3, 4), np.float32))
        session.upload(images)
        assert session.time(2, None) == [2_500_000] * 2
        assert session.cpu_s() > 0 and session.peak_mb() > 1
        package = {"name": "onnxruntime-web", "version": "9.8.7", "licence": "MIT"}
        assert session.engine == {"browser": "Chrome 156.0.0.0", "packages": [package]}
        assert session.notes == ["Chrome 156.0.0.0, onnxruntime-web 9.8.7 (MIT)"]
    assert len(marks.read_text().splitlines()) == 1  # one browser for one session


def test_a_software_adapter_is_named_and_unfit_for_times(bundle, options):
    chosen, _ = options(good(adapter=repr(SWIFTSHADER)), provider="webgpu")
    with open_session(bundle, "web", chosen) as session:
        assert session.provider == "webgpu-swiftshader" and "software" in session.unfit
    chosen, _ = options(good(adapter=repr(SWIFTSHADER | {"name": "acme", "software": False})), provider="webgpu")
    with open_session(bundle, "web", chosen) as session:
        assert session.provider == "webgpu" and not session.unfit
    chosen, _ = options(good(), provider="webgpu")
    with pytest.raises(EngineError, match="has no WebGPU adapter"), open_session(bundle, "web", chosen):
        pass


def test_a_file_that_is_not_the_recorded_one_is_refused(bundle, options):
    chosen, _ = options(good().replace('"outputs": ["logits"]', '"outputs": ["features"]'))
    with pytest.raises(EngineError, match="has no output logits; it has features"), open_session(bundle, "web", chosen):
        pass


@pytest.mark.parametrize(
    ("format", "precision", "provider", "why"),
    [
        ("tflite", "int8-full", "wasm", "takes no 8-bit integers"),
        ("tflite", "int4", "webgpu", "runs out of its memory"),
        ("tflite", "int16x8", "webgpu", "no kernels for 16-bit integers"),
        ("onnx", "bf16", "wasm", "no kernels for bfloat16"),
        ("onnx", "fp32", "webgl", "has no provider 'webgl'"),
    ],
)
def test_what_cannot_work_is_refused_before_a_browser_starts(make_artifact, options, format, precision, provider, why):
    import dataclasses

    artifact = dataclasses.replace(make_artifact(format, 1), precision=precision)
    chosen, marks = options(good(), provider=provider)
    with pytest.raises(EngineError, match=why), Web().open(artifact, chosen):
        pass
    assert not marks.exists()


def test_a_file_for_several_sizes_runs_by_its_first_signature(make_artifact, options):
    import dataclasses

    sizes = (ImageSize((6, 5), "images_6x5"), ImageSize((12, 5), "images_12x5"))
    artifact = dataclasses.replace(make_artifact("tflite", 1), sizes=sizes)
    chosen, marks = options(good())
    with (
        pytest.raises(EngineError, match="by its first signature alone, images_6x5, and not by images_12x5") as caught,
        Web().open(artifact.with_signature("images_12x5"), chosen),
    ):
        pass
    assert "--signature images_6x5" in caught.value.fix and not marks.exists()


def test_halves_are_refused_where_shaders_have_none(bundle, options):
    import dataclasses

    chosen, _ = options(good('"start": None', adapter=repr(SWIFTSHADER)), provider="webgpu")
    fp16 = dataclasses.replace(bundle, precision="fp16")
    with pytest.raises(EngineError, match=r"google swiftshader: its shaders have no halves"), Web().open(fp16, chosen):
        pass


def test_the_build_with_wrong_kernels_is_never_the_one_that_is_loaded(bundle, options):
    for provider in ("wasm", "webgpu"):
        adapter = repr(SWIFTSHADER)
        fault = '"start": lambda head: answer(head["number"], {"error": head["script"]})'
        chosen, _ = options(good(fault, adapter=adapter), provider=provider)
        script = f"npm/onnxruntime-web/dist/ort.{provider}.bundle.min.mjs"
        with pytest.raises(EngineError, match=f"cannot start ONNX Runtime Web: {script}"), Web().open(bundle, chosen):
            pass


def test_an_engine_that_does_not_start_is_to_be_installed_anew(bundle, options):
    chosen, _ = options(good('"start": lambda head: answer(head["number"], {"error": "SyntaxError: half a file"})'))
    with pytest.raises(EngineError, match="cannot start ONNX Runtime Web") as caught, Web().open(bundle, chosen):
        pass
    assert "npm install onnxruntime-web" in caught.value.fix


def test_without_files_or_a_browser_nothing_starts(bundle, options, packages, monkeypatch):
    monkeypatch.delenv("VIT_DEPLOY_WEB", raising=False)
    chosen, marks = options(good())
    with (
        pytest.raises(MissingEngineError, match="npm install onnxruntime-web"),
        Web().open(bundle, RuntimeOptions(browser=chosen.browser)),
    ):
        pass
    with (
        pytest.raises(MissingEngineError, match="there is no browser /nowhere"),
        Web().open(bundle, RuntimeOptions(runtime_files=str(packages), browser="/nowhere")),
    ):
        pass
    (packages / "onnxruntime-web" / "dist" / "ort.wasm.bundle.min.mjs").unlink()
    with pytest.raises(EngineError, match=r"onnxruntime-web 9\.8\.7 has no dist/ort\.wasm"), Web().open(bundle, chosen):
        pass
    assert not marks.exists()


def test_options_of_gpus_say_nothing_there(bundle, options):
    chosen, _ = options(good(), cuda_graph=True)
    with pytest.raises(ConfigError, match="--cuda-graph is for GPUs"), open_session(bundle, "web", chosen):
        pass


def test_a_browser_says_nothing_where_none_is_opened(bundle, options):
    chosen, marks = options(good())
    with pytest.raises(ConfigError) as caught, open_session(bundle, "onnxruntime", chosen):
        pass
    assert caught.value.message == (
        f"--browser {chosen.browser} and --runtime-files {chosen.runtime_files} are for browsers, "
        f"and {bundle.path} runs in onnxruntime"
    )
    assert caught.value.fix == "add --runtime web" and not marks.exists()


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
