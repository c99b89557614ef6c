"""Where browsers and the engines' JavaScript are found."""

from __future__ import annotations

import json

import pytest

from vit_deploy.errors import MissingEngineError
from vit_deploy.runtimes.web.browsers import CHROMIUMS, FIREFOXES, Browser, find_browser, installed_browsers
from vit_deploy.runtimes.web.packages import packages_for


@pytest.fixture
def program(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    def make(name):
        path = tmp_path / name
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return str(path)

    return make


def install(folder, name, called=None):
    folder = folder / name
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": called or name, "version": "1.2.3", "license": "MIT"}))
    return folder


def test_chromium_is_taken_before_firefox(program):
    chrome, firefox = program("google-chrome"), program("firefox-esr")
    assert installed_browsers() == (Browser(chrome), Browser(firefox))
    assert find_browser() == Browser(chrome)
    assert find_browser(firefox) == find_browser("firefox-esr") == Browser(firefox)


def test_a_browser_that_is_not_there_is_named_with_what_to_install(program, monkeypatch):
    module = "vit_deploy.runtimes.web.browsers"
    monkeypatch.setattr(f"{module}.CHROMIUMS", [name for name in CHROMIUMS if "/" not in name and "\\" not in name])
    monkeypatch.setattr(f"{module}.FIREFOXES", [name for name in FIREFOXES if "/" not in name])
    with pytest.raises(MissingEngineError, match=r"needs a browser, and none is installed\n  fix: install Chromium"):
        find_browser()
    for name, said in (("opera", "opera"), ("", "''")):
        with pytest.raises(
            MissingEngineError, match=f"there is no browser {said}\n  fix: give the path of a browser's program$"
        ):
            find_browser(name)
    chromium = program("chromium")
    with pytest.raises(MissingEngineError, match=f"give the path of a browser's program, as {chromium}$"):
        find_browser("opera")


def test_each_kind_of_browser_gets_its_own_arguments_and_a_profile(tmp_path):
    command = Browser("/usr/bin/chromium").command("http://127.0.0.1/x/", tmp_path, webgpu=True)
    assert {"--headless=new", "--enable-unsafe-webgpu", f"--user-data-dir={tmp_path}"} <= set(command)
    assert "--enable-unsafe-webgpu" not in Browser("/usr/bin/chromium").command("http://127.0.0.1/x/", tmp_path)
    command = Browser("/usr/bin/firefox-esr").command("http://127.0.0.1/x/", tmp_path)
    assert command[1:] == ["--headless", "--no-remote", "--profile", str(tmp_path), "http://127.0.0.1/x/"]
    assert 'user_pref("app.normandy.enabled", false);' in (tmp_path / "user.js").read_text()


def test_packages_are_found_in_node_modules_or_the_folder_around_it(tmp_path, monkeypatch):
    monkeypatch.delenv("VIT_DEPLOY_WEB", raising=False)
    install(tmp_path / "node_modules", "onnxruntime-web")
    for given in (tmp_path, tmp_path / "node_modules"):
        [package] = packages_for("onnx", given)
        assert package.to_dict() == {"name": "onnxruntime-web", "version": "1.2.3", "licence": "MIT"}
    monkeypatch.setenv("VIT_DEPLOY_WEB", str(tmp_path))
    assert packages_for("onnx") == (package,)


def test_what_only_the_engine_needs_is_found_where_pnpm_puts_it(tmp_path):
    store = tmp_path / ".pnpm" / "core@2" / "node_modules"
    install(store, "@litertjs/core")
    beside = install(store, "@litertjs/wasm-utils")
    (tmp_path / "node_modules" / "@litertjs").mkdir(parents=True)
    (tmp_path / "node_modules" / "@litertjs" / "core").symlink_to(store / "@litertjs" / "core")
    core, utils = packages_for("tflite", tmp_path / "node_modules")
    assert core.folder == store / "@litertjs" / "core" and utils.folder == beside


def test_packages_that_are_not_there_are_named_with_the_line_that_installs_them(tmp_path, monkeypatch):
    monkeypatch.delenv("VIT_DEPLOY_WEB", raising=False)
    with pytest.raises(MissingEngineError, match=r"no folder is named(.|\n)*npm install onnxruntime-web, and name"):
        packages_for("onnx")
    install(tmp_path, "@litertjs/core")
    with pytest.raises(MissingEngineError) as caught:
        packages_for("tflite", tmp_path)
    assert f"needs @litertjs/wasm-utils, which {tmp_path} does not have" in str(caught.value)
    assert "npm install @litertjs/core @litertjs/wasm-utils" in str(caught.value)
    install(tmp_path, "onnxruntime-web", called="another")
    with pytest.raises(MissingEngineError, match="needs onnxruntime-web"):
        packages_for("onnx", tmp_path)
