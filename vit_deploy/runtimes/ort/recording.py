"""A gate that keeps other threads from CUDA while one records a CUDA graph; no engine is imported."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Gate:
    """Lets any number of threads pass together, or one alone.

    Passing together is on the way of every call, so it is done by `with gate:`, which takes next to no time. A thread
    that passes must not pass again before it has left.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._passing = 0
        self._alone = False

    def __enter__(self) -> None:
        with self._lock:
            while self._alone:
                self._changed.wait()
            self._passing += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._passing -= 1
            if self._alone:
                self._changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While nobody else is there."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            self._changed.wait_for(lambda: not self._passing)
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


# While one thread records, what others ask of CUDA makes the recording fail (`cudaStreamCaptureModeGlobal`).
RECORDING = Gate()
