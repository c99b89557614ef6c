"""One chart of a report, as a Vega-Lite specification that uses the page's own colours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_deploy.performance.report.documents import Gathered, Timed
from vit_deploy.performance.report.naming import Names, in_words, setting, usual_setting
from vit_deploy.performance.report.style import at_width

Spec = dict[str, Any]

MOST_ROWS = 8  # of a chart with a row for each case, before it shows the usual setting alone
ARROW_PX = 80  # its area
CLIPPED = " An arrow marks what goes on beyond the chart."


@dataclass(frozen=True)
class Chart:
    """One figure.

    Args:
        name: the name for links.
        title: the title that is shown.
        note: a sentence on how to read it.
        summary: what it shows, in words, for who does not see it.
        body: the specification without its size.
        legend: names in its own one; none where the page's legend tells of it.
        rows: names above the rows of a chart that has one for each case.
    """

    name: str
    title: str
    note: str
    summary: str
    body: Spec
    legend: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()

    def spec(self, width: int) -> Spec:
        """The specification at a width in pixels."""
        return at_width(self.body, width, legend=self.legend, rows=self.rows)


def arrows(rows: Sequence[Mapping[str, Any]], points: str, at: Spec) -> list[Spec]:
    """A layer with a mark at the end of each figure that goes on beyond the chart; none where none does."""
    clipped = [row for row in rows if row["clipped"]]
    if not clipped:
        return []
    mark = {"type": "point", "shape": f"triangle-{points}", "size": ARROW_PX, "filled": True, "opacity": 1}
    colour = {"color": {"value": "var(--text)"}}
    told = {"description": {"field": "text", "type": "nominal"}}
    return [{"data": {"values": clipped}, "mark": mark, "encoding": {**colour, **told, **at}}]


def cases_shown(
    gathered: Gathered, names: Names, chosen: Sequence[Timed]
) -> tuple[list[Timed], Callable[[Timed], str], str]:
    """The cases that a chart with a row for each has room for, what each is called, and how they were called."""
    usual = usual_setting(gathered.cases)
    called_so = [case for case in chosen if setting(case) == usual]
    if len(chosen) <= MOST_ROWS or not called_so:
        return list(chosen), names.case, ""
    return called_so, names.series, f"At {in_words(usual)}. "
