"""The page holds the models, their proof and the runtime, and says what it cannot be made of."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import inspect
import json
import re
import shutil

import numpy as np
import pytest
from linear_bundle import write_bundle

import vit_deploy
from vit_deploy import cli
from vit_deploy.core.manifest import read_artifact, write_manifest
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.errors import ConfigError, EngineError, MissingEngineError, OutputError
from vit_deploy.web.models import check_artifact, model_of, names_of
from vit_deploy.web.scripts import joined


@pytest.fixture(scope="module")
def linear(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("artifacts") / "onnx-fp32")


@pytest.fixture
def npm(tmp_path):
    """The files that a page takes from onnxruntime-web, empty but for what tells them apart."""
    folder = tmp_path / "node_modules" / "onnxruntime-web"
    (folder / "dist").mkdir(parents=True)
    (folder / "package.json").write_text(json.dumps({"name": "onnxruntime-web", "version": "1.2.3", "license": "MIT"}))
    (folder / "dist" / "ort.wasm.bundle.min.mjs").write_bytes(b"// </script> script")
    (folder / "dist" / "ort-wasm-simd-threaded.wasm").write_bytes(b"\0asm")
    return tmp_path / "node_modules"


def payload(page: str, name: str) -> bytes:
    found = re.search(rf'id="payload-{name}" data-bytes="(\d+)">([^<]*)<', page)
    content = gzip.decompress(base64.b64decode(found[2]))
    assert len(content) == int(found[1])
    return content


def facts(page: str) -> dict:
    return json.loads(re.search(r'id="facts">(.*?)</script>', page)[1])


def test_one_file_holds_the_model_its_proof_and_the_runtime(linear, npm, tmp_path):
    made = vit_deploy.demo(linear, tmp_path / "page.html", runtime_files=npm, title="Cats & <dogs>").result
    page = made.path.read_text(encoding="utf-8")
    assert not made.needs_server and made.bytes == made.path.stat().st_size
    assert payload(page, "onnx-fp32-model") == (linear / "model.onnx").read_bytes()
    assert payload(page, "onnx-script") == b"// </script> script"
    assert payload(page, "onnx-wasm") == b"\0asm"
    outputs = np.frombuffer(payload(page, "onnx-fp32-outputs"), "<f8")
    np.testing.assert_array_equal(outputs, np.load(linear / "golden.npz")["outputs"].ravel())
    assert facts(page)["models"][0]["tolerance"] == {"max_abs": pytest.approx(1e-5)}
    assert "<title>Cats &amp; &lt;dogs&gt;</title>" in page and "Copyright (c) Microsoft Corporation" in page
    assert {"{{", "<base", " src=", ' href="http'} & set(re.findall(r"\{\{|<base| src=| href=\"http", page)) == set()


def test_the_policy_lets_nothing_be_fetched_and_only_the_own_script_and_style_be_run(linear, npm, tmp_path):
    page = vit_deploy.demo(linear, tmp_path / "page.html", runtime_files=npm).result.path.read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1]
    script = re.search(r'<script type="module">(.*?)</script>', page, re.DOTALL)[1]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (script, style)]
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{digests[0]}' blob: 'wasm-unsafe-eval'; "
        f"style-src 'sha256-{digests[1]}'; img-src blob:; media-src blob:; base-uri 'none'; form-action 'none'"
    )


def test_a_folder_has_the_large_files_beside_the_page(linear, npm, tmp_path):
    made = vit_deploy.demo(linear, tmp_path / "site", runtime_files=npm).result
    page = (made.path / "index.html").read_text(encoding="utf-8")
    assert made.needs_server and "connect-src 'self'" in page
    files = facts(page)["files"]
    assert {name: entry["file"] for name, entry in files.items()} == {
        "onnx-script": "runtime/ort.wasm.bundle.min.mjs",
        "onnx-wasm": "runtime/ort-wasm-simd-threaded.wasm",
        "onnx-fp32-model": "models/onnx-fp32/model.onnx",
    }
    assert all((made.path / entry["file"]).stat().st_size == entry["bytes"] for entry in files.values())
    assert "payload-onnx-fp32-images" in page and "payload-onnx-fp32-model" not in page


def test_golden_images_are_kept_as_the_pixels_that_give_them_back(linear, tmp_path):
    artifact = read_artifact(linear)
    model = model_of(artifact, "model")
    assert model.facts["golden"]["dtype"] == "float32"  # these are no pixels
    from vit_deploy.web.models import _stored

    preprocess = Preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    pixels = natural_pixels(2, 6, 5, 3)
    stored, dtype = _stored(preprocess.normalize(pixels), preprocess)
    assert dtype == "uint8"
    np.testing.assert_array_equal(stored, pixels)


def test_models_of_one_name_are_told_apart(linear, tmp_path):
    others = [write_bundle((tmp_path / name).resolve()) for name in ("a b", "onnx-fp32")]
    names = names_of([read_artifact(folder) for folder in (linear, *others)])
    assert names == [f"{linear.parent.name}-onnx-fp32", "a-b", f"{tmp_path.name}-onnx-fp32"]


def test_what_a_page_cannot_run_is_refused_before_anything_is_written(linear, npm, tmp_path):
    artifact = read_artifact(linear)
    other = dataclasses.replace(artifact, format="savedmodel", model="saved_model")
    with pytest.raises(ConfigError, match="is SavedModel, and a page runs ONNX and TFLite files"):
        check_artifact(other)
    integers = dataclasses.replace(artifact.input, dtype="int8", scale=0.1, zero_point=0)
    with pytest.raises(ConfigError, match=r"takes and gives int8, which LiteRT\.js does not"):
        check_artifact(dataclasses.replace(artifact, input=integers))
    with pytest.raises(ConfigError, match="is made for cuda, which no browser has"):
        check_artifact(dataclasses.replace(artifact, options={"for": "cuda"}))
    with pytest.raises(EngineError, match="ONNX Runtime Web has no kernels for bfloat16"):
        check_artifact(dataclasses.replace(artifact, precision="bf16"))
    with pytest.raises(ConfigError, match="gives no logits, and a page shows classes"):
        check_artifact(dataclasses.replace(artifact, config=artifact.config.replace(include_top=False, num_classes=0)))
    with pytest.raises(ConfigError, match=r"the page would hold .* one file holds up to 0 MB(.|\n)*name a folder"):
        vit_deploy.demo(linear, tmp_path / "page.html", runtime_files=npm, embed_mb=0)
    (npm / "onnxruntime-web" / "dist" / "ort-wasm-simd-threaded.wasm").unlink()
    with pytest.raises(MissingEngineError, match=r"has no dist/ort-wasm-simd-threaded\.wasm"):
        vit_deploy.demo(linear, tmp_path / "page.html", runtime_files=npm)
    assert not (tmp_path / "page.html").exists()


def test_what_is_there_is_kept_unless_forced(linear, npm, tmp_path):
    (tmp_path / "page.html").write_text("mine")
    with pytest.raises(OutputError, match="already there"):
        vit_deploy.demo(linear, tmp_path / "page.html", runtime_files=npm)
    assert (tmp_path / "page.html").read_text() == "mine"
    vit_deploy.demo(linear, tmp_path / "page.html", runtime_files=npm, force=True)


def test_force_replaces_no_folder_but_a_page(linear, npm, tmp_path, monkeypatch):
    site = vit_deploy.demo(linear, tmp_path / "site", runtime_files=npm).result.path
    vit_deploy.demo(linear, site, runtime_files=npm, force=True)
    with pytest.raises(OutputError, match="holds other things than a page: onnx-fp32") as caught:
        vit_deploy.demo(linear, linear.parent, runtime_files=npm, force=True)
    assert "--force replaces a page alone" in caught.value.fix
    (site / "index.html").unlink()
    with pytest.raises(OutputError, match="holds other things than a page: models, runtime"):
        vit_deploy.demo(linear, site, runtime_files=npm, force=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for folder in (".", ".."):
        with pytest.raises(OutputError, match=r"is the folder that this runs in, or around it"):
            vit_deploy.demo(linear, folder, runtime_files=npm, force=True)
    assert (linear / "artifact.json").exists()


def test_what_a_page_cannot_run_is_left_out_by_name_while_the_others_go_on(linear, npm, tmp_path, capfd):
    folder = tmp_path / "all"
    shutil.copytree(linear, folder / "onnx-fp32")
    given = read_artifact(linear).input
    fixed = dataclasses.replace(given, shape=(1, *given.shape[1:]))
    litert = {"format": "tflite", "model": "model.tflite", "input": fixed}
    for name, changes in (("cuda", {"options": {"for": "cuda"}}), ("litert", litert)):
        shutil.copytree(linear, folder / name)
        (folder / name / "model.onnx").rename(folder / name / changes.get("model", "model.onnx"))
        write_manifest(dataclasses.replace(read_artifact(linear), directory=folder / name, **changes))
    words = ["demo", str(folder), "-o", str(tmp_path / "page.html"), "--runtime-files", str(npm), "--json"]
    assert cli.run(words) == 2
    said = capfd.readouterr()
    document = json.loads(said.out)
    assert not document["ok"] and document["results"][0]["artifacts"] == [str(folder / "onnx-fp32")]
    assert [(one["artifact"], one["error"]["type"]) for one in document["failed"]] == [
        (str(folder / "cuda"), "ConfigError"),
        (str(folder / "litert"), "MissingEngineError"),
    ]
    assert f"{folder / 'cuda'} is not in the page: " in said.err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert [model["name"] for model in facts(page)["models"]] == ["onnx-fp32"]
    with pytest.raises(ConfigError, match="is made for cuda, which no browser has"):
        vit_deploy.demo([folder / "cuda", folder / "litert"], tmp_path / "other.html", runtime_files=npm)
    assert not (tmp_path / "other.html").exists()


def test_without_the_runtimes_files_the_command_says_how_to_get_them(linear, tmp_path, capfd, monkeypatch):
    monkeypatch.delenv("VIT_DEPLOY_WEB", raising=False)
    assert cli.run(["demo", str(linear), "-o", str(tmp_path / "page.html"), "--json"]) == 2
    error = json.loads(capfd.readouterr().out)["error"]
    assert "npm install onnxruntime-web" in error["fix"] and "--runtime-files" in error["fix"]
    assert list(tmp_path.iterdir()) == []


def test_the_command_prints_what_it_made(linear, npm, tmp_path, capfd):
    words = ["demo", str(linear), "-o", str(tmp_path / "site"), "--runtime-files", str(npm), "--json"]
    assert cli.run(words) == 0
    said = capfd.readouterr()
    again = vit_deploy.demo(linear, tmp_path / "site", runtime_files=npm, force=True)
    assert json.loads(said.out) == again.to_dict()
    [record] = again.records
    assert record["path"] == str(tmp_path / "site") and record["needs_server"]
    assert record["packages"] == [{"name": "onnxruntime-web", "version": "1.2.3", "licence": "MIT"}]
    assert "python -m http.server" in said.err


def test_the_command_and_the_function_hold_as_much_in_one_file(capfd):
    assert cli.run(["demo", "--help"]) == 0
    default = inspect.signature(vit_deploy.demo).parameters["embed_mb"].default
    assert re.search(rf"MB that one file\s+(│\s+│\s+)?may hold\..*?{default}\b", capfd.readouterr().out, re.DOTALL)


def test_joined_modules_import_nothing():
    script = joined("preprocess.mjs", "png.mjs", "images.mjs", "proof.mjs", "maps.mjs", "engine.mjs", "demo.mjs")
    assert not re.search(r"^(import|export) ", script, re.MULTILINE)
    tops = re.findall(r"^(?:async )?(?:function\*?|const|let) (\w+)", script, re.MULTILINE)
    assert len(tops) == len(set(tops))
