"""Orders in which products with biases and means are summed: NumPy's, and that of engines which go one by one.

In exact numbers they are the same. In float32 they are not where one summand is far larger than the others: NumPy adds
a bias when the products are summed, and sums a mean in pairs; XNNPACK, among others, starts with the bias and rounds
at its size with every product, and plain loops do so from the first large value on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_ONE_BY_ONE: ContextVar[bool] = ContextVar("one_by_one", default=False)


@contextlib.contextmanager
def one_by_one() -> Iterator[None]:
    """Sum one by one, biases first, inside of the block."""
    token = _ONE_BY_ONE.set(True)
    try:
        yield
    finally:
        _ONE_BY_ONE.reset(token)


def product(x: Array, kernel: Array, bias: Array | None) -> Array:
    """`x @ kernel + bias`.

    Args:
        x: `(…, inputs)`.
        kernel: `(inputs, outputs)`.
        bias: `(outputs,)`; None adds nothing.
    """
    if bias is None:
        return np.asanyarray(x @ kernel)
    if not _ONE_BY_ONE.get():
        return np.asanyarray(x @ kernel + bias)
    # Matrix products sum along the inputs from the first to the last.
    ones = np.ones((*x.shape[:-1], 1), x.dtype)
    return np.asarray(np.concatenate([ones, x], axis=-1) @ np.concatenate([bias[None], kernel]))


def mean(x: Array) -> Array:
    """Over the last axis, which stays as one of length 1."""
    if not _ONE_BY_ONE.get():
        return np.asanyarray(x.mean(axis=-1, keepdims=True))
    return np.asarray(np.cumsum(x, axis=-1, dtype=x.dtype)[..., -1:] / x.shape[-1])


ORDERS: tuple[Callable[[], AbstractContextManager[None]], ...] = (contextlib.nullcontext, one_by_one)
"""In which float32 is tried when it is measured what rounding does to a model; the first is NumPy's."""
