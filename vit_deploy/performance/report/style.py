"""What all charts share: colours that follow the page, shapes, sizes and legends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"  # a name, which nothing fetches
COLOURS = 12  # of page.css
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
NARROW_PX = 340
WIDE_PX = 570
HEIGHT_PX = 300
ROW_PX = 46
LINE_PX = 14
BESIDE_LEGEND_PX = 90
# A name of a row that is too long is broken after the artifact.
IN_TWO_LINES = (
    "indexof(datum.label, ', ') < 0 ? datum.label : [slice(datum.label, 0, indexof(datum.label, ', ') + 1), "
    "slice(datum.label, indexof(datum.label, ', ') + 2)]"
)
FONT = "Arial, Helvetica, Liberation Sans, sans-serif"  # that text is measured with
LETTER_PX = 7  # of it, on average
MOST_COLUMNS = 4
TEXT = {"labelColor": "var(--text)", "titleColor": "var(--text)", "labelFont": FONT, "titleFont": FONT}
SIZES = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}


def at_width(body: Spec, width: int, *, legend: Sequence[str], rows: Sequence[str]) -> Spec:
    """A whole specification.

    Args:
        body: data, marks and encodings.
        width: the width of all of it, in pixels.
        legend: names in its own one; none where the page's legend tells of it.
        rows: names above the rows of a chart that has some.
    """
    longest = max(map(len, legend), default=1)
    columns = max(1, min(MOST_COLUMNS, (width - 60) // (longest * LETTER_PX + 50)))
    room = (width - BESIDE_LEGEND_PX) // columns
    below = LINE_PX if max(map(len, rows), default=0) * LETTER_PX > width - 20 else 0
    above: Spec = {
        "labelAlign": "left", "labelBaseline": "bottom", "labelPadding": 0, "labelOffset": -9 - below, "ticks": False,
        "domain": False, "labelLimit": width - 20, "grid": False, **({"labelExpr": IN_TWO_LINES} if below else {}),
    }  # fmt: skip
    return {
        "$schema": SCHEMA,
        **body,
        "width": width,
        "height": {"step": ROW_PX + below} if rows else HEIGHT_PX,
        "autosize": {"type": "fit-x", "contains": "padding"},
        "background": None,
        "padding": 4,
        "config": {
            "font": FONT,
            "view": {"stroke": None},
            "axis": {
                **TEXT, **SIZES, "gridColor": "var(--grid)", "domainColor": "var(--line)", "tickColor": "var(--line)",
                "titlePadding": 8, "labelFlush": False,
            },
            "axisX": {"tickCount": 5 if width < 500 else 8},
            "axisYBand": above,
            "axisYPoint": above,
            "legend": {
                **TEXT, **SIZES, "orient": "bottom", "columns": columns, "labelLimit": room,
                "symbolSize": 110, "rowPadding": 5, "columnPadding": 30, "offset": 14,
            },
        },
    }  # fmt: skip
