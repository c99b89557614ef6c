"""A browser that is a Python script: it plays the page over HTTP, well or badly, in a process or beside the test."""

from __future__ import annotations

import contextlib
import http.client
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

# What scripts call. ADDRESS is that of the page, `connections` are all that were made, `rest` does nothing for long.
WORDS = """
import http.client, json
from urllib.parse import urlsplit

where = urlsplit(ADDRESS)


def connect():
    connections.append(http.client.HTTPConnection(where.netloc))
    return connections[-1]


def ask(path, body=None, host=None, root=where.path):
    connection = connect()
    headers = {"Host": host} if host else {}
    connection.request("GET" if body is None else "POST", root + path, body, headers)
    reply = connection.getresponse()
    return reply.status, dict(reply.getheaders()), reply.read()


def alive():
    connection = connect()
    connection.request("GET", where.path + "alive")
    return connection


def commands():
    while True:
        status, _, body = ask("next")
        if status == 200:
            head, _, rest = body.partition(b"\\n")
            yield json.loads(head), rest


def answer(number, head, body=b""):
    ask(f"answer/{number}", json.dumps(head).encode() + b"\\n" + body)

"""
PROGRAM = """#!{python} -SE
import os, sys, time

ADDRESS, connections = sys.argv[-1], []
open({marks!r}, "a").write(ADDRESS + chr(10))


def rest():
    time.sleep(60)

"""

SWIFTSHADER = {"name": "google swiftshader", "software": True, "f16": False}

# What a page with an engine answers: every image has the same logits.
GOOD = """
FACTS = {"agent": "Mozilla/5.0 Played/1.0 Chrome/156.0.0.0", "versions": {}, "isolated": True, "adapter": ADAPTER}
OPENED = {"input": {"name": "images", "shape": [None, 6, 5, 3]}, "outputs": ["logits"], "open_ms": 12.5}
held = alive()
for head, body in commands():
    op = head["op"]
    if op in FAULTS:
        FAULTS[op](head)
        continue
    logits = b"\\0\\0\\x80\\x3f" * 4
    samples = [2.5] * (head.get("calls") or 3)
    replies = {"look": FACTS, "start": {}, "open": OPENED, "upload": {}, "time": {"samples_ms": samples}}
    if op == "run":
        about = {"dtype": "float32", "shape": [head["shape"][0], 4]}
        outputs = [about for _ in head["outputs"]]
        answer(head["number"], {"outputs": outputs}, logits * head["shape"][0] * len(outputs))
    else:
        answer(head["number"], replies[op])
"""


def good(faults: str = "", adapter: str = "None") -> str:
    """A script that answers everything, but the commands in `faults`, a dictionary of functions in Python's words."""
    return f"ADAPTER = {adapter}\nFAULTS = {{{faults}}}\n{GOOD}"


def write_browser(folder: Path, script: str) -> tuple[str, Path]:
    """The path of the program, and of a file with the addresses that it was started with."""
    program, marks = folder / "played", folder / "started.txt"
    program.write_text(PROGRAM.format(python=sys.executable, marks=str(marks)) + WORDS + script)
    program.chmod(0o755)
    return str(program), marks


class PlayedBrowser:
    """Starts a script in a thread as a browser is started, which takes milliseconds; see `runtimes.web.page.Launch`.

    Attributes:
        started: the addresses that it was started with.
    """

    def __init__(self, script: str) -> None:
        self._script = script
        self.started: list[str] = []

    @contextlib.contextmanager
    def __call__(self, command: Sequence[str], profile: Path) -> Iterator[Played]:
        self.started.append(command[-1])
        played = Played(self._script, command[-1])
        try:
            yield played
        finally:
            played.end()


class Played:
    """A script that runs; see `runtimes.web.page.Running`."""

    def __init__(self, script: str, address: str) -> None:
        self._over = threading.Event()
        self._connections: list[Any] = []
        self._lines: list[str] = []
        self._how: str | None = None
        words = {"ADDRESS": address, "connections": self._connections, "rest": self._over.wait}
        self._thread = threading.Thread(target=self._play, args=(script, words | {"say": self._lines.append}))
        self._thread.start()

    def _play(self, script: str, words: dict[str, Any]) -> None:
        try:
            exec(WORDS + script, words)
        except SystemExit as end:
            self._how = f"exit {end.code}"
        except (OSError, http.client.HTTPException):
            if not self._over.is_set():  # else it has been ended in the middle of it
                raise

    def end(self) -> None:
        """End it as a signal would: nothing that it speaks to is open any longer."""
        self._over.set()
        while self._thread.is_alive():
            for connection in list(self._connections):
                if connection.sock is not None:
                    with contextlib.suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)
            self._thread.join(0.05)
        for connection in self._connections:
            connection.close()

    def ended(self) -> str | None:
        return self._how

    def said(self) -> list[str]:
        return self._lines

    def memory_mb(self) -> float:
        return 250.0

    def cpu_s(self) -> float:
        return 1.5
