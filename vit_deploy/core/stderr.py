"""stderr without the noise that engines write to it from C++."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Iterator

STDERR = 2  # the file descriptor, which C++ writes to whatever `sys.stderr` is

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


def _is_plain(stream: object) -> bool:
    # A stream that somebody put in place of stderr (pytest does) has no descriptor or one of its own.
    try:
        return bool(stream.fileno() == STDERR)  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):
        return False
