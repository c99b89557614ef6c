"""Who is told what is being fetched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

Tell = Callable[[str], object]


def _silent(text: str) -> None:
    pass


_TELL: ContextVar[Tell] = ContextVar("tell", default=_silent)


@contextlib.contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """Tell of everything that is fetched in the block.

    Args:
        tell: called with what is being done, which ends with a percentage while a file arrives.
    """
    token = _TELL.set(tell)
    try:
        yield
    finally:
        _TELL.reset(token)


def tell(text: str) -> None:
    """Say what is being done."""
    _TELL.get()(text)
