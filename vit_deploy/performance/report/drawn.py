"""The charts of an HTML page, drawn so that they need no script and no network."""

from __future__ import annotations

from typing import Any

import vl_convert

from vit_deploy.performance.report.documents import Gathered
from vit_deploy.performance.report.html import Markup, element
from vit_deploy.performance.report.page import page


def drawn_page(gathered: Gathered, title: str) -> str:
    """The page with its charts."""
    return page(gathered, title, drawing)


def drawing(spec: dict[str, Any], labelled_by: str, described_by: str, class_: str) -> Markup:
    """An SVG that screen readers can walk through: axes, legend and marks have labels.

    Args:
        spec: the Vega-Lite specification.
        labelled_by: id of the element that names the chart.
        described_by: id of the one that says what it shows.
        class_: the CSS class of the drawing.
    """
    svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
    attributes = element(
        "svg", role="graphics-document document", aria_roledescription="chart", aria_labelledby=labelled_by,
        aria_describedby=described_by, class_=class_,
    )  # fmt: skip
    # Vega escapes what stands in the specification; its own root is replaced by one with a role and a name.
    return Markup(
        svg.replace(
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            'version="1.1" class="marks"',
            attributes.removesuffix("></svg>"),
            1,
        )
    )
