"""A page holds the notices of its engines that are installed, and says where the others are."""

from __future__ import annotations

import dataclasses

import pytest

import vit_deploy
from tests.linear_bundle import write_bundle
from vit_deploy import cli
from vit_deploy.runtimes.web.packages import Package
from vit_deploy.web import notices
from vit_deploy.web.notices import CORE, ORT, UTILS, in_html, lacking, notices_of


@pytest.fixture
def package(tmp_path):
    def made(name):
        folder = tmp_path / "npm" / name
        (folder / "dist").mkdir(parents=True)
        (folder / "README.md").write_text("read me")
        return Package(name, "1.2.3", "MIT", folder)

    return made


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a Python package that holds one text."""
    monkeypatch.syspath_prepend(tmp_path / "site")

    def made(name, file, text):
        path = tmp_path / "site" / name / file
        path.parent.mkdir(parents=True)
        path.write_text(text)
        about = tmp_path / "site" / f"{name}-9.8.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.8\n")
        (about / "RECORD").write_text(f"{name}/{file},,\n{about.name}/METADATA,,\n{about.name}/RECORD,,\n")

    return made


@pytest.fixture
def nothing_installed(monkeypatch):
    changed = {
        name: dataclasses.replace(origin, distributions=("no-such-package",))
        for name, origin in notices.ORIGINS.items()
    }
    monkeypatch.setattr(notices, "ORIGINS", changed)


def test_notices_of_python_packages_of_the_same_sources_are_folded_into_the_page(package, install):
    install("onnxruntime", "ThirdPartyNotices.txt", "Copyright <the authors> of parts")
    engine = [package(ORT)]
    [found] = notices_of(engine)
    assert found.title == (
        "onnxruntime-web: ThirdPartyNotices.txt of onnxruntime 9.8, which is made of the same sources"
    )
    page = in_html(engine)
    assert "<p>onnxruntime-web 1.2.3: MIT. Copyright (c) Microsoft Corporation.</p>" in page
    assert (
        f"<details><summary>{found.title}</summary><pre>Copyright &lt;the authors&gt; of parts</pre></details>" in page
    )
    assert "Permission is hereby granted" in page and "and below as far as they were installed" in page
    assert lacking(engine) == {}


def test_what_is_partly_of_another_project_says_so(package, install):
    install("tensorflow", "THIRD_PARTY_NOTICES.txt", "parts of TensorFlow")
    [found] = notices_of([package(CORE), package(UTILS)])
    assert found.package == CORE and found.text == "parts of TensorFlow"
    assert found.title.endswith("THIRD_PARTY_NOTICES.txt of tensorflow 9.8, of whose sources LiteRT is made in part")


def test_texts_in_the_npm_package_itself_are_held(package, nothing_installed):
    engine = package(ORT)
    (engine.folder / "LICENSE").write_text("its own")
    (engine.folder / "ThirdPartyNotices.txt").write_text("of others")
    assert [(found.title, found.text) for found in notices_of([engine])] == [
        ("LICENSE of onnxruntime-web 1.2.3", "its own"),
        ("ThirdPartyNotices.txt of onnxruntime-web 1.2.3", "of others"),
    ]
    assert lacking([engine]) == {}


def test_a_page_without_notices_says_where_they_are_and_the_command_what_brings_them(
    package, nothing_installed, tmp_path, capfd
):
    engine = package(ORT)
    (engine.folder / "package.json").write_text('{"name": "onnxruntime-web", "version": "1.2.3", "license": "MIT"}')
    for file in ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"):
        (engine.folder / "dist" / file).write_bytes(b"")
    words = ["demo", str(write_bundle(tmp_path / "onnx-fp32")), "-o", str(tmp_path / "page.html")]
    assert cli.run([*words, "--runtime-files", str(engine.folder.parent)]) == 0
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    where = "onnxruntime-web holds code of others, whose notices are in ThirdPartyNotices.txt of github.com/microsoft"
    assert f"<p>{where}/onnxruntime.</p>" in page and "<details><summary>onnx" not in page
    assert (
        "the notices of what onnxruntime-web is made of are named and not held: with no-such-package installed they are"
        in capfd.readouterr().err
    )
    made = vit_deploy.demo(words[1], tmp_path / "page.html", runtime_files=engine.folder.parent, force=True)
    assert made.result.without_notices == {ORT: "no-such-package"} and made.records[0]["notices"] == []
