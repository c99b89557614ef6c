"""Values from the texts of a command line; what cannot be is a `ValueError` that says what was expected."""

from __future__ import annotations

import math
import re
from pathlib import Path

MOST = 65536
MOST_THREADS = 1024  # more than any machine has; an engine would start them all


def numbers(text: str) -> tuple[float, ...]:
    """Finite numbers from "0.5" or "0.485,0.456,0.406".

    Raises:
        ValueError: anything else.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
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


def size_in_words(text: str) -> str:
    """Pixels as "384x512" from "384" or "384x512".

    Raises:
        ValueError: anything else.
    """
    height, width = size(text)
    return f"{height}x{width}"


def size_or_dynamic(text: str) -> tuple[int, int] | str:
    """Pixels as (height, width) from "224" or "384x512", or "dynamic".

    Raises:
        ValueError: anything else.
    """
    if text == "dynamic":
        return text
    try:
        return size(text)
    except ValueError as error:
        raise ValueError(f"{error}, or dynamic") from error


def counts(text: str, most: int = MOST) -> tuple[int, ...]:
    """Positive whole numbers from "1" or "1,2,8", in that order and each once.

    Raises:
        ValueError: anything else, or one above `most`.
    """
    digits = [part.strip().lstrip("0") for part in text.split(",")]
    if not all(digit.isascii() and digit.isdigit() for digit in digits):
        raise ValueError("positive numbers as 1 or 1,2,8")
    if any(len(digit) > len(str(most)) or int(digit) > most for digit in digits):  # int() refuses thousands of digits
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


def thread_counts(text: str) -> tuple[int, ...]:
    """`counts`, of threads."""
    return counts(text, MOST_THREADS)


def percentage(text: str) -> float:
    """A fraction from "5%" or "5", which is the same.

    Raises:
        ValueError: anything else, or less than nothing.
    """
    try:
        value = float(text.removesuffix("%")) / 100
    except ValueError:
        value = -1.0
    if not 0 <= value < 100:
        raise ValueError("a percentage as 5% or 5")
    return value


def milliseconds(text: str) -> float:
    """A time as "5ms", "0.8 ms", "250us" or "2s", in milliseconds.

    Raises:
        ValueError: anything else, or no time at all.
    """
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?|\.\d{1,9}) ?(us|ms|s)", text.strip(), re.ASCII)
    value = float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]] if found else 0.0
    if value <= 0:
        raise ValueError("a time as 5ms or 0.5s")
    return value


def at_commas(text: str) -> tuple[str, ...]:
    """Values joined by commas; a path that is there is one value, whatever it is called.

    Raises:
        ValueError: nothing beside a comma.
    """
    parts = (text,) if Path(text).exists() else tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise ValueError("values as a or a,b")
    return parts
