"""Results as a Markdown page with the tables of the HTML one."""

from __future__ import annotations

import re

from vit_deploy.core import markdown
from vit_deploy.performance.report.answer import answers
from vit_deploy.performance.report.documents import Gathered
from vit_deploy.performance.report.naming import Names
from vit_deploy.performance.report.remarks import remarks
from vit_deploy.performance.report.tables import Cell, Table, tables


def markdown_page(gathered: Gathered, title: str) -> str:
    """A heading, the answer, each table, and what has to be known of single cases; GitHub's and GitLab's dialect."""
    names = Names(gathered)
    lines = [f"# {_plain(title)}", ""]
    found = answers(gathered, names)
    for answer in found:
        lines += [f"**{_plain(answer.machine)}**", ""] if len(found) > 1 else []
        first, *others = map(_plain, answer.sentences)
        lines += [f"**{first}**", "", *(f"- {sentence}" for sentence in others), ""]
    for table in tables(gathered, names):
        lines += [
            f"## {_plain(table.title)}",
            "",
            *([_plain(table.note), ""] if table.note else []),
            *_lines(table),
            "",
        ]
    if told := remarks(gathered, names):
        lines += ["## Remarks", ""]
        for remark in told:
            mark = "**unsteady** " if remark.unsteady else ""
            lines += [f"- {mark}{_plain(remark.whom)}: {_plain(remark.text)}"]
        lines.append("")
    return "\n".join(lines)


def _lines(table: Table) -> list[str]:
    numeric = [index for index in range(len(table.columns)) if table.is_numeric(index)]
    rows = [[_cell(cell) for cell in row] for row in table.rows]
    return markdown.table([_plain(column) for column in table.columns], rows, numeric=numeric)


def _cell(cell: Cell) -> str:
    text = _plain(cell.text)
    if cell.mark in cell.text:
        return f"**{text}**" if cell.mark else text
    return f"**{text}** ({_plain(cell.mark)})"


def _plain(text: str) -> str:
    """Text in which nothing is taken for Markdown, HTML or a link."""
    escaped = markdown.escaped(text, markdown.SPECIAL + "&")
    # A dialect makes links of bare addresses and of names after an @; what cannot be seen keeps it from that.
    return re.sub(r"(?i)(https?|ftp)://|www\.|@", lambda found: f"{found[0][:1]}\u200b{found[0][1:]}", escaped)
