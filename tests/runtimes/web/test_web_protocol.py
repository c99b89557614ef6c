"""What goes between a page and its server, and what goes wrong there; a script plays the browser."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest
from played_page import SWIFTSHADER, PlayedBrowser, good

from vit_deploy.core.image_sizes import ImageSize
from vit_deploy.errors import ConfigError, EngineError, MissingEngineError
from vit_deploy.runtimes import ClockedSession, DeviceSession, RuntimeOptions, open_session
from vit_deploy.runtimes.web.browsers import Browser
from vit_deploy.runtimes.web.page import open_page
from vit_deploy.runtimes.web.runtime import Web

LOOK_S = 0.002


@pytest.fixture
def page_of():
    """Opens a page in a browser that does what a script says."""

    def opened(script, timeout_s=20.0, **files):
        return open_page(
            Browser("played"),
            files.get("packages", {}),
            files.get("models", {}),
            timeout_s=timeout_s,
            look_s=LOOK_S,
            launch=PlayedBrowser(script),
        )

    return opened


@pytest.fixture
def options(packages, tmp_path):
    """The runtime with a browser that does what a script says, and how to run in it."""

    def with_browser(script, **others):
        program = tmp_path / "played"
        program.touch(mode=0o755)
        browser = PlayedBrowser(script)
        return Web(launch=browser), RuntimeOptions(runtime_files=str(packages), browser=str(program), **others), browser

    return with_browser


@pytest.fixture(autouse=True)
def nothing_left():
    before = set(threading.enumerate())
    yield
    assert not [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]


def test_commands_and_their_bytes_arrive_and_answers_come_back(page_of):
    script = """
held = alive()
for head, body in commands():
    answer(head["number"], {"seen": head["more"]}, body[::-1])
"""
    with page_of(script) as page:
        assert page.ask("any", "answer", body=b"a\nb\0", more=[1, None]) == ({"seen": [1, None]}, b"\0b\na")
        assert page.ask("any", "answer", more="again")[0] == {"seen": "again"}


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
    assert caught.value.message.splitlines()[0] == "played cannot load model.onnx: Error: no backend"
    assert caught.value.message.splitlines()[1:] == ["  there is no model/weights.data", "  wasm streaming failed"]


def test_a_page_that_is_gone_is_told_at_once(page_of):
    script = """
held = alive()
for head, body in commands():
    held.close()
    rest()
"""
    with page_of(script) as page, pytest.raises(EngineError, match="cannot run it: the page crashed or was closed"):
        page.ask("run", "run it")


def test_a_page_that_ends_in_the_middle_of_an_answer_has_given_none(page_of):
    script = """
held = alive()
for head, body in commands():
    half = connect()
    half.putrequest("POST", where.path + f"answer/{head['number']}")
    half.putheader("Content-Length", "100")
    half.endheaders(b"{}\\nhalf")
    half.sock.shutdown(1)
    half.sock.recv(1)
    half.close()
    held.close()
    rest()
"""
    with page_of(script) as page, pytest.raises(EngineError, match="cannot run it: the page crashed or was closed"):
        page.ask("run", "run it")


def test_an_endless_loop_ends_after_the_limit(page_of):
    script = """
held = alive()
for head, body in commands():
    rest()
"""
    with (
        page_of(script) as page,
        pytest.raises(EngineError, match=r"cannot run it: no answer in 0\.01 s"),
    ):
        page._timeout_s = 0.01  # once it is there, which has as long as it needs
        page.ask("run", "run it")


def test_a_browser_that_ends_is_told_with_its_words(page_of):
    script = 'say("no display"); raise SystemExit(3)'
    with pytest.raises(EngineError, match=r"cannot open a page: it ended \(exit 3\)\n  no display"), page_of(script):
        pass
    script = "held = alive()\nnext(commands())\nraise SystemExit(5)"
    with pytest.raises(EngineError, match=r"cannot run it: it ended \(exit 5\)"), page_of(script) as page:
        page.ask("run", "run it")


def test_an_error_before_the_first_command_is_told(page_of):
    script = 'held = alive()\nanswer(0, {"error": "SyntaxError: old browser"})\nrest()'
    with pytest.raises(EngineError, match="SyntaxError: old browser"), page_of(script) as page:
        page.ask("look", "say what it is")


def test_a_page_that_never_comes_is_told(page_of):
    with pytest.raises(EngineError, match=r"cannot open a page: no answer in 0\.01 s"), page_of("rest()", 0.01):
        pass


def test_a_session_gives_answers_times_and_what_it_is(bundle, options):
    web, chosen, browser = options(good())
    images = np.zeros((3, 6, 5, 3), np.float32)
    with open_session(bundle, "web", chosen, engine=web) as session:
        assert isinstance(session, ClockedSession) and not isinstance(session, DeviceSession)
        assert session.provider == "wasm" and session.load_ns == 12_500_000 and not session.unfit
        assert np.array_equal(session.infer(images), np.ones((3, 4), np.float32))
        session.upload(images)
        assert session.time(2, None) == [2_500_000] * 2
        assert session.cpu_s() == 1.5 and session.peak_mb() == 250
        package = {"name": "onnxruntime-web", "version": "9.8.7", "licence": "MIT"}
        assert session.engine == {"browser": "Chrome 156.0.0.0", "packages": [package]}
        assert session.notes == ["Chrome 156.0.0.0, onnxruntime-web 9.8.7 (MIT)"]
    assert len(browser.started) == 1  # one browser for one session


def test_a_software_adapter_is_named_and_unfit_for_times(bundle, options):
    web, chosen, _ = options(good(adapter=repr(SWIFTSHADER)), provider="webgpu")
    with open_session(bundle, "web", chosen, engine=web) as session:
        assert session.provider == "webgpu-swiftshader" and "software" in session.unfit
    web, chosen, _ = options(good(adapter=repr(SWIFTSHADER | {"name": "acme", "software": False})), provider="webgpu")
    with open_session(bundle, "web", chosen, engine=web) as session:
        assert session.provider == "webgpu" and not session.unfit
    web, chosen, _ = options(good(), provider="webgpu")
    with pytest.raises(EngineError, match="has no WebGPU adapter"), open_session(bundle, "web", chosen, engine=web):
        pass


def test_a_browser_that_does_not_isolate_the_page_is_refused(bundle, options):
    web, chosen, _ = options(good().replace('"isolated": True', '"isolated": False'))
    with pytest.raises(EngineError, match="has neither threads nor an exact clock") as caught:
        web.open(bundle, chosen).__enter__()
    assert caught.value.fix == "name a newer one with --browser"


def test_a_file_that_is_not_the_recorded_one_is_refused(bundle, options):
    web, chosen, _ = options(good().replace('"outputs": ["logits"]', '"outputs": ["features"]'))
    with (
        pytest.raises(EngineError, match="has no output logits; it has features"),
        open_session(bundle, "web", chosen, engine=web),
    ):
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
    artifact = dataclasses.replace(make_artifact(format, 1), precision=precision)
    web, chosen, browser = options(good(), provider=provider)
    with pytest.raises(EngineError, match=why), web.open(artifact, chosen):
        pass
    assert not browser.started


def test_more_than_webassembly_can_address_is_refused_before_a_browser_starts(bundle, options):
    web, chosen, browser = options(good())
    with (bundle.directory / "model.onnx.data").open("wb") as file:
        file.truncate(2**32)  # takes no room on the disk
    with pytest.raises(EngineError, match=r"it has 4295\.0 MB with its weights, and WebAssembly has") as caught:
        web.open(bundle, chosen).__enter__()
    assert caught.value.fix == "export the model in fp16 or int8, or a smaller one" and not browser.started


def test_a_file_for_several_sizes_is_opened_by_the_signature_of_the_one_that_is_asked_for(make_artifact, options):
    sizes = (ImageSize((6, 5), "images_6x5"), ImageSize((12, 5), "images_12x5"))
    artifact = dataclasses.replace(make_artifact("tflite", 1), sizes=sizes)
    for name in ("images_6x5", "images_12x5"):
        web, chosen, _ = options(good('"open": lambda head: answer(head["number"], {"error": head["signature"]})'))
        with (
            pytest.raises(EngineError, match=f"cannot load .*: {name}"),
            web.open(artifact.with_signature(name), chosen),
        ):
            pass


def test_halves_are_refused_where_shaders_have_none(bundle, options):
    web, chosen, _ = options(good('"start": None', adapter=repr(SWIFTSHADER)), provider="webgpu")
    fp16 = dataclasses.replace(bundle, precision="fp16")
    with pytest.raises(EngineError, match=r"google swiftshader: its shaders have no halves"), web.open(fp16, chosen):
        pass


def test_the_build_with_wrong_kernels_is_never_the_one_that_is_loaded(bundle, options):
    for provider in ("wasm", "webgpu"):
        adapter = repr(SWIFTSHADER)
        fault = '"start": lambda head: answer(head["number"], {"error": head["script"]})'
        web, chosen, _ = options(good(fault, adapter=adapter), provider=provider)
        script = f"npm/onnxruntime-web/dist/ort.{provider}.bundle.min.mjs"
        with pytest.raises(EngineError, match=f"cannot start ONNX Runtime Web: {script}"), web.open(bundle, chosen):
            pass


def test_an_engine_that_does_not_start_is_to_be_installed_anew(bundle, options):
    web, chosen, _ = options(
        good('"start": lambda head: answer(head["number"], {"error": "SyntaxError: half a file"})')
    )
    with pytest.raises(EngineError, match="cannot start ONNX Runtime Web") as caught, web.open(bundle, chosen):
        pass
    assert "npm install onnxruntime-web" in caught.value.fix


def test_without_files_or_a_browser_nothing_starts(bundle, options, packages, monkeypatch):
    monkeypatch.delenv("VIT_DEPLOY_WEB", raising=False)
    web, chosen, browser = options(good())
    with (
        pytest.raises(MissingEngineError, match="npm install onnxruntime-web"),
        web.open(bundle, RuntimeOptions(browser=chosen.browser)),
    ):
        pass
    with (
        pytest.raises(MissingEngineError, match="there is no browser /nowhere"),
        web.open(bundle, RuntimeOptions(runtime_files=str(packages), browser="/nowhere")),
    ):
        pass
    (packages / "onnxruntime-web" / "dist" / "ort.wasm.bundle.min.mjs").unlink()
    with pytest.raises(EngineError, match=r"onnxruntime-web 9\.8\.7 has no dist/ort\.wasm"), web.open(bundle, chosen):
        pass
    assert not browser.started


def test_options_of_gpus_say_nothing_there(bundle, options):
    web, chosen, _ = options(good(), cuda_graph=True)
    with pytest.raises(ConfigError, match="--cuda-graph is for GPUs"), open_session(bundle, "web", chosen, engine=web):
        pass


def test_a_browser_says_nothing_where_none_is_opened(bundle, options):
    _, chosen, browser = options(good())
    with pytest.raises(ConfigError) as caught, open_session(bundle, "onnxruntime", chosen):
        pass
    assert caught.value.message == (
        f"--browser {chosen.browser} and --runtime-files {chosen.runtime_files} are for browsers, "
        f"and {bundle.path} runs in onnxruntime"
    )
    assert caught.value.fix == "add --runtime web" and not browser.started
