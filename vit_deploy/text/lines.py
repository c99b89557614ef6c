"""Files of names, one a line."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from pathlib import Path

from vit_deploy.errors import DataError

MAX_BYTES = 100_000_000
MAX_CLASSES = 100_000
LISTED = 5
MARKS = ((codecs.BOM_UTF16_LE, "UTF-16"), (codecs.BOM_UTF16_BE, "UTF-16"))


def lines_of(path: Path, what: str) -> list[str]:
    """The lines of a UTF-8 file, without what surrounds them; empty ones at its end are left out.

    Args:
        path: the file; it may begin with a mark of its encoding and end its lines as Windows does.
        what: a line is, for messages.

    Raises:
        DataError: no such file, empty, another encoding, or lines with nothing in them.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"{path} has {path.stat().st_size} bytes", fix=f"give a file with one {what} a line")
        held = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}", fix="check the path") from error
    lines = [line.strip() for line in _text(held, path, what).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{path} is empty", fix=f"give a file with one {what} a line")
    if empty := [number for number, line in enumerate(lines, 1) if not line]:
        raise DataError(f"{path} has no {what} in {_listed(empty)}", fix="take empty lines out")
    return lines


def checked_classes(given: Sequence[object], where: str) -> tuple[str, ...]:
    """Names of classes, each of which is there once.

    Args:
        given: in the order of the outputs.
        where: they are said, for messages.

    Raises:
        DataError: none, too many, or names that are empty, doubled or no texts.
    """
    if isinstance(given, str) or not all(isinstance(name, str) for name in given):
        raise DataError(f"{where} are no list of texts", fix='give them as ["cat", "dog"]')
    names = [str(name).strip() for name in given]
    if not names:
        raise DataError(f"{where} are none", fix="give a name for each class")
    if empty := [number for number, name in enumerate(names, 1) if not name]:
        raise DataError(f"{where} have no name at {_listed(empty, 'place')}", fix="give each class a name")
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"{where} are {len(names)}; expected at most {MAX_CLASSES}, whose head alone has hundreds of MB",
            fix="leave out classes that are not looked for",
        )
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names, 1):
        places.setdefault(name, []).append(number)
    doubled = [f"{name!r} at {' and '.join(map(str, numbers))}" for name, numbers in places.items() if len(numbers) > 1]
    if doubled:
        more = f" and {len(doubled) - LISTED} more" if len(doubled) > LISTED else ""
        raise DataError(
            f"{where} are not told apart: {', '.join(doubled[:LISTED])}{more}",
            fix="say each class once, or with a word more, as 'crane (bird)'",
        )
    return tuple(names)


def _text(held: bytes, path: Path, what: str) -> str:
    for mark, name in MARKS:
        if held.startswith(mark):
            raise DataError(f"{path} is {name} text; expected UTF-8", fix=f"save it as UTF-8, one {what} a line")
    try:
        return held.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Where it stands is counted in what was decoded, which has no mark of the encoding.
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        raise DataError(
            f"{path} is no UTF-8 text: line {line} has the byte 0x{error.object[error.start]:02X} at {column}",
            fix=f"save it as UTF-8, one {what} a line",
        ) from error


def _listed(numbers: Sequence[int], what: str = "line") -> str:
    shown = ", ".join(map(str, numbers[:LISTED]))
    more = f" and {len(numbers) - LISTED} more" if len(numbers) > LISTED else ""
    return f"{what} {shown}{more}"
