"""What all charts share: colours that follow the page, shapes, sizes and legends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Spec = dict[str, Any]

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"  # a name, which nothing fetches
COLOURS = 8  # of page.css
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
NARROW_PX = 340
WIDE_PX = 570
HEIGHT_PX = 300
ROW_PX = 46
LINE_PX = 14
BESIDE_LEGEND_PX = 90
# A name that is too long is broken after the artifact.
IN_TWO_LINES = (
    "indexof(datum.label, ', ') < 0 ? datum.label : [slice(datum.label, 0, indexof(datum.label, ', ') + 1), "
    "slice(datum.label, indexof(datum.label, ', ') + 2)]"
)
TOLD = ("color", "fill", "shape")  # in legends
FONT = "Arial, Helvetica, Liberation Sans, sans-serif"  # that text is measured with
LETTER_PX = 7  # of it, on average
MOST_COLUMNS = 4
TEXT = {"labelColor": "var(--text)", "titleColor": "var(--text)", "labelFont": FONT, "titleFont": FONT}
SIZES = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}


def series_scales(names: Sequence[str], field: str = "series") -> Spec:
    """Encodings that tell series apart by colour and by shape, in the order of `names`."""
    domain = list(dict.fromkeys(names))
    places = range(len(domain))
    colours = [f"var(--series-{place % COLOURS})" for place in places]
    shapes = [SHAPES[(place + place // COLOURS) % len(SHAPES)] for place in places]
    encoding = {"field": field, "type": "nominal", "title": None}
    return {
        "color": {**encoding, "scale": {"domain": domain, "range": colours}},
        "shape": {**encoding, "scale": {"domain": domain, "range": shapes}},
    }


def at_width(body: Spec, width: int, *, legend: Sequence[str], rows: Sequence[str]) -> Spec:
    """A whole specification.

    Args:
        body: data, marks and encodings.
        width: the width of all of it, in pixels.
        legend: names in it.
        rows: names above the rows of a chart that has some.
    """
    longest = max(map(len, legend))
    columns = max(1, min(MOST_COLUMNS, (width - 60) // (longest * LETTER_PX + 50)))
    room = (width - BESIDE_LEGEND_PX) // columns
    broken = {"labelExpr": IN_TWO_LINES}
    below = LINE_PX if max(map(len, rows), default=0) * LETTER_PX > width - 20 else 0
    above: Spec = {
        "labelAlign": "left", "labelBaseline": "bottom", "labelPadding": 0, "labelOffset": -9 - below, "ticks": False,
        "domain": False, "labelLimit": width - 20, "grid": False, **(broken if below else {}),
    }  # fmt: skip
    return {
        "$schema": SCHEMA,
        **(_with_legend(body, broken) if longest * LETTER_PX > room else body),
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


def _with_legend(part: Any, legend: Spec) -> Any:
    """A specification in which all encodings that a legend tells of have the same one; else they would not merge."""
    if isinstance(part, list):
        return [_with_legend(each, legend) for each in part]
    if not isinstance(part, dict):
        return part
    changed = {name: _with_legend(each, legend) for name, each in part.items() if name != "data"}
    told = {name: {**changed[name], "legend": legend} for name in TOLD if "scale" in changed.get(name, {})}
    return changed | told | ({"data": part["data"]} if "data" in part else {})
