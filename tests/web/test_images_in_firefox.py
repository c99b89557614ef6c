"""Firefox reads image files to the byte as well; its page tells a server on the loopback what it has read."""

from __future__ import annotations

import base64
import http.server
import json
import os
import queue
import signal
import subprocess
import threading

import pytest
from PIL import Image, ImageOps
from test_images_in_chromium import EXACT

from vit_deploy.core.images import load_pixels
from vit_deploy.core.preprocess import Preprocess
from vit_deploy.runtimes.web.browsers import Browser
from vit_deploy.web.scripts import joined

pytestmark = pytest.mark.slow

READ = """
(async () => {
  const answers = {};
  for (const [name, content] of Object.entries(FILES)) {
    try {
      const {image, notes} = await readImage(Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0)));
      answers[name] = [image.height, image.width, btoa(String.fromCharCode(...image.data)), notes];
    } catch (error) {
      answers[name] = error.message;
    }
  }
  await fetch("answers", {method: "POST", body: JSON.stringify(answers)});
})();
"""


@pytest.fixture(scope="module")
def answers(firefox, tmp_path_factory):
    """What the page has read, by the name of the file."""
    files = {name: base64.b64encode(make()).decode() for name, make in EXACT.items()}
    script = joined("preprocess.mjs", "png.mjs", "images.mjs") + READ.replace("FILES", json.dumps(files))
    page = f'<!doctype html><meta charset="utf-8"><title>Images</title><script>{script}</script>'.encode()
    told: queue.Queue[bytes] = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *words: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page)

        def do_POST(self) -> None:
            told.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        command = Browser(firefox).command(address, tmp_path_factory.mktemp("profile"))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, start_new_session=True, **quiet) as process:
            try:
                yield json.loads(told.get(timeout=120))
            finally:
                os.killpg(process.pid, signal.SIGKILL)
        server.shutdown()


@pytest.mark.parametrize("name", EXACT)
def test_a_file_is_read_to_the_byte(answers, tmp_path, name):
    (tmp_path / "image").write_bytes(EXACT[name]())
    with Image.open(tmp_path / "image") as image:
        width, height = ImageOps.exif_transpose(image).size
    tall, wide, data, notes = answers[name]
    assert (tall, wide, notes) == (height, width, [])
    assert base64.b64decode(data) == load_pixels(tmp_path / "image", Preprocess(), (height, width)).tobytes()
