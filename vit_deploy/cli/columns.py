"""Columns of a terminal's tables, and what is left out or shortened of them where there is little room."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

Measure = Callable[[str], int]
"""How many characters a text takes on a terminal."""

BETWEEN = 3  # spaces between two columns
AROUND = 2  # spaces at both ends of a line together
ELLIPSIS = "…"
ABSENT = "-"  # the cell of a figure that there is none of
SEPARATOR = os.sep  # of the parts of a path
LEAST_PROSE = 12  # characters of a line of prose that can be read
LONGEST_WORD = 24  # characters; a longer one, as a digest, may be cut
PAGE = 120  # characters in a line of a file or a pipe, of sentences alone


class Shortening(StrEnum):
    """How the cells of a column may be made narrower."""

    NEVER = "never"
    LEFT = "left"  # paths, which keep their last parts
    WRAPPED = "wrapped"  # sentences and lists, which go on in the next line after a whole word


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: its heading.
        rank: 1 for what is never left out; of the others the column with the highest rank is left out first.
        shortening: how its cells may be made narrower.
    """

    name: str
    rank: int = 1
    shortening: Shortening = Shortening.NEVER


def paths(name: str) -> Column:
    """A column of paths, which lose their first parts where there is no room for them."""
    return Column(name, shortening=Shortening.LEFT)


def prose(name: str, rank: int = 1) -> Column:
    """A column of sentences or lists, which go on in the next line."""
    return Column(name, rank, Shortening.WRAPPED)


def ranked(columns: Sequence[str | Column], spare: Sequence[str] = ()) -> tuple[Column, ...]:
    """Columns in their order, with their ranks.

    Args:
        columns: of the table.
        spare: names of those that may be left out, the most important one first.
    """
    ranks = {name: 2 + place for place, name in enumerate(spare)}
    whole = (Column(column) if isinstance(column, str) else column for column in columns)
    return tuple(replace(column, rank=ranks.get(column.name, column.rank)) for column in whole)


@dataclass(frozen=True)
class Fitted:
    """What is shown of a table.

    Args:
        columns: those that there is room for.
        rows: their cells; a cell of several lines has line breaks.
        everywhere: names and cells of columns that say the same in every row, for which one place is enough.
        left_out: names of the columns that there is no room for.
        cut: whether a part of a cell is missing.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]
    everywhere: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()
    cut: bool = False

    @property
    def remarks(self) -> list[str]:
        """What has to be known of it; nothing where all is shown."""
        said = []
        if self.everywhere:
            told = (f"{name} {'none' if cell == ABSENT else cell}" for name, cell in self.everywhere)
            said.append(f"in every row: {', '.join(told)}")
        missing = [f"left out: {', '.join(self.left_out)}"] if self.left_out else []
        missing += [f"{ELLIPSIS} stands for what was cut"] if self.cut else []
        if missing:
            said.append(f"{'; '.join(missing)} (a wider terminal and --json show all)")
        return said


def on_a_page(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, measure: Measure) -> Fitted:
    """A table for a file or a pipe: facts, each of them a name and a sentence, go on in the next line, whole.

    Any other table has a line for each row, as scripts read them.

    Args:
        columns: of the table.
        rows: their cells, of a line each.
        width: characters in a line of facts.
        measure: how many of them a text takes.
    """
    whole = Fitted(tuple(columns), tuple(map(tuple, rows)))
    if len(columns) != 2 or columns[1].shortening is not Shortening.WRAPPED:
        return whole
    longest = max(measure(name) for name in (columns[0].name, *(row[0] for row in rows)))
    names = min(longest, width // 3)
    room = max(LEAST_PROSE, width - _needed([names, 0]))
    broken = ((wrapped(row[0], names, measure, cut=False), wrapped(row[1], room, measure, cut=False)) for row in rows)
    return replace(whole, rows=tuple(broken))


def fitted(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, measure: Measure) -> Fitted:
    """Leave out and shorten as little as a width asks for, and never break a word or a figure.

    Args:
        columns: of the table.
        rows: their cells, of a line each.
        width: characters in a line.
        measure: how many of them a text takes.
    """
    cells = [[row[at] for row in rows] for at in range(len(columns))]
    least = [_least(column, cells[at], measure) for at, column in enumerate(columns)]
    kept = list(range(len(columns)))
    same = [at for at in kept if len(rows) > 1 and len(set(cells[at])) == 1]
    while _needed([least[at] for at in kept]) > width:
        spare = [at for at in kept if columns[at].rank > 1]
        if not spare:
            return _stacked(columns, rows, width, measure)
        # What is the same in every row is told once instead, so it goes first.
        kept.remove(max(spare, key=lambda at: (at in same, columns[at].rank)))
    gone = [at for at in range(len(columns)) if at not in kept]
    shown = Fitted(
        tuple(columns[at] for at in kept),
        tuple(tuple(row[at] for at in kept) for row in rows),
        tuple((columns[at].name, cells[at][0]) for at in gone if at in same),
        tuple(columns[at].name for at in gone if at not in same),
    )
    return _narrowed(shown, width, measure)


def _stacked(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int, measure: Measure) -> Fitted:
    """Each cell in a line of its own beside its heading, where the columns that have to be there do not fit."""
    if len(columns) == 1:
        return _narrowed(Fitted(tuple(columns), tuple(map(tuple, rows))), width, measure)
    lines = [
        line
        for row in rows
        for line in (*((column.name, cell) for column, cell in zip(columns, row, strict=True)), ("", ""))
    ]
    return _narrowed(Fitted((paths(""), prose("")), tuple(lines[:-1])), width, measure)


def _needed(widths: Sequence[int]) -> int:
    return sum(widths) + BETWEEN * (len(widths) - 1) + AROUND


def _least(column: Column, cells: Sequence[str], measure: Measure) -> int:
    """The width that a column needs so that it still tells what it is there for."""
    widest = max(map(measure, (column.name, *cells)))
    if column.shortening is Shortening.WRAPPED:
        words = [measure(word) for text in (column.name, *cells) for word in text.split(" ") if SEPARATOR not in word]
        longest = max((length for length in words if length <= LONGEST_WORD), default=0)
        return min(widest, max(longest, LEAST_PROSE))
    if column.shortening is Shortening.LEFT:
        count = _fewest_parts(cells)
        return max(measure(column.name), *(measure(_last_parts(text, count)) for text in cells)) if cells else widest
    return widest


def _narrowed(table: Fitted, width: int, measure: Measure) -> Fitted:
    """The same with the columns that may be shortened as wide as there is room for."""
    columns, cut = list(table.columns), False
    cells = [[row[at] for row in table.rows] for at in range(len(columns))]
    widths = [max(map(measure, (column.name, *cells[at]))) for at, column in enumerate(columns)]
    least = [_least(column, cells[at], measure) for at, column in enumerate(columns)]
    # Paths give way first, so that a row keeps to one line while it can, and of two columns the wider one.
    for at in sorted(range(len(columns)), key=lambda at: (columns[at].shortening is not Shortening.LEFT, -widths[at])):
        room = max(least[at], widths[at] - max(0, _needed(widths) - width))
        if columns[at].shortening is Shortening.NEVER or room >= widths[at]:
            continue
        narrow = _short_path if columns[at].shortening is Shortening.LEFT else wrapped
        made = [narrow(text, room, measure) for text in cells[at]]
        cut |= any(ELLIPSIS in short and ELLIPSIS not in text for text, short in zip(cells[at], made, strict=True))
        cells[at] = made
        columns[at] = replace(columns[at], name=narrow(columns[at].name, room, measure))
        widths[at] = max(measure(line) for text in (columns[at].name, *made) for line in text.split("\n"))
    rows = tuple(zip(*cells, strict=True))
    return replace(table, columns=tuple(columns), rows=rows, cut=cut)


def _fewest_parts(cells: Sequence[str]) -> int:
    """How many of the last parts tell different paths apart; a file keeps the name of its folder."""
    different = dict.fromkeys(cells)
    count = 2 if any("." in text.rpartition(SEPARATOR)[2] for text in different) else 1
    while len({_last_parts(text, count) for text in different}) < len(different):
        count += 1
    return count


def _last_parts(text: str, count: int) -> str:
    parts = text.split(SEPARATOR)
    return text if len(parts) <= count else SEPARATOR.join([ELLIPSIS, *parts[-count:]])


def _short_path(text: str, room: int, measure: Measure) -> str:
    """As many of the last parts as there is room for; of a single one that is too long, its end."""
    for count in range(text.count(SEPARATOR) + 1, 0, -1):
        if measure(short := _last_parts(text, count)) <= room:
            return short
    end = text.rpartition(SEPARATOR)[2]
    while end and measure(end) >= room:
        end = end[1:]
    return ELLIPSIS + end


def wrapped(text: str, room: int, measure: Measure, *, cut: bool = True) -> str:
    """Lines of whole words; one that is longer than a line is cut, or takes the room that it takes."""
    lines = [""]
    for word in (_short_word(part, room, measure) if cut else part for part in text.split(" ")):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if not lines[-1] or measure(longer) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return "\n".join(lines)


def _short_word(word: str, room: int, measure: Measure) -> str:
    """A word that is longer than a line keeps what is last of a path, else what is first."""
    if measure(word) <= room:
        return word
    if SEPARATOR in word:
        return _short_path(word, room, measure)
    while measure(word) >= room:
        word = word[:-1]
    return word + ELLIPSIS
