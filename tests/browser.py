"""Chromium without a window, spoken to through DevTools on a pipe."""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import subprocess
import tempfile
import time

from vit_deploy.runtimes.web.browsers import installed_browsers

CHROMIUM = next((found.path for found in installed_browsers() if not found.is_firefox), None)
FIREFOX = next((found.path for found in installed_browsers() if found.is_firefox), None)
ANSWER_S = 60


class Browser:
    """One page at a time; `asked` is what it has tried to fetch from anywhere."""

    def __enter__(self):
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        read_there, self._write = os.pipe()
        self._read, write_there = os.pipe()

        def place():  # DevTools reads from 3 and writes to 4
            high = [os.dup(read_there), os.dup(write_there)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-dev-shm-usage"]
        options += ["--no-first-run", "--disable-background-networking", f"--user-data-dir={self._home.name}"]
        self._process = subprocess.Popen(
            [CHROMIUM, *options, "--remote-debugging-pipe", "about:blank"],
            preexec_fn=place,  # noqa: PLW1509 - there is no other thread
            close_fds=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read_there)
        os.close(write_there)
        self._number, self._buffer, self._session = 0, b"", None
        self.asked, self.said = [], []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for name in ("Page", "Network", "Runtime", "Log", "Accessibility"):
            self.ask(f"{name}.enable")
        self.ask("Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0)
        return self

    def __exit__(self, *error):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._read)
        os.close(self._write)
        self._home.cleanup()

    def ask(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + ANSWER_S
        while True:
            answer = self._next(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _next(self, end):
        while b"\0" not in self._buffer:
            assert select.select([self._read], [], [], max(0, end - time.monotonic()))[0], "no answer from Chromium"
            part = os.read(self._read, 1 << 20)
            assert part, "Chromium ended"
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\0")
        message = json.loads(line)
        if message.get("method") == "Network.requestWillBeSent":
            self.asked.append(message["params"]["request"]["url"])
        if message.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
            self.said.append(message["params"])
        return message

    def open(self, path, *, width, height, dark=False):
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=scheme)
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.ask("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + ANSWER_S
        while self.run("document.readyState") != "complete":
            assert time.monotonic() < end, "the page does not end to load"

    def run(self, expression):
        """The value of JavaScript."""
        result = self.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def press(self, key, code=None):
        text = {"Enter": "\r"}.get(key, "")
        number = {"Enter": 13, "Tab": 9, " ": 32, "ArrowUp": 38}[key]
        values = {"key": key, "code": code or key, "windowsVirtualKeyCode": number}
        self.ask("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", text=text, **values)
        self.ask("Input.dispatchKeyEvent", type="keyUp", **values)

    def screenshot(self, path):
        image = self.ask("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(image))
