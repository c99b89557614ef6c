"""Charts of the median latency over another figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_deploy.performance.confidence import Interval
from vit_deploy.performance.report.axes import end_of_latencies, quantity
from vit_deploy.performance.report.charts.chart import CLIPPED, Chart, arrows
from vit_deploy.performance.report.documents import Gathered, Timed
from vit_deploy.performance.report.looks import Looks
from vit_deploy.performance.report.naming import Names, in_words, setting, usual_setting
from vit_deploy.performance.report.wording import milliseconds

LATENCY = "median latency in ms"


def against(
    gathered: Gathered,
    names: Names,
    looks: Looks,
    name: str,
    title: str,
    axis: str,
    better: str,
    read: Callable[[Timed], float | None],
    interval_of: Callable[[Timed], Interval | None] = lambda case: None,
) -> Chart | None:
    """Points of the median latency, with its interval, over another figure; None without two of them."""
    usual = usual_setting(gathered.cases)
    found = [(case, read(case)) for case in gathered.cases if setting(case) == usual]
    known = [(case, value) for case, value in found if value is not None]
    if len(known) < 2:
        return None
    rows: list[dict[str, Any]] = []
    end = end_of_latencies([case.latency.p50_ms for case, _ in known])
    for case, value in known:
        latency = case.latency
        interval = latency.p50_interval_ms
        low, high = (latency.p50_ms, latency.p50_ms) if interval is None else (interval.low, interval.high)
        text = f"{names.series(case)}: {milliseconds(latency.p50_ms)} ms"
        text += f" ({milliseconds(low)} to {milliseconds(high)}), {axis} {value:.4g}"
        across = interval_of(case)
        left, right = (value, value) if across is None else (across.low, across.high)
        text += "" if across is None else f" ({left:.4g} to {right:.4g})"
        rows.append({
            "series": names.series(case), "x": value, "y": latency.p50_ms, "low": low, "high": min(high, end),
            "text": text + (", unsteady" if latency.unsteady else ""),
            "unsteady": bool(latency.unsteady), "clipped": high > end, "left": left, "right": right,
        })  # fmt: skip
    scales = looks.scales([row["series"] for row in rows])
    x = quantity(axis, [row[end] for row in rows for end in ("left", "right")], from_zero=name != "accuracy")
    y = quantity(LATENCY, [row[end] for row in rows for end in ("low", "high")])
    across_rule: dict[str, Any] = {
        "mark": {"type": "rule", "strokeWidth": 1, "aria": False},
        "encoding": {"x": {"field": "left", **x}, "x2": {"field": "right"}, "y": {"field": "y", **y}},
    }
    fastest, slowest = min(rows, key=lambda row: row["y"]), max(rows, key=lambda row: row["y"])
    return Chart(
        name,
        title,
        f"At {in_words(usual)}. The bars show where the true {_true(rows)} (95 %). {_corner(name)} is {better}."
        + (" Hollow points are unsteady." if any(row["unsteady"] for row in rows) else "")
        + (CLIPPED if any(row["clipped"] for row in rows) else ""),
        f"{len(rows)} points. Fastest: {fastest['text']}. Slowest: {slowest['text']}.",
        {
            "data": {"values": rows},
            "encoding": {"color": scales["color"]},
            "layer": [
                {
                    "mark": {"type": "rule", "strokeWidth": 2, "aria": False},
                    "encoding": {"x": {"field": "x", **x}, "y": {"field": "low", **y}, "y2": {"field": "high"}},
                },
                *([across_rule] if any(row["left"] < row["right"] for row in rows) else []),
                {
                    "mark": {"type": "point", "size": 110, "opacity": 1, "strokeWidth": 2},
                    "encoding": {
                        "x": {"field": "x", **x},
                        "y": {"field": "y", **y},
                        "shape": scales["shape"],
                        "fill": scales["color"],
                        "fillOpacity": {"condition": {"test": "datum.unsteady", "value": 0}, "value": 1},
                        "description": {"field": "text", "type": "nominal"},
                    },
                },
                *arrows(rows, "up", {"x": {"field": "x", **x}, "y": {"field": "high", **y}}),
            ],
        },
    )


def _true(rows: Sequence[Mapping[str, Any]]) -> str:
    return "median and accuracy lie" if any(row["left"] < row["right"] for row in rows) else "median lies"


def _corner(name: str) -> str:
    return "Bottom right" if name == "accuracy" else "Bottom left"
