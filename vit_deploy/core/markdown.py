"""Tables and plain text in Markdown, in GitHub's and GitLab's dialect."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence

SPECIAL = "\\`*_[]<>|~#"  # what Markdown or HTML may be made of


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, numeric: Container[int] = ()) -> list[str]:
    """The lines of a table.

    Args:
        columns: headings.
        rows: cells, in which `|` is escaped already.
        numeric: indices of the columns whose cells stand at the right.
    """
    rules = ["---:" if index in numeric else "---" for index in range(len(columns))]
    return [f"| {' | '.join(cells)} |" for cells in (columns, rules, *rows)]


def escaped(text: str, special: str = SPECIAL) -> str:
    """Text in one line, in which no special character means anything."""
    return re.sub(f"([{re.escape(special)}])", r"\\\1", re.sub(r"\s+", " ", text))
