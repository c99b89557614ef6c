"""The page in a browser without network: proves itself, and sees in pictures what `predict` sees."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import functools
import http.server
import json
import re
import threading
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from browser import CHROMIUM, Browser

import vit_deploy
from vit_deploy.core.artifact import Artifact
from vit_deploy.core.manifest import write_manifest
from vit_deploy.web.models import Content, model_of
from vit_deploy.web.page import engine_for, one_file

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")]
READY = "document.documentElement?.dataset.ready"


@pytest.fixture(scope="module")
def tflite(labelled, tmp_path_factory):
    return vit_deploy.export(labelled, tmp_path_factory.mktemp("tflite"), formats="tflite", precisions="int8").result


@pytest.fixture(scope="module")
def started():
    with Browser() as found:
        yield found


@pytest.fixture
def browser(started):
    started.asked.clear()
    started.said.clear()
    return started


def wait(browser: Browser, condition: str) -> None:
    end = time.monotonic() + 60
    while not browser.run(condition):
        assert time.monotonic() < end, f"{condition} does not come true; the page said {browser.said}"
        time.sleep(0.05)


def opened(browser: Browser, page: Path) -> None:
    browser.open(page, **DESKTOP)
    wait(browser, f"['yes', 'failed'].includes({READY})")


def choose(browser: Browser, file: Path) -> None:
    browser.run("document.getElementById('said').textContent = ''; document.getElementById('problem').hidden = true")
    document = browser.ask("DOM.getDocument")["root"]["nodeId"]
    node = browser.ask("DOM.querySelector", nodeId=document, selector="#file")["nodeId"]
    browser.ask("DOM.setFileInputFiles", nodeId=node, files=[str(file)])
    wait(browser, "!!document.getElementById('said').textContent || !document.getElementById('problem').hidden")


def choose_model(browser: Browser, index: int) -> None:
    element = "document.getElementById('model')"
    browser.run(f"{element}.value = {index}; {element}.dispatchEvent(new Event('change'))")
    wait(browser, f"{READY} === 'yes'")


def seen(browser: Browser) -> list[dict[str, str]]:
    rows = "[...document.querySelectorAll('#classes li')]"
    return browser.run(f"{rows}.map(e => ({{...e.dataset, name: e.querySelector('.name').textContent}}))")


def text(browser: Browser, name: str) -> str:
    return browser.run(f"document.getElementById('{name}').innerText")


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *words: object) -> None:
        pass


@contextlib.contextmanager
def served(browser, folder, handler=Quiet):
    """The address of a folder that the browser has opened, on a server that it can reach."""
    network = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        browser.ask("Network.emulateNetworkConditions", offline=False, **network)
        browser.ask("Page.navigate", url=address)
        yield address
        browser.ask("Network.emulateNetworkConditions", offline=True, **network)
        server.shutdown()


def test_it_proves_itself_and_sees_what_predict_sees_and_asks_for_nothing(browser, page, artifacts, photos):
    opened(browser, page)
    assert browser.run("document.getElementById('proof').dataset.state") == "same"
    assert "answers 8 recorded images as the float64 reference does" in text(browser, "checks")
    assert "becomes the same pixels as where the model was exported, to the byte" in text(browser, "checks")
    for photo in photos:
        choose(browser, photo)
        top = vit_deploy.predict(artifacts[0], photo).result.top
        found = seen(browser)
        assert [int(row["class"]) for row in found] == [entry.index for entry in top]
        assert [row["name"] for row in found] == [entry.label for entry in top]
        logits, shares = ([float(row[name]) for row in found] for name in ("logit", "probability"))
        assert logits == pytest.approx([entry.logit for entry in top], abs=2e-5)
        assert shares == pytest.approx([entry.probability for entry in top], abs=1e-5)
        assert text(browser, "notes") == ""
    assert {url.partition(":")[0] for url in browser.asked} <= {"file", "blob"}
    assert [url for url in browser.asked if url.startswith("file:")] == [page.as_uri()]
    assert browser.said == []


def test_how_far_loading_has_come_is_said_in_order(browser, page):
    watch = """
      const seen = window.seen = [];
      new MutationObserver(() => {
        const [words, bar] = ["verdict", "progress"].map((id) => document.getElementById(id));
        if (words && bar) seen.push([words.textContent, bar.hidden ? null : bar.value]);
      }).observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ["value", "hidden"]});
    """
    added = browser.ask("Page.addScriptToEvaluateOnNewDocument", source=watch)["identifier"]
    opened(browser, page)
    browser.ask("Page.removeScriptToEvaluateOnNewDocument", identifier=added)
    told = browser.run("window.seen")
    loading = ["Loading the model …", "Starting the model …", "Loading the runtime …", "Proving the model …"]
    assert [words for words in dict.fromkeys(words for words, _ in told) if words != "Loading …"] == [
        *loading,
        "Same as the reference",
    ]
    shares = [share for words, share in told if words in loading and share is not None]
    assert shares == sorted(shares) and shares[0] < 0.7 < shares[-1] == 1
    assert told[-1] == ["Same as the reference", None]


def test_half_of_a_download_is_shown_as_half(browser, artifacts, npm_files, tmp_path):
    folder = vit_deploy.demo(artifacts[1], tmp_path / "site", runtime_files=npm_files).result.path
    model = folder / "models" / "onnx-int8" / "model.onnx"
    go_on = threading.Event()

    class Halting(Quiet):
        """Sends half of the model, and the rest when it is told to."""

        def copyfile(self, source, outputfile):
            if self.path.endswith("model.onnx"):
                outputfile.write(source.read(model.stat().st_size // 2))
                outputfile.flush()
                assert go_on.wait(60)
            super().copyfile(source, outputfile)

    with served(browser, folder, Halting):
        progress = "document.getElementById('progress')"
        wait(browser, f"{progress}?.value > 0")
        assert browser.run(f"{progress}.value") == pytest.approx(0.7 / 2, abs=0.01)
        assert text(browser, "verdict") == "Loading the model …" and not browser.run(f"{progress}.hidden")
        assert browser.run(f"{progress}.getBoundingClientRect().width") > 100
        go_on.set()
        wait(browser, f"['yes', 'failed'].includes({READY})")
        assert browser.run(f"{progress}.hidden") and text(browser, "verdict") == "Same as the reference"


def test_the_time_that_a_picture_took_is_said(browser, page, photos):
    opened(browser, page)
    before = browser.run("performance.now()")
    choose(browser, photos[0])
    took = browser.run("performance.now()") - before
    found = re.fullmatch(r"Preprocessing (\d+) ms, model (\d+) ms\.", text(browser, "latency"))
    assert sum(map(int, found.groups())) <= took + 1


def test_another_model_can_be_chosen_and_sees_the_same_picture(browser, page, artifacts, photos):
    opened(browser, page)
    choose(browser, photos[0])
    choose_model(browser, 1)
    assert "int8" in text(browser, "card")
    assert browser.run("document.getElementById('proof').dataset.state") == "same"
    assert "signal to noise ratio" in text(browser, "checks")
    top = vit_deploy.predict(artifacts[1], photos[0]).result.top
    wait(browser, f"document.querySelector('#classes li').dataset.class === '{top[0].index}'")
    assert float(seen(browser)[0]["logit"]) == pytest.approx(top[0].logit, abs=0.05)


def test_tflite_files_run_in_litert_and_beside_onnx(browser, artifacts, tflite, npm_files, photos, tmp_path):
    both = [tflite, artifacts[1]]
    path = vit_deploy.demo(both, tmp_path / "both.html", runtime_files=npm_files).result.path
    opened(browser, path)
    for index, artifact in enumerate(both):
        if index:
            choose_model(browser, index)
        assert browser.run("document.getElementById('proof').dataset.state") == "same"
        choose(browser, photos[0])
        top = vit_deploy.predict(artifact, photos[0]).result.top
        assert int(seen(browser)[0]["class"]) == top[0].index
        assert float(seen(browser)[0]["logit"]) == pytest.approx(top[0].logit, abs=0.05)
    assert [url for url in browser.asked if not url.startswith("blob:")] == [path.as_uri()]


def test_every_form_of_input_is_given_as_the_file_takes_it(
    browser, labelled, make_checkpoint, artifacts, npm_files, photos, tmp_path
):
    pixels = {"layout": "nchw", "include_preprocessing": True, "batch": 2}
    gray = make_checkpoint(channels=1)
    half = vit_deploy.QuantizeOptions(half_io=True)
    models = [
        vit_deploy.export(labelled, tmp_path / "pixels", formats="onnx", **pixels).result,
        vit_deploy.export(labelled, tmp_path / "half", formats="onnx", precisions="fp16", quantizing=half).result,
        vit_deploy.export(gray, tmp_path / "gray", formats="onnx").result,
        with_weights_outside(artifacts[0], tmp_path / "outside"),
    ]
    opened(browser, vit_deploy.demo(models, tmp_path / "forms.html", runtime_files=npm_files).result.path)
    for index, artifact in enumerate(models):
        if index:
            choose_model(browser, index)
        assert browser.run("document.getElementById('proof').dataset.state") == "same", artifact.directory
        choose(browser, photos[0])
        top = vit_deploy.predict(artifact, photos[0]).result.top
        assert int(seen(browser)[0]["class"]) == top[0].index
        assert float(seen(browser)[0]["logit"]) == pytest.approx(top[0].logit, abs=5e-3)


def with_weights_outside(artifact: Artifact, folder: Path) -> Artifact:
    """The same artifact as it is when its weights are too large for one file."""
    folder.mkdir()
    model = onnx.load(artifact.model_path)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="model.onnx.data", size_threshold=512)
    (folder / "golden.npz").write_bytes((artifact.directory / "golden.npz").read_bytes())
    return write_manifest(dataclasses.replace(artifact, directory=folder))


def test_attention_and_alike_patches_are_drawn_where_the_file_gives_them(
    browser, labelled, npm_files, photos, tmp_path
):
    names = ["logits", "patch_tokens", "block_1.attention"]
    artifact = vit_deploy.export(labelled, tmp_path, formats="onnx", outputs=names).result
    opened(browser, vit_deploy.demo(artifact, tmp_path / "maps.html", runtime_files=npm_files).result.path)
    choose(browser, photos[0])
    image = vit_deploy.read_images(artifact, photos[0])
    engine = ort.InferenceSession(artifact.model_path)
    tokens, attention = (values[0] for values in engine.run(names[1:], {"images": image}))
    rows, columns = labelled.config.grid
    by_attention = attention[:, 0, labelled.config.num_prefix_tokens :].mean(axis=0)
    assert drawn(browser) == pytest.approx(spread(by_attention), abs=2e-3)
    assert browser.run("document.getElementById('pointing').hidden")
    select = "document.getElementById('map')"
    browser.run(f"{select}.value = 'patch_tokens'; {select}.dispatchEvent(new Event('change'))")
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    middle = rows // 2 * columns + columns // 2
    assert drawn(browser) == pytest.approx(spread(unit @ unit[middle]), abs=2e-3)
    browser.run("document.getElementById('overlay').focus()")
    browser.press("ArrowUp")
    assert drawn(browser) == pytest.approx(spread(unit @ unit[middle - columns]), abs=2e-3)


def drawn(browser: Browser) -> list[float]:
    return json.loads(browser.run("document.getElementById('overlay').dataset.values"))


def spread(values: np.ndarray) -> list[float]:
    return ((values - values.min()) / np.ptp(values)).tolist()


def test_what_is_no_picture_is_named_and_the_page_goes_on(browser, page, photos, tmp_path):
    opened(browser, page)
    (tmp_path / "text.png").write_text("not a picture")
    choose(browser, tmp_path / "text.png")
    assert text(browser, "problem") == (
        "That picture cannot be used: this browser cannot read the file, or it is no image; save it as PNG or JPEG."
    )
    choose(browser, photos[0])
    assert browser.run("document.getElementById('problem').hidden") and len(seen(browser)) == 5


@pytest.mark.parametrize("way", ["drop", "paste"])
def test_pictures_are_dropped_and_pasted(browser, page, photos, way):
    opened(browser, page)
    content = base64.b64encode(photos[1].read_bytes()).decode()
    browser.run(
        f"""(() => {{
          const bytes = Uint8Array.from(atob({json.dumps(content)}), (letter) => letter.charCodeAt(0));
          const held = new DataTransfer();
          held.items.add(new File([bytes], "photo.png", {{type: "image/png"}}));
          document.getElementById("drop").dispatchEvent("{way}" === "drop"
            ? new DragEvent("drop", {{dataTransfer: held, bubbles: true, cancelable: true}})
            : new ClipboardEvent("paste", {{clipboardData: held, bubbles: true}}));
        }})()"""
    )
    wait(browser, "!!document.getElementById('said').textContent")
    assert len(seen(browser)) == 5


def test_the_camera_is_classified_until_it_is_stopped(browser, page):
    opened(browser, page)
    browser.run(
        """(() => {
          const canvas = Object.assign(document.createElement("canvas"), {width: 160, height: 120});
          const context = canvas.getContext("2d");
          setInterval(() => {
            context.fillStyle = `hsl(${performance.now() / 10}, 80%, 50%)`;
            context.fillRect(0, 0, 160, 120);
          }, 30);
          navigator.mediaDevices.getUserMedia = async () => (window.stream = canvas.captureStream(20));
          document.getElementById("camera").click();
        })()"""
    )
    wait(browser, "!!document.getElementById('said').textContent")
    assert text(browser, "camera") == "Stop the camera" and "of 160x120" in text(browser, "size")
    browser.run("document.getElementById('camera').click()")
    assert browser.run("window.stream.getTracks().every((track) => track.readyState === 'ended')")
    assert browser.run("document.getElementById('camera').getAttribute('aria-pressed')") == "false"


def test_a_camera_that_may_not_be_used_is_said(browser, page):
    opened(browser, page)
    browser.run("document.getElementById('camera').click()")
    wait(browser, "!document.getElementById('problem').hidden")
    assert "there is no camera, or it may not be used" in text(browser, "problem")


def test_wrong_answers_and_other_preprocessing_are_different(browser, artifacts, npm_files, tmp_path):
    engine = engine_for("onnx", npm_files)
    model = model_of(artifacts[0], "model")
    outputs = np.frombuffer(next(part.data for part in model.contents if part.name == "model-outputs"), "<f8") + 1e-3
    contents = [
        Content(part.name, outputs.tobytes()) if part.name == "model-outputs" else part for part in model.contents
    ]
    preprocess = model.facts["preprocess"] | {"interpolation": "bilinear"}
    changed = dataclasses.replace(model, facts=model.facts | {"preprocess": preprocess}, contents=tuple(contents))
    (tmp_path / "page.html").write_text(one_file([changed], [engine], "Wrong"), encoding="utf-8")
    opened(browser, tmp_path / "page.html")
    assert text(browser, "verdict") == "Different from the reference"
    assert "The model's answers: largest difference 0.001 is above the tolerance of" in text(browser, "checks")
    assert "A recorded image file becomes other pixels, up to" in text(browser, "checks")


def test_a_model_that_does_not_load_is_said(browser, artifacts, npm_files, tmp_path):
    engine = engine_for("onnx", npm_files)
    model = model_of(artifacts[0], "model")
    contents = [Content(part.name, b"no model") if part.name == "model-model" else part for part in model.contents]
    broken = dataclasses.replace(model, contents=tuple(contents))
    (tmp_path / "page.html").write_text(one_file([broken], [engine], "Broken"), encoding="utf-8")
    opened(browser, tmp_path / "page.html")
    assert text(browser, "verdict").startswith("The model does not run here: ")


def test_a_file_without_the_recorded_output_is_said(browser, artifacts, npm_files, tmp_path):
    model = model_of(artifacts[0], "model")
    other = dataclasses.replace(model, facts=model.facts | {"output": "features"})
    (tmp_path / "page.html").write_text(one_file([other], [engine_for("onnx", npm_files)], "Other"), encoding="utf-8")
    opened(browser, tmp_path / "page.html")
    assert text(browser, "verdict") == "The model does not run here: the file has no output features; it has logits"


def test_it_fits_follows_the_scheme_and_is_named_for_screen_readers(browser, page, photos):
    opened(browser, page)
    choose(browser, photos[0])
    for size, dark in ((PHONE, False), (PHONE, True), (DESKTOP, True), (DESKTOP, False)):
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.ask("Emulation.setEmulatedMedia", features=scheme)
        browser.ask("Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1, mobile=size is PHONE)
        assert browser.run("document.documentElement.scrollWidth") <= size["width"]
        ground = browser.run("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(20, 23, 26)" if dark else "rgb(255, 255, 255)")
    tree = browser.ask("Accessibility.getFullAXTree")["nodes"]
    named = {(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if "role" in node}
    assert ("combobox", "Model") in named and ("button", "Use the camera") in named
    assert ("image", "The picture as the model sees it") in named and ("list", "Classes") in named
    assert browser.run("document.getElementById('said').getAttribute('aria-live')") == "polite"
    assert browser.run("document.getElementById('said').textContent") == (
        f"{seen(browser)[0]['name']}, " + browser.run("document.querySelector('#classes .share').textContent")
    )


def test_everything_is_reached_from_the_keyboard(browser, page):
    opened(browser, page)
    reached = []
    for _ in range(5):
        browser.press("Tab")
        reached.append(browser.run("document.activeElement.id || document.activeElement.textContent"))
    assert reached == ["Skip to the picture", "model", "file", "camera", "Licences of what is in this page"]


def test_a_folder_is_served_and_fetches_its_own_files_alone(browser, artifacts, npm_files, tmp_path):
    folder = vit_deploy.demo(artifacts[1], tmp_path / "site", runtime_files=npm_files).result.path
    with served(browser, folder) as address:
        wait(browser, f"['yes', 'failed'].includes({READY})")
        assert browser.run("document.getElementById('proof').dataset.state") == "same"
        assert all(url.startswith((address, "blob:")) for url in browser.asked)


def test_a_folder_that_is_opened_as_a_file_says_what_to_do(browser, artifacts, npm_files, tmp_path):
    folder = vit_deploy.demo(artifacts[1], tmp_path / "site", runtime_files=npm_files).result.path
    opened(browser, folder / "index.html")
    assert text(browser, "verdict") == (
        "The model does not run here: this folder has to be served: python -m http.server"
    )
