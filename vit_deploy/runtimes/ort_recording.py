"""A gate that keeps other threads from CUDA while one records a CUDA graph; no engine is imported."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Gate:
    """Lets any number of threads pass together, or one alone."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._passing = 0
        self._alone = False

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """While nobody is alone."""
        with self._condition:
            self._condition.wait_for(lambda: not self._alone)
            self._passing += 1
        try:
            yield
        finally:
            with self._condition:
                self._passing -= 1
                self._condition.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """While nobody else is there."""
        with self._condition:
            self._condition.wait_for(lambda: not self._alone)
            self._alone = True
            self._condition.wait_for(lambda: not self._passing)
        try:
            yield
        finally:
            with self._condition:
                self._alone = False
                self._condition.notify_all()


# While one thread records, what others ask of CUDA makes the recording fail (`cudaStreamCaptureModeGlobal`).
RECORDING = Gate()
