"""Handlers of faults of memory and arithmetic, kept while a library begins or ends its work."""

from __future__ import annotations

import contextlib
import ctypes
import signal
from collections.abc import Iterator

NAMES = ("SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL")
ROOM_BYTES = 512  # for what a system says of a handler, which is less everywhere


@contextlib.contextmanager
def kept_handlers() -> Iterator[None]:
    """A block after which faults go where they went before.

    Java's machine lives on them: its code runs into a fault where it looks for a null pointer, and a library that
    takes them over, to print a trace, ends the process at the next one.
    """
    change = getattr(ctypes.CDLL(None), "sigaction", None) if hasattr(signal, "SIGBUS") else None
    if change is None:  # Windows has none
        yield
        return
    before = {}
    for name in NAMES:
        before[name] = ctypes.create_string_buffer(ROOM_BYTES)
        change(int(getattr(signal, name)), None, before[name])
    try:
        yield
    finally:
        for name, handler in before.items():
            change(int(getattr(signal, name)), handler, None)
