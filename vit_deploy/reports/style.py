"""What do all charts have in common: colours that follow the page, shapes, sizes and legends?"""

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


def at_width(body: Spec, width: int, *, legend: Sequence[str], has_rows: bool) -> Spec:
    """A whole specification.

    Args:
        body: data, marks and encodings.
        width: of all of it, in pixels.
        legend: names in it.
        has_rows: whether it has a row for each name, with the name above.
    """
    longest = max(map(len, legend))
    columns = max(1, min(MOST_COLUMNS, (width - 60) // (longest * LETTER_PX + 50)))
    above: Spec = {
        "labelAlign": "left", "labelBaseline": "bottom", "labelPadding": 0, "labelOffset": -9, "ticks": False,
        "domain": False, "labelLimit": width - 20, "grid": False,
    }  # fmt: skip
    return {
        "$schema": SCHEMA,
        **body,
        "width": width,
        "height": {"step": ROW_PX} if has_rows else HEIGHT_PX,
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
                **TEXT, **SIZES, "orient": "bottom", "columns": columns, "labelLimit": width // columns - 40,
                "symbolSize": 110, "rowPadding": 5, "columnPadding": 30, "offset": 14,
            },
        },
    }  # fmt: skip
