"""The server on the loopback that a page asks for its files and for commands, and gives its answers to."""

from __future__ import annotations

import contextlib
import http.server
import json
import queue
import secrets
import select
import shutil
import socket
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

TYPES = {".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm"}
HEADERS = {
    "Cache-Control": "no-store",
    # Threads and exact clocks are for pages that are isolated from others.
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Nothing is loaded from, or sent to, anywhere else.
    "Content-Security-Policy": "default-src 'self' blob: data: 'unsafe-inline' 'unsafe-eval'",
}
POLL_S = 5.0
LOOK_S = 0.2
PAGE, PAGE_FILES = "page.html", ("page.html", "page.js", "onnx.js", "tflite.js")
HERE = Path(__file__).parent
NOTHING = b""  # to do: what `next` is told from time to time, and when the server ends
GONE = -1  # the number of the answer that stands for the end of the page
ALIVE = 0  # and of the one for its beginning


@dataclass(frozen=True)
class Answer:
    """What a page answers.

    Args:
        number: of the command.
        head: its facts; `error` in words where it failed, and what its console `said`.
        body: bytes.
    """

    number: int
    head: Mapping[str, Any] = field(default_factory=dict)
    body: bytes = b""


class Exchange:
    """What goes to and from one page, and the files that it may have.

    Args:
        packages: folders of npm packages, by name.
        models: model files, by name.
    """

    def __init__(self, packages: Mapping[str, Path], models: Mapping[str, Path]) -> None:
        self.packages, self.models = packages, models
        self.secret = secrets.token_urlsafe(16)
        self.host = ""
        self.commands = queue.Queue[bytes]()
        self.answers = queue.Queue[Answer]()
        self.missing: list[str] = []  # files that it asked for and that are not there
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://{self.host}/{self.secret}/"

    def file(self, name: str) -> Path | None:
        """A file by the name that the page gives it; None where there is none, or it is none of the page's business."""
        if name in ("", *PAGE_FILES):
            return HERE / (name or PAGE)
        kind, _, rest = name.partition("/")
        if kind == "model":
            return self.models.get(rest)
        package = next((package for package in self.packages if rest.startswith(f"{package}/")), None)
        if kind != "npm" or package is None:
            return None
        root = self.packages[package]
        path = (root / rest.removeprefix(f"{package}/")).resolve()
        return path if path.is_relative_to(root) and path.is_file() else None


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection of the page."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # it makes 50 ms of each answer
    wbufsize = 1 << 16
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: what is worth it is told by the page."""

    def handle(self) -> None:
        """Serve requests until the page or its browser is gone."""
        with contextlib.suppress(ConnectionError):
            super().handle()

    def do_GET(self) -> None:
        """Files, the next command, and the request that stays open."""
        exchange, name = self.server.exchange, self._name()
        if name is None:
            self._send(404)
        elif name == "next":
            try:
                command = exchange.commands.get(timeout=POLL_S)
            except queue.Empty:
                command = NOTHING
            self._send(200 if command else 204, command)
        elif name == "alive":
            self._wait_for_its_end()
        elif (path := exchange.file(name)) is not None:
            self._send_file(path)
        else:
            exchange.missing.append(name)
            self._send(404)

    def do_POST(self) -> None:
        """An answer."""
        name, length = self._name(), int(self.headers.get("Content-Length", "0"))
        if name is None or not name.startswith("answer/"):
            self.close_connection = True
            self._send(404)
            return
        content = self.rfile.read(length)
        if len(content) < length:  # the page has ended in the middle of it, which `alive` tells
            self.close_connection = True
            return
        head, _, body = content.partition(b"\n")
        number = int(name.removeprefix("answer/"))
        self.server.exchange.answers.put(Answer(number, json.loads(head), body))
        self._send(204)

    def _name(self) -> str | None:
        """What is asked for behind the secret.

        None for whoever does not know it, and for pages that reach this server under another name.
        """
        exchange = self.server.exchange
        secret, _, name = self.path.partition("?")[0].removeprefix("/").partition("/")
        known = secrets.compare_digest(secret.encode(), exchange.secret.encode())
        return unquote(name) if known and self.headers.get("Host") == exchange.host else None

    def _wait_for_its_end(self) -> None:
        exchange = self.server.exchange
        self.close_connection = True
        exchange.answers.put(Answer(ALIVE))
        while not exchange.closing.is_set():
            if select.select([self.connection], [], [], LOOK_S)[0]:  # nothing is ever sent there: it has ended
                exchange.answers.put(Answer(GONE, {"error": "the page crashed or was closed"}))
                return

    def _send(self, status: int, body: bytes = b"") -> None:
        self._head(status, len(body), "application/octet-stream")
        self.wfile.write(body)
        self.wfile.flush()

    def _send_file(self, path: Path) -> None:
        self._head(200, path.stat().st_size, TYPES.get(path.suffix, "application/octet-stream"))
        with path.open("rb") as file:
            shutil.copyfileobj(file, self.wfile, 1 << 20)
        self.wfile.flush()

    def _head(self, status: int, length: int, kind: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(length), **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()


class Server(http.server.ThreadingHTTPServer):
    """A server of one page, on a port of its own."""

    daemon_threads = True
    block_on_close = False
    timeout = 1.0  # seconds until it looks whether it is over, should nobody be able to wake it

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.exchange = exchange
        exchange.host = f"127.0.0.1:{self.server_port}"

    def take_all(self) -> None:
        """Take connections until the exchange is closing and somebody wakes it."""
        while not self.exchange.closing.is_set():
            self.handle_request()

    def wake(self) -> None:
        """Let `take_all` see that it is over at once, by a connection that asks for nothing."""
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.server_port)):
            pass


@contextlib.contextmanager
def serving(exchange: Exchange) -> Iterator[None]:
    """Serve a page while the context lasts."""
    with Server(exchange) as server:
        thread = threading.Thread(target=server.take_all, daemon=True)
        thread.start()
        try:
            yield
        finally:
            exchange.closing.set()
            exchange.commands.put(NOTHING)
            server.wake()
            thread.join()
