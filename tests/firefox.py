"""Firefox without a window, spoken to through Marionette, its own protocol for tests."""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from browser import ANSWER_S, FIREFOX

from vit_deploy.runtimes.web.browsers import PREFERENCES

NOWHERE = {  # every request but those for files ends at a port that nobody listens on
    "network.proxy.type": 1,
    "network.proxy.no_proxies_on": "",
    "network.proxy.allow_hijacking_localhost": True,
    **{f"network.proxy.{kind}": "127.0.0.1" for kind in ("http", "ssl")},
    **{f"network.proxy.{kind}_port": 9 for kind in ("http", "ssl")},
    "network.captive-portal-service.enabled": False,
}
KEYS = {"Tab": "\ue004", "Enter": "\ue007", "ArrowUp": "\ue013", "ArrowDown": "\ue015"}
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # what WebDriver calls a reference


class Firefox:
    """One page at a time."""

    def __enter__(self):
        self._home = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        chosen = PREFERENCES | NOWHERE | {"marionette.port": 0, "intl.accept_languages": "en"}
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in chosen.items()]
        (Path(self._home.name) / "user.js").write_text("\n".join(lines))
        self._process = subprocess.Popen(
            [FIREFOX, "--headless", "--marionette", "--no-remote", "--profile", self._home.name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._number = 0
        try:
            self._connect(Path(self._home.name) / "MarionetteActivePort")
            self.ask("WebDriver:NewSession", capabilities={"alwaysMatch": {"acceptInsecureCerts": False}})
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error):
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._home.cleanup()

    def _connect(self, told):
        end = time.monotonic() + ANSWER_S
        while not (told.exists() and told.read_text().strip()):
            assert self._process.poll() is None, "Firefox ended"
            assert time.monotonic() < end, "Firefox does not start"
            time.sleep(0.05)
        self._socket = socket.create_connection(("127.0.0.1", int(told.read_text())), timeout=ANSWER_S)
        self._file = self._socket.makefile("rb")
        self._receive()

    def _receive(self):
        length = b""
        while not length.endswith(b":"):
            part = self._file.read(1)
            assert part, "Firefox ended"
            length += part
        return json.loads(self._file.read(int(length[:-1])))

    def ask(self, command, **parameters):
        self._number += 1
        message = json.dumps([0, self._number, command, parameters]).encode()
        self._socket.sendall(b"%d:%s" % (len(message), message))
        _, number, error, result = self._receive()
        assert number == self._number and error is None, error
        return result

    def open(self, path):
        self.ask("WebDriver:Navigate", url=path.resolve().as_uri())

    def run(self, expression):
        """The value of JavaScript."""
        return self.ask("WebDriver:ExecuteScript", script=f"return {expression}", args=[])["value"]

    def press(self, key):
        steps = [{"type": kind, "value": KEYS.get(key, key)} for kind in ("keyDown", "keyUp")]
        self.ask("WebDriver:PerformActions", actions=[{"type": "key", "id": "keyboard", "actions": steps}])

    def give_file(self, selector, path):
        """Choose a file where it is asked for."""
        found = self.ask("WebDriver:FindElement", using="css selector", value=selector)["value"]
        self.ask("WebDriver:ElementSendKeys", id=found[ELEMENT], text=str(path))

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.ask("WebDriver:TakeScreenshot", full=True)["value"]))
