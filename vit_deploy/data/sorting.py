"""Texts in their order, of which most wait on disk where there are many."""

from __future__ import annotations

import heapq
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import IO, Any

RUN = 20_000  # texts that are sorted at once; longer lists are sorted in pieces on disk
END = "\0"  # the one character that no name has
PIECE = 1 << 14  # characters that are read at once

Order = Callable[[str], Any]


def in_order(texts: Iterable[str], order: Order) -> Iterator[str]:
    """Texts in their order; of more than `RUN` of them all but a part wait in files.

    Args:
        texts: read to their end before the first is given.
        order: what they are compared by.
    """
    left = iter(texts)
    first = sorted(islice(left, RUN), key=order)
    if len(first) < RUN:
        yield from first
        return
    runs = [Spooled(first)]
    del first
    while run := sorted(islice(left, RUN), key=order):
        runs.append(Spooled(run))
    try:
        yield from heapq.merge(*runs, key=order)
    finally:
        for file in runs:
            file.close()


class Spooled:
    """Texts that are on disk, to be read as often as it takes.

    Args:
        texts: what is kept, in this order.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `close`, or when it is forgotten
        self._turn = threading.Lock()
        self._count = 0
        for text in texts:
            self._file.write((text + END).encode("utf-8", "surrogateescape"))
            self._count += 1
        self._file.flush()

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[str]:
        place, left = 0, b""
        while True:
            with self._turn:  # several readers share one place in the file
                self._file.seek(place)
                piece = self._file.read(PIECE)
            if not piece:
                return
            place += len(piece)
            *whole, left = (left + piece).split(END.encode())
            yield from (text.decode("utf-8", "surrogateescape") for text in whole)

    def close(self) -> None:
        """Take the file away."""
        self._file.close()
