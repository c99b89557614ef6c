"""What the doctor says of browsers, which a script plays."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from played_page import good, write_browser

from vit_deploy.cli import doctor
from vit_deploy.runtimes.web.browsers import CHROMIUMS, FIREFOXES
from vit_deploy.runtimes.web.diagnosis import look_for_browsers

pytestmark = pytest.mark.skipif(not hasattr(os, "killpg"), reason="the script is started by its first line")
ADAPTER = {"name": "acme fast", "software": False, "f16": True}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with nothing; installs a browser that does what a script says."""
    module = "vit_deploy.runtimes.web.browsers"
    for kind, names in (("CHROMIUMS", CHROMIUMS), ("FIREFOXES", FIREFOXES)):
        monkeypatch.setattr(f"{module}.{kind}", [name for name in names if "/" not in name and "\\" not in name])
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("VIT_DEPLOY_WEB", raising=False)

    def install(name, script):
        program, marks = write_browser(tmp_path, script)
        shutil.move(program, tmp_path / name)
        return marks

    return install


@pytest.fixture
def packages(tmp_path, monkeypatch):
    folder = tmp_path / "node_modules" / "onnxruntime-web"
    folder.mkdir(parents=True)
    facts = {"name": "onnxruntime-web", "version": "9.8.7", "license": "MIT"}
    (folder / "package.json").write_text(json.dumps(facts))
    monkeypatch.setenv("VIT_DEPLOY_WEB", str(folder.parent))


def test_browsers_are_not_opened_where_there_is_no_javascript(machine):
    marks = machine("chromium", good())
    found = look_for_browsers()
    assert found.to_dict()["packages"] == [] and not marks.exists()
    assert dict(doctor._web(found))["engines in browsers"].startswith(
        "missing -> npm install onnxruntime-web @litertjs"
    )


def test_versions_adapters_packages_and_failures_are_told(machine, packages, tmp_path):
    machine("chromium", good(adapter=repr(ADAPTER)))
    machine("firefox", "sys.exit(4)")
    found = look_for_browsers()
    [chromium, firefox] = found.to_dict()["browsers"]
    assert chromium["name"] == "Chrome 156.0.0.0" and chromium["provider"] == "webgpu"
    assert "it ended (exit 4)" in firefox["failure"] and not firefox["name"]
    rows = list(doctor._web(found))
    assert rows[0] == ("browser", f"{tmp_path}/chromium: Chrome 156.0.0.0, WebGPU on acme fast (webgpu)")
    assert rows[1][1].startswith(f"{tmp_path}/firefox, which opens no page: ")
    assert rows[2] == ("engines in browsers", "onnxruntime-web 9.8.7 (MIT)")


def test_a_machine_without_browsers_is_told_what_to_install(machine):
    assert next(doctor._web(look_for_browsers())) == (
        "browser",
        "none -> apt install chromium, where models are to run in one",
    )
