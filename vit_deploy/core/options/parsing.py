"""Values from the texts of a command line; what cannot be is a `ValueError` that says what was expected."""

from __future__ import annotations

import math

MOST = 65536


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


def counts(text: str, most: int = MOST) -> tuple[int, ...]:
    """Positive whole numbers from "1" or "1,2,8", in that order and each once.

    Raises:
        ValueError: anything else, or one above `most`.
    """
    digits = [each.strip().lstrip("0") for each in text.split(",")]
    if not all(each.isascii() and each.isdigit() for each in digits):
        raise ValueError("positive numbers as 1 or 1,2,8")
    if any(len(each) > len(str(most)) or int(each) > most for each in digits):  # int() refuses thousands of digits
        raise ValueError(f"numbers up to {most}")
    return tuple(dict.fromkeys(map(int, digits)))


def batch_size(text: str) -> int | str:
    """Images a call from "8", or "dynamic".

    Raises:
        ValueError: anything else.
    """
    if text != "dynamic" and not (text.isascii() and text.isdigit() and len(text) < 10):
        raise ValueError("a number or dynamic")
    return text if text == "dynamic" else int(text)


def positive(text: str) -> float:
    """A finite number above 0.

    Raises:
        ValueError: anything else.
    """
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < math.inf:
        raise ValueError("a number above 0")
    return value
