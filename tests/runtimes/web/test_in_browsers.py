"""Artifacts in Chromium and Firefox without a window, with the engines that npm brings."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import vit_deploy
from tests.groups import is_gone, members, threads_called
from tests.runtimes import linear_onnx, linear_tflite
from tests.runtimes.linear_onnx import expected
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import EngineError
from vit_deploy.exporters.onnx.file import save
from vit_deploy.runtimes import RuntimeOptions
from vit_deploy.runtimes.web.browsers import Browser
from vit_deploy.runtimes.web.runtime import Web
from vit_deploy.verification import verifying

pytestmark = pytest.mark.slow
PRECISIONS = ("fp32", "fp16", "int8", "int8-static", "int4")
ALL = [f"{format}-{precision}" for format in ("onnx", "tflite") for precision in PRECISIONS]
FLOAT = 1e-4  # of linear models, whose outputs are about 10


@pytest.fixture(params=["chromium", "firefox"])
def options(request, npm_files):
    """How to run in each of the browsers that are there."""
    browser = request.getfixturevalue(request.param)
    return RuntimeOptions(threads=1, runtime_files=str(npm_files), browser=browser)


@pytest.fixture(scope="module")
def pico(npm_files, chromium, tmp_path_factory):
    """Pico in every precision of both formats, by the name of the folder."""
    folder = tmp_path_factory.mktemp("pico")
    vit_deploy.export(
        "pico", folder, image_size=(32, 48), patch_size=(8, 16), formats=("onnx", "tflite"), precisions=PRECISIONS
    )
    return folder


def in_chromium(npm_files, chromium):
    return {"runtime": "web", "runtime_files": npm_files, "browser": chromium}


def test_batches_of_any_size_get_their_own_answers_and_nothing_is_left(options, make_artifact, weight, seven_images):
    artifact = linear_onnx.write_model(make_artifact("onnx"), weight)
    for threads in (1, 2):
        with Web().open(artifact, dataclasses.replace(options, threads=threads)) as session:
            for count in (1, 7, 3):
                images = seven_images[:count]
                np.testing.assert_allclose(session.infer(images), expected(images, weight), atol=FLOAT)
            group = session._page.process.group
            assert len(members(group)) > 3
            assert has_threads(session, options, threads)
        assert is_gone(group)


def test_tflite_files_answer_with_one_thread_and_with_two(options, make_artifact, weight, seven_images):
    artifact = linear_tflite.write_model(make_artifact("tflite", 2), weight)
    for threads in (1, 2):
        with Web().open(artifact, dataclasses.replace(options, threads=threads)) as session:
            np.testing.assert_allclose(session.infer(seven_images), expected(seven_images, weight), atol=FLOAT)
            assert has_threads(session, options, threads)


def has_threads(session, options, count):
    """Whether the page has workers for threads, and none for one; as Chromium calls them."""
    workers = threads_called(session._page.process.group, "DedicatedWorker")
    return Browser(options.browser).is_firefox or (workers >= count - 1 if count > 1 else workers == 0)


def test_weights_beside_the_file_other_layouts_and_pixels_are_taken(options, make_artifact, weight, seven_images):
    artifact = linear_onnx.write_model(make_artifact("onnx"), weight, location="model.onnx.data")
    with Web().open(artifact, options) as session:
        np.testing.assert_allclose(session.infer(seven_images), expected(seven_images, weight), atol=FLOAT)
    with Web().open(linear_onnx.write_channels_first(make_artifact, weight), options) as session:
        np.testing.assert_allclose(session.infer(seven_images), expected(seven_images, weight), atol=FLOAT)
    pixels = np.arange(2 * 6 * 5 * 3, dtype=np.uint8).reshape(2, 6, 5, 3)
    with Web().open(linear_onnx.write_for_pixels(make_artifact, weight), options) as session:
        np.testing.assert_allclose(session.infer(pixels), expected(pixels, weight), rtol=1e-4)


def test_weights_that_are_not_there_are_named(make_artifact, weight, npm_files, chromium):
    artifact = linear_onnx.write_model(make_artifact("onnx"), weight, location="model.onnx.data")
    (artifact.directory / "model.onnx.data").unlink()
    options = RuntimeOptions(runtime_files=str(npm_files), browser=chromium)
    with pytest.raises(EngineError, match=r"model\.onnx\.data"), Web().open(artifact, options):
        pass


def test_a_damaged_file_is_one_error_with_the_engines_words(make_artifact, npm_files, chromium):
    for format in ("onnx", "tflite"):
        artifact = make_artifact(format, 1)
        artifact.model_path.write_bytes(b"\x08\x08")
        options = RuntimeOptions(runtime_files=str(npm_files), browser=chromium)
        with pytest.raises(EngineError, match=f"cannot load {artifact.model_path}: "), Web().open(artifact, options):
            pass


def test_a_page_whose_process_is_killed_is_one_error(make_artifact, weight, seven_images, npm_files, chromium):
    artifact = linear_onnx.write_model(make_artifact("onnx"), weight)
    options = RuntimeOptions(runtime_files=str(npm_files), browser=chromium)
    with Web().open(artifact, options) as session:
        group = session._page.process.group
        for number in members(group):
            if b"--type=renderer" in Path(f"/proc/{number}/cmdline").read_bytes():
                os.kill(int(number), signal.SIGKILL)
        with pytest.raises(EngineError, match="the page crashed or was closed"):
            session.infer(seven_images)
    assert is_gone(group)


def test_an_endless_loop_ends_with_its_browser(make_artifact, weight, seven_images, npm_files, chromium):
    artifact = linear_onnx.write_model(make_artifact("onnx"), weight)
    options = RuntimeOptions(runtime_files=str(npm_files), browser=chromium)
    with Web().open(artifact, options) as session:
        session.upload(seven_images)
        session._page._timeout_s = 0.5
        with pytest.raises(EngineError, match="no answer in"):
            session._page.ask("time", "run for ever", calls=None, seconds=None)
        group = session._page.process.group
    assert is_gone(group)


def test_precisions_are_held_to_the_tolerance_that_they_have_natively(pico, npm_files, chromium):
    found = vit_deploy.verify([pico / name for name in ALL], **in_chromium(npm_files, chromium), quick=True)
    assert {record["artifact"].split("/")[-1]: record["verdict"] for record in found.records} == dict.fromkeys(
        ALL, "same"
    )
    for record in found.records:
        engine = record["engine"]
        assert record["runtime"] == "web" and record["provider"] == "wasm"
        assert engine["browser"].split()[0] in ("Chromium", "Google", "HeadlessChrome", "Chrome", "Microsoft")
        assert all(package["version"][0].isdigit() for package in engine["packages"])
        licences = {"onnx": {"MIT"}, "tflite": {"Apache-2.0"}}[record["format"]]
        assert {package["licence"] for package in engine["packages"]} == licences


def test_every_question_of_a_native_runtime_is_answered(pico, npm_files, chromium):
    found = vit_deploy.verify(pico / "onnx-int8", **in_chromium(npm_files, chromium), threads=[2])
    [record] = found.records
    assert found.ok and len(record["checks"]) > 8, record["failures"]


def test_a_vit_whose_weights_lie_beside_it_is_proven(pico, npm_files, chromium, tmp_path):
    folder = tmp_path / "large"
    shutil.copytree(pico / "onnx-fp32", folder)
    model = onnx.load(folder / "model.onnx")
    save(model, folder / "model.onnx", external_limit=1)  # as files past the limit of a message are written
    assert (folder / "model.onnx.data").stat().st_size > 1_000_000 > (folder / "model.onnx").stat().st_size
    large = read_artifact(folder, check_digests=False)
    found = verifying.verify(large, runtime="web", runtime_files=str(npm_files), browser=chromium)
    assert found.verdict == "same"


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("onnx-fp16", "tflite-int4")])
def test_a_software_adapter_gives_verdicts(pico, npm_files, chromium, name):
    wanted = in_chromium(npm_files, chromium) | {"provider": "webgpu"}
    [record] = vit_deploy.verify(pico / name, **wanted, quick=True).records
    assert record["verdict"] == "same" and record["provider"].startswith("webgpu-")


def test_a_file_with_a_signature_for_each_size_is_proven_at_all_of_them(npm_files, chromium, tmp_path):
    sizes = {"image_size": [(32, 48), (48, 32)], "patch_size": (16, 16)}
    vit_deploy.export("pico", tmp_path / "made", formats="tflite", **sizes)
    [record] = vit_deploy.verify(tmp_path / "made" / "tflite-fp32", **in_chromium(npm_files, chromium)).records
    assert record["verdict"] == "same" and record["runtime"] == "web"
    assert [(one["image_size"], one["verdict"]) for one in record["sizes"]] == [([48, 32], "same")]


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_every_output_by_its_name_is_proven(npm_files, chromium, tmp_path, format):
    chosen = {"image_size": (32, 48), "patch_size": (8, 16), "formats": format, "outputs": ("logits", "map")}
    vit_deploy.export("pico", tmp_path / "made", **chosen)
    [record] = vit_deploy.verify(tmp_path / "made" / f"{format}-fp32", **in_chromium(npm_files, chromium)).records
    assert record["verdict"] == "same" and len(record["outputs"]) == 2


def test_a_software_adapter_gives_no_times_and_no_halves(pico, npm_files, chromium):
    wanted = in_chromium(npm_files, chromium) | {"provider": "webgpu"}
    with pytest.raises(EngineError, match="adapter is software"):
        vit_deploy.bench(pico / "tflite-fp32", **wanted, runs=1)
    with pytest.raises(EngineError, match="shaders have no halves"):
        vit_deploy.verify(pico / "onnx-fp16", **wanted)


def test_it_is_timed_by_the_pages_clock_beside_a_native_engine(pico, npm_files, chromium):
    wanted = {"runtime_files": npm_files, "browser": chromium, "threads": 1, "runs": 4}
    found = vit_deploy.bench(pico / "onnx-int8", runtime=["onnxruntime", "web"], **wanted)
    native, web = found.records
    assert "engine" not in native and web["engine"]["packages"][0]["name"] == "onnxruntime-web"
    assert web["provider"] == "wasm" and len(web["samples_ns"]) == 4
    assert web["load_ms"] > 0 and web["first_ms"] > 0
    assert web["peak_rss_mb"] > 100 and web["growth_mb"] > 0  # a browser, not the process that asks it
    assert web["ratio"] is not None


def test_images_are_classified_as_natively(pico, npm_files, chromium, tmp_path):
    pixels = np.random.default_rng(8).integers(0, 256, (3, 32, 48, 3), np.uint8)
    picture, data = tmp_path / "a.png", tmp_path / "three.npz"
    Image.fromarray(pixels[0]).save(picture)
    np.savez(data, images=pixels, labels=[1, 2, 3])
    name, chosen = pico / "tflite-fp32", in_chromium(npm_files, chromium)
    [here], [there] = vit_deploy.predict(name, picture), vit_deploy.predict(name, picture, **chosen)
    assert [seen.index for seen in there.top] == [seen.index for seen in here.top]
    [here], [there] = vit_deploy.evaluate(name, data), vit_deploy.evaluate(name, data, **chosen)
    assert (there.top1, there.top5, there.images) == (here.top1, here.top5, 3)
    with vit_deploy.session(name, **chosen) as session:
        images = vit_deploy.read_images(name, picture)
        assert session.infer(images).shape == (1, 1000)
