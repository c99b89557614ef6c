"""How do rows of figures become a table in Markdown?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vit_deploy.core import markdown


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """All columns but the first are numbers."""
    return "\n".join(markdown.table(columns, rows, numeric=range(1, len(columns))))


def number(value: float | None, digits: int) -> str:
    """With so many digits behind the point; a dash for nothing."""
    return "-" if value is None else f"{value:.{digits}f}"
