"""Values from the texts of a command line; what cannot be is a `ValueError` that says what was expected."""

from __future__ import annotations

import math


def numbers(text: str) -> tuple[float, ...]:
    """Finite numbers from "0.5" or "0.485,0.456,0.406".

    Raises:
        ValueError: anything else.
    """
    try:
        values = tuple(float(each) for each in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)):
        raise ValueError("numbers as 0.5 or 0.485,0.456,0.406")
    return values


def size(text: str) -> tuple[int, int]:
    """Pixels as (height, width) from "224" or "384x512".

    Raises:
        ValueError: anything else.
    """
    sides = text.lower().split("x")
    if len(sides) not in (1, 2) or not all(
        side.isascii() and side.isdigit() and len(side) < 10 and int(side) for side in sides
    ):
        raise ValueError("pixels as 224 or 384x512 (height x width)")
    return (int(sides[0]), int(sides[-1]))
