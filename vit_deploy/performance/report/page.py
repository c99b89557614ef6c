"""Results as one HTML page that fetches nothing, for eyes, keyboards and screen readers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

from vit_deploy import __version__
from vit_deploy.performance.report.answer import answers
from vit_deploy.performance.report.charts import Chart, charts
from vit_deploy.performance.report.documents import Gathered
from vit_deploy.performance.report.html import Markup, element, joined
from vit_deploy.performance.report.looks import Looks
from vit_deploy.performance.report.naming import Names
from vit_deploy.performance.report.remarks import Remark, remarks
from vit_deploy.performance.report.style import NARROW_PX, SHAPES, WIDE_PX
from vit_deploy.performance.report.tables import Cell, Table, tables

GLYPHS = dict(zip(SHAPES, "●■▲◆✚▼▶◀", strict=True))
MOST_ROWS = 30  # of a table that does not scroll by itself

Draw = Callable[[dict[str, Any], str, str, str], Markup]
"""Makes an SVG of a Vega-Lite specification; see `drawn.drawing`."""


def page(gathered: Gathered, title: str, draw: Draw) -> str:
    """A whole HTML document.

    Args:
        gathered: what it tells.
        title: the title of the page.
        draw: makes a chart.
    """
    names = Names(gathered)
    looks = Looks(gathered, names)
    shown, said = charts(gathered, names, looks), remarks(gathered, names)
    first, *others = tables(gathered, names)  # the choice goes with the answer
    contents = [(first.name, first.title), ("charts", "Charts"), *((table.name, table.title) for table in others)]
    contents += [("remarks", "Remarks")] if said else []
    body = element(
        "body",
        element("a", "Skip to the results", href="#main", class_="skip"),
        element("header", element("h1", title), *_answers(gathered, names), _facts(gathered)),
        _navigation(contents),
        element(
            "main",
            _section(first),
            element(
                "section",
                element("h2", "Charts", id="charts-heading"),
                *([_legend(looks)] if any(not chart.legend for chart in shown) else []),
                element("div", *(_figure(chart, draw) for chart in shown), class_="charts"),
                id="charts",
                aria_labelledby="charts-heading",
            ),
            *(_section(table) for table in others),
            _remarks(said),
            id="main",
            tabindex="-1",
        ),
        element("footer", f"Made by vit-deploy {__version__} from results that were saved."),
        element("div", id="said", role="status", aria_live="polite", class_="hidden"),
        element("script", Markup(_text("page.js"))),
    )
    return f"<!doctype html>\n{element('html', _head(title), body, lang='en')}\n"


def _head(title: str) -> Markup:
    # Nothing may be fetched, and no script may run but the one that is here.
    digest = base64.b64encode(hashlib.sha256(_text("page.js").encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'"
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title),
        element("style", Markup(_text("page.css"))),
    )


def _text(name: str) -> str:
    return (files("vit_deploy.performance.report") / name).read_text(encoding="utf-8")


def _answers(gathered: Gathered, names: Names) -> list[Markup]:
    found = answers(gathered, names)
    several = len(found) > 1
    return [
        element(
            "div",
            *([element("p", answer.machine, class_="note")] if several else []),
            element("p", element("strong", answer.sentences[0])),
            element("ul", *(element("li", sentence) for sentence in answer.sentences[1:])),
            class_="answer",
        )
        for answer in found
    ]


def _legend(looks: Looks) -> Markup:
    """What the marks of all charts over artifacts stand for."""
    entries = (
        element(
            "li",
            element("span", GLYPHS[entry.shape], aria_hidden="true", style=f"color: {entry.colour}"),
            f" {entry.name}",
        )
        for entry in looks.legend
    )
    return element("ul", *entries, class_="legend", aria_label="Legend of the charts")


def _facts(gathered: Gathered) -> Markup:
    unsteady = sum(bool(case.latency.unsteady) for case in gathered.cases)
    facts = [
        ("cases", str(len(gathered.cases))),
        ("machines" if len(gathered.machines) > 1 else "machine", ", ".join(gathered.machines)),
        ("unsteady", f"{unsteady} of {len(gathered.cases)}, see the remarks" if unsteady else "none"),
    ]
    return element(
        "dl", *(element("div", element("dt", name), element("dd", value)) for name, value in facts), class_="facts"
    )


def _navigation(contents: Sequence[tuple[str, str]]) -> Markup:
    links = (element("li", element("a", title, href=f"#{name}")) for name, title in contents)
    return element("nav", element("ul", *links), aria_label="Contents")


def _figure(chart: Chart, draw: Draw) -> Markup:
    name, summary = f"{chart.name}-chart", f"{chart.name}-summary"
    drawings = (
        draw(chart.spec(width), name, summary, class_) for width, class_ in ((WIDE_PX, "wide"), (NARROW_PX, "narrow"))
    )
    return element(
        "figure",
        element(
            "figcaption",
            element("h3", chart.title, id=name),
            element("p", chart.note, class_="note"),
            element("p", chart.summary, id=summary, class_="hidden"),
        ),
        *drawings,
    )


def _section(table: Table) -> Markup:
    heading = f"{table.name}-heading"
    head = (element("th", title, scope="col", class_=_class(table, index)) for index, title in enumerate(table.columns))
    how = f"{table.title}: press a heading to sort." if table.sortable else table.title
    content = element(
        "table",
        element("caption", how),
        element("thead", element("tr", *head)),
        element("tbody", *(_row(table, row) for row in table.rows)),
        data_sortable="" if table.sortable else None,
    )
    return element(
        "section",
        element("h2", table.title, id=heading),
        *([element("p", table.note, class_="note")] if table.note else []),
        # What scrolls has to be reachable by keyboard.
        element(
            "div",
            content,
            class_="scroll tall" if len(table.rows) > MOST_ROWS else "scroll",
            role="region",
            tabindex="0",
            aria_labelledby=heading,
        ),
        id=table.name,
        aria_labelledby=heading,
    )


def _class(table: Table, column: int) -> str | None:
    return "wrapped" if column in table.wrapped else "number" if table.is_numeric(column) else None


def _row(table: Table, row: Sequence[Cell]) -> Markup:
    cells = []
    for index, cell in enumerate(row):
        content = joined(cell.text)
        if cell.mark not in cell.text:
            content = joined(cell.text, " ", element("small", f"({cell.mark})"))
        classes = [_class(table, index) or "", *(["mark", cell.mark] if cell.mark else [])]
        attributes = {
            "class_": " ".join(filter(None, classes)) or None,
            "data_key": None if cell.key is None else repr(cell.key),
        }
        if index == 0:
            cells.append(element("th", content, scope="row", **attributes))
        else:
            cells.append(element("td", content, **attributes))
    return element("tr", *cells)


def _remarks(said: Sequence[Remark]) -> Markup:
    if not said:
        return Markup("")
    items = []
    for remark in said:
        mark = joined(element("span", "unsteady", class_="unsteady"), " ") if remark.unsteady else Markup("")
        line = joined(mark, element("strong", remark.whom), f": {remark.text}")
        if remark.whom in ("; ".join(remark.cases), f"all {len(remark.cases)} cases"):
            items.append(element("li", line))
        else:
            names = element("ul", *(element("li", name) for name in remark.cases))
            items.append(element("li", element("details", element("summary", line), names)))
    return element(
        "section",
        element("h2", "Remarks", id="remarks-heading"),
        element(
            "p",
            "A case is unsteady where its calls or rounds differ much, or where other work disturbed them: "
            "measure it again before relying on it.",
            class_="note",
        ),
        element("ul", *items, class_="remarks"),
        id="remarks",
        aria_labelledby="remarks-heading",
    )
