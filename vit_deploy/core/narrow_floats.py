"""Arrays whose every operator is rounded to fewer bits, as in an engine that computes so, with the first overflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
SQUARE = "square"  # its overflow is divided away again, so that what follows is finite


@dataclass(frozen=True)
class Narrow:
    """A kind of floats.

    Args:
        name: its name.
        largest: the largest value that it holds.
        rounded: gives float32 values that it holds.
    """

    name: str
    largest: float
    rounded: Callable[[Array], Array]


def _to_half(values: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(values, np.float16).astype(np.float32)


def _to_bfloat(values: Array) -> Array:
    """To the nearest, ties to even, of the upper 16 bits; NaN and infinities stay what they are."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(values), rounded.view(np.float32), values).astype(np.float32)


PROTECTED = "protected"  # the fact of a recipe that says what keeps a file in 16-bit floats from overflow
NARROW: Mapping[str, Narrow] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Narrow("fp16", float(np.finfo(np.float16).max), _to_half),
            Narrow("bf16", float(np.array(0x7F7F0000, np.uint32).view(np.float32)), _to_bfloat),
        )
    }
)


@dataclass(frozen=True)
class Overflow:
    """The first operator whose result was too large.

    Args:
        place: what it is part of, as `block_3.attention.scores`, or the weight that is too large itself.
        operator: its name, or "weights".
        largest: the largest absolute value that it gave.
    """

    place: str
    operator: str
    largest: float

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; the value is null where it passes even float32."""
        return {**vars(self), "largest": self.largest if np.isfinite(self.largest) else None}


@dataclass
class Trace:
    """What a computation in narrow floats has come upon.

    An overflow is seen in an operator, whose place is told by the next value that is shown and not finite; where all
    of a sub-layer's are, as behind the division of a norm, by the next that is shown at all.
    """

    kind: Narrow
    first: Overflow | None = None
    _seen: tuple[str, float] | None = None
    _next: str = field(default="", repr=False)

    def overflowed(self, operator: str, largest: float) -> None:
        """Keep an operator's overflow, if it is the first."""
        if self.first is None and self._seen is None:
            self._seen = (operator, largest)

    def shown(self, name: str, values: Array) -> None:
        """Look at a value that was computed."""
        if self.first is not None or self._seen is None:
            return
        name = name.removesuffix(".unit")
        known = self._next or name
        finite = bool(np.isfinite(np.asarray(values)).all())
        within = name.rpartition(".")[0] == known.rpartition(".")[0]
        if self._seen[0] == SQUARE or not within:
            self._place(known)
        elif not finite:
            self._place(name)
        else:
            self._next = known

    def found(self) -> Overflow | None:
        """The first overflow, once all is computed."""
        if self.first is None and self._seen is not None:
            self._place(self._next or "output")
        return self.first

    def _place(self, name: str) -> None:
        assert self._seen is not None
        self.first = Overflow(name, *self._seen)


class Rounded(np.ndarray[Any, Any]):
    """A float32 array whose operators are computed in float32 and rounded; sums are not, which engines keep wide."""

    overflows: Trace | None = None

    def __array_finalize__(self, source: Any) -> None:
        """Keep the trace of what it is a view or a copy of."""
        self.overflows = getattr(source, "overflows", None)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        """Compute plainly, then round, and tell the trace of what was finite and is not."""
        trace = next(value.overflows for value in (*inputs, *(out or ())) if isinstance(value, Rounded))
        plain = [value.view(np.ndarray) if isinstance(value, Rounded) else value for value in inputs]
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            result = getattr(ufunc, method)(*plain, **options)
        if not isinstance(result, np.ndarray | np.floating) or result.dtype.kind != "f" or trace is None:
            return result
        if method == "__call__":
            result = _narrowed(np.asarray(result, np.float32), ufunc.__name__, plain, trace)
        if out:
            out[0].view(np.ndarray)[...] = result
            return out[0]
        return as_rounded(result, trace)


def _narrowed(exact: Array, operator: str, inputs: list[Any], trace: Trace) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = trace.kind.rounded(exact)
    if not np.isfinite(rounded).all() and all(np.isfinite(value).all() for value in inputs):
        trace.overflowed(operator, float(np.abs(exact).max()))
    return rounded


def as_rounded(values: Array, trace: Trace) -> Array:
    """The values as an array that computes so."""
    rounded = np.asarray(values, np.float32).view(Rounded)
    rounded.overflows = trace
    return rounded
