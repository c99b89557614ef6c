"""A case loaded, warmed up and measured in a process of its own, which may crash or hang."""

from __future__ import annotations

import contextlib
import json
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from vit_deploy.core.child_processes import ending, of_children, python, was_killed
from vit_deploy.errors import EngineError, MissingEngineError

WORKER = python("-m", "vit_deploy.performance.worker")
STDERR_LINES = 5


class CaseProcess:
    """A worker; killed when its context ends, whatever it is doing.

    Args:
        name: the name of the case, for error messages.
        timeout_s: the limit in seconds for each answer.
        command: that speaks the worker's protocol.
    """

    def __init__(self, name: str, timeout_s: float, command: Sequence[str] = WORKER) -> None:
        self._name = name
        self._timeout_s = timeout_s
        self._command = list(command)

    def __enter__(self) -> CaseProcess:
        self._stderr = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**of_children(), "TF_CPP_MIN_LOG_LEVEL": "3"},
            encoding="utf-8",
            start_new_session=True,  # Ctrl-C is for the parent, which kills its workers in order
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin and self._process.stdout
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # a request that a dead worker never read
            self._process.stdin.close()
        self._stderr.close()

    def ask(self, request: Mapping[str, Any], *, extra_s: float = 0.0) -> dict[str, Any]:
        """The worker's answer.

        Args:
            request: see `performance.worker`.
            extra_s: that the request itself is meant to take, on top of the timeout.

        Raises:
            MissingEngineError: the engine lacks something, as a browser; names the case.
            EngineError: the engine refused, the worker crashed, or there was no answer in time; likewise.
        """
        assert self._process.stdin and self._process.stdout
        limit_s = self._timeout_s + extra_s
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(limit_s, give_up)
        timer.daemon = True
        timer.start()
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            raise self._hung(limit_s) if late.is_set() else self._crashed()
        answer: dict[str, Any] = json.loads(line)
        if error := answer.get("error"):
            kind = MissingEngineError if error.get("missing") else EngineError
            raise kind(f"{self._name}: {error['message']}", fix=error["fix"])
        return answer

    def _hung(self, limit_s: float) -> EngineError:
        return EngineError(
            f"{self._name}: no answer in {limit_s:g} s",
            fix="allow more time, or try a smaller batch or another runtime",
        )

    def _crashed(self) -> EngineError:
        code = self._process.wait()
        self._stderr.seek(0)
        said = [line for line in self._stderr.read().decode(errors="replace").splitlines() if line.strip()]
        fix = "a system out of memory kills with SIGKILL: try fewer cases at once or a smaller batch"
        return EngineError(
            "\n  ".join([f"{self._name}: the process that runs it ended ({ending(code)})", *said[-STDERR_LINES:]]),
            fix=fix if was_killed(code) else "try another runtime, or report the lines above",
        )
