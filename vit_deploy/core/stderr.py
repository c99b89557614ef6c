"""Redirections of the process's standard streams, which C++ code writes to as well."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

STDIN, STDOUT, STDERR = 0, 1, 2  # the file descriptors, which C++ uses whatever `sys.stderr` is

# The descriptor is the process's: of two blocks at once, the last to end would put the other's file back for good.
_TURN = threading.RLock()


class Captured:
    """What was written to stderr in a `quiet_stderr` block; complete once the block has ended."""

    def __init__(self) -> None:
        self.text = ""

    def tail(self, lines: int = 5) -> str:
        """The last lines that say something, for an error message."""
        return "\n".join([line for line in self.text.splitlines() if line.strip()][-lines:])


@contextlib.contextmanager
def quiet_stderr() -> Iterator[Captured]:
    """Keep what C++ code writes to stderr, instead of showing it.

    What Python code writes to `sys.stderr` meanwhile, such as a progress bar, is still shown. Threads take turns.
    """
    captured = Captured()
    with _TURN, tempfile.TemporaryFile() as file, contextlib.ExitStack() as stack:
        sys.stderr.flush()
        shown, saved = sys.stderr, os.dup(STDERR)
        if _is_plain(shown):
            sys.stderr = stack.enter_context(os.fdopen(os.dup(saved), "w", buffering=1, encoding=shown.encoding))
        os.dup2(file.fileno(), STDERR)
        try:
            yield captured
        finally:
            os.dup2(saved, STDERR)
            os.close(saved)
            sys.stderr = shown
            file.seek(0)
            captured.text = file.read().decode(errors="replace")


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[TextIO]:
    """Send to stderr what anything writes to stdout; the stream that is given still leads to stdout."""
    sys.stdout.flush()
    saved = os.dup(STDOUT)
    os.dup2(STDERR, STDOUT)
    try:
        with os.fdopen(os.dup(saved), "w", encoding="utf-8") as stdout, contextlib.redirect_stdout(sys.stderr):
            yield stdout
    finally:
        sys.stdout.flush()
        os.dup2(saved, STDOUT)
        os.close(saved)


def private_pipes() -> tuple[TextIO, TextIO]:
    """Stdin and stdout for a protocol alone: from now on, what prints goes to stderr, and what reads finds nothing."""
    requests = os.fdopen(os.dup(STDIN), "r", encoding="utf-8")
    answers = os.fdopen(os.dup(STDOUT), "w", encoding="utf-8")
    _point(os.devnull, os.O_RDONLY, STDIN)
    os.dup2(STDERR, STDOUT)
    return requests, answers


def detach_streams(log: Path) -> None:
    """Let a process that outlives its caller read nothing and write to a new file that only its user can read."""
    _point(os.devnull, os.O_RDONLY, STDIN)
    _point(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, STDOUT)
    os.dup2(STDOUT, STDERR)


def silence(stream: TextIO) -> None:
    """Let what is left in a stream go nowhere: Python would complain once more when it flushes at exit."""
    _point(os.devnull, os.O_WRONLY, stream.fileno())


def _point(path: str | Path, flags: int, descriptor: int) -> None:
    opened = os.open(path, flags, 0o600)
    os.dup2(opened, descriptor)
    os.close(opened)


def _is_plain(stream: object) -> bool:
    # A stream that somebody put in place of stderr (pytest does) has no descriptor or one of its own.
    try:
        return bool(stream.fileno() == STDERR)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
