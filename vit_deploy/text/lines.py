"""Files of names, one a line."""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from vit_deploy.errors import DataError

MAX_BYTES = 100_000_000
MAX_CLASSES = 100_000
LISTED = 5
MARKS = (
    (codecs.BOM_UTF32_LE, "UTF-32"),  # which begins as that of UTF-16
    (codecs.BOM_UTF32_BE, "UTF-32"),
    (codecs.BOM_UTF16_LE, "UTF-16"),
    (codecs.BOM_UTF16_BE, "UTF-16"),
)
ENDS = re.compile(r"\r\n|\r|\n")
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f]")  # in no text, but in other encodings and in files that are none
UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})  # categories of characters that leave no mark


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
    lines = [line.strip() for line in ENDS.split(_text(held, path, what))]
    while lines and not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{path} is empty", fix=f"give a file with one {what} a line")
    if empty := [number for number, line in enumerate(lines, 1) if not _is_seen(line)]:
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
    if empty := [number for number, name in enumerate(names, 1) if not _is_seen(name)]:
        raise DataError(f"{where} have no name at {_listed(empty, 'place')}", fix="give each class a name")
    if odd := [number for number, name in enumerate(names, 1) if not _is_text(name)]:
        raise DataError(
            f"{where} have control characters or halves of characters at {_listed(odd, 'place')}",
            fix="give plain texts",
        )
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"{where} are {len(names)}; expected at most {MAX_CLASSES}, whose head alone has hundreds of MB",
            fix="leave out classes that are not looked for",
        )
    places: dict[str, list[int]] = {}
    for number, name in enumerate(names, 1):
        # However its accents are composed, it reads the same.
        places.setdefault(unicodedata.normalize("NFC", name), []).append(number)
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
        text = held.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Where it stands is counted in what was decoded, which has no mark of the encoding.
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, error.start - (before.rfind(b"\n") + 1) + 1
        raise DataError(
            f"{path} is no UTF-8 text: line {line} has the byte 0x{error.object[error.start]:02X} at {column}",
            fix=f"save it as UTF-8, one {what} a line",
        ) from error
    if odd := CONTROL.search(text):
        line = len(ENDS.findall(text[: odd.start()])) + 1
        raise DataError(
            f"{path} is no UTF-8 text: line {line} has the control character 0x{ord(odd[0]):02X}",
            fix=f"save it as UTF-8, one {what} a line",
        )
    return text


def _is_seen(text: str) -> bool:
    """Whether a text has something to be read in it."""
    return any(unicodedata.category(character) not in UNSEEN for character in text)


def _is_text(text: str) -> bool:
    return CONTROL.search(text) is None and not any("\ud800" <= character <= "\udfff" for character in text)


def _listed(numbers: Sequence[int], what: str = "line") -> str:
    shown = ", ".join(map(str, numbers[:LISTED]))
    more = f" and {len(numbers) - LISTED} more" if len(numbers) > LISTED else ""
    return f"{what} {shown}{more}"
