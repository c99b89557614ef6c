"""A page in a browser that carries out commands, one after the other."""

from __future__ import annotations

import contextlib
import json
import queue
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from vit_deploy.errors import EngineError
from vit_deploy.runtimes.web.browsers import Browser
from vit_deploy.runtimes.web.process import BrowserProcess
from vit_deploy.runtimes.web.server import ALIVE, GONE, Answer, Exchange, serving

START_S = 120.0  # of a browser on a machine that is busy
ANSWER_S = 600.0
LOOK_S = 0.2
NOISE = ("INFO: ", "npu_registry", "No GPU adapter found", "VerifyEachNodeIsAssignedToAnEp")
CHECK = "check that the browser opens pages at all, or name another one with --browser"
TRY_ANOTHER = "try another runtime or provider, or export the model in another precision"


class Running(Protocol):
    """A browser that was started: what `BrowserProcess` tells of itself."""

    def ended(self) -> str | None:
        """How it ended, in words; None while it runs."""

    def said(self) -> list[str]:
        """The last lines that it has printed."""

    def memory_mb(self) -> float | None:
        """The memory that it holds, in 10^6 bytes; None where it is unknown."""

    def cpu_s(self) -> float | None:
        """Seconds of processors that it has taken so far; None where it is unknown."""


class Launch(Protocol):
    """What starts a browser with a command and a folder for its profile, and ends it with the context."""

    def __call__(self, command: Sequence[str], profile: Path) -> AbstractContextManager[Running]:
        """The browser, while the context lasts."""


class Page:
    """A page that is open.

    Args:
        exchange: what goes to and from it.
        process: the browser that it is in.
        browser: the browser's program.
        timeout_s: the limit in seconds for each answer.
        look_s: seconds between two looks at whether the browser still runs.
    """

    def __init__(
        self, exchange: Exchange, process: Running, browser: Browser, timeout_s: float, look_s: float = LOOK_S
    ) -> None:
        self.process = process
        self._exchange, self._browser, self._timeout_s, self._look_s = exchange, browser, timeout_s, look_s
        self._number = ALIVE
        self._turn = threading.Lock()

    def ask(
        self,
        op: str,
        doing: str,
        *,
        body: bytes = b"",
        extra_s: float = 0.0,
        fix: str = TRY_ANOTHER,
        **values: Any,
    ) -> tuple[Mapping[str, Any], bytes]:
        """What the page answers to a command.

        Args:
            op: the command, see `page.js`.
            doing: completes "the browser cannot …".
            body: bytes that go with it.
            extra_s: seconds that the command itself is meant to take, on top of the limit.
            fix: what to do where it fails.
            values: what else the command says.

        Raises:
            EngineError: the page or the engine in it refuses, crashes or does not answer in time.
        """
        with self._turn:
            self._number += 1
            head = json.dumps({"op": op, "number": self._number, **values})
            self._exchange.commands.put(head.encode() + b"\n" + body)
            return self._answer(doing, self._timeout_s + extra_s, fix)

    def wait_for_start(self) -> None:
        """Return when the page is there.

        Raises:
            EngineError: it does not come.
        """
        self._answer("open a page", min(START_S, self._timeout_s), fix=CHECK)

    def _answer(self, doing: str, limit_s: float, fix: str = TRY_ANOTHER) -> tuple[Mapping[str, Any], bytes]:
        end = time.monotonic() + limit_s
        while True:
            try:
                answer = self._exchange.answers.get(timeout=max(0.0, min(self._look_s, end - time.monotonic())))
            except queue.Empty:
                if (how := self.process.ended()) is not None:
                    raise self._failure(doing, f"it ended ({how})", self.process.said(), CHECK) from None
                if time.monotonic() > end:
                    raise self._failure(doing, f"no answer in {limit_s:g} s", self.process.said(), fix) from None
                continue
            if "error" in answer.head and answer.number in (GONE, ALIVE, self._number):
                raise self._refusal(doing, answer, fix)
            if answer.number == self._number:
                return answer.head, answer.body

    def _refusal(self, doing: str, answer: Answer, fix: str) -> EngineError:
        missing = dict.fromkeys(self._exchange.missing)
        lines = [f"there is no {name}" for name in missing]
        lines += [line for line in answer.head.get("said", ()) if not any(word in line for word in NOISE)]
        return self._failure(doing, str(answer.head["error"]), lines, fix)

    def _failure(self, doing: str, why: str, lines: list[str], fix: str) -> EngineError:
        return EngineError("\n  ".join([f"{self._browser.path} cannot {doing}: {why}", *lines]), fix=fix)


@contextlib.contextmanager
def open_page(
    browser: Browser,
    packages: Mapping[str, Path],
    models: Mapping[str, Path],
    *,
    webgpu: bool = False,
    timeout_s: float = ANSWER_S,
    look_s: float = LOOK_S,
    launch: Launch = BrowserProcess,
) -> Iterator[Page]:
    """A page in a browser of its own, which ends with the context.

    Args:
        browser: the browser's program.
        packages: folders of npm packages that the page may read, by name.
        models: model files that it may read, by name.
        webgpu: whether WebGPU is wanted.
        timeout_s: the limit in seconds for each answer.
        look_s: seconds between two looks at whether the browser still runs.
        launch: starts the browser.

    Raises:
        EngineError: the browser does not start, or opens no page.
    """
    exchange = Exchange(packages, models)
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vit-deploy-", ignore_cleanup_errors=True))
        profile = Path(folder)
        stack.enter_context(serving(exchange))
        command = browser.command(exchange.url, profile, webgpu=webgpu)
        process = stack.enter_context(launch(command, profile))
        page = Page(exchange, process, browser, timeout_s, look_s)
        page.wait_for_start()
        yield page
