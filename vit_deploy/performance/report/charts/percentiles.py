"""The chart of the percentiles of each case."""

from __future__ import annotations

from typing import Any

from vit_deploy.performance.report.axes import end_of_latencies, quantity
from vit_deploy.performance.report.charts.chart import CLIPPED, Chart, arrows, cases_shown
from vit_deploy.performance.report.documents import Gathered
from vit_deploy.performance.report.naming import Names
from vit_deploy.performance.report.wording import milliseconds

MARKS = {"p50": ("var(--text)", "circle"), "p90": ("var(--muted)", "square"), "p99": ("var(--muted)", "triangle-up")}


def percentile_scales() -> dict[str, Any]:
    """Encodings that tell percentiles apart without a colour that an artifact has."""
    encoding = {"field": "percentile", "type": "nominal", "title": None}
    colours, shapes = ([mark[part] for mark in MARKS.values()] for part in (0, 1))
    return {
        "color": {**encoding, "scale": {"domain": list(MARKS), "range": colours}},
        "shape": {**encoding, "scale": {"domain": list(MARKS), "range": shapes}},
    }


def percentiles(gathered: Gathered, names: Names) -> Chart:
    """The span from the fastest call to p99 of each case."""
    cases, name_of, called = cases_shown(gathered, names, gathered.cases)
    whole: list[dict[str, Any]] = []
    points: list[dict[str, Any]] = []
    end = end_of_latencies([case.latency.p50_ms for case in cases])
    for case in cases:
        latency, name = case.latency, name_of(case)
        interval = latency.p50_interval_ms
        low, high = (latency.p50_ms, latency.p50_ms) if interval is None else (interval.low, interval.high)
        last = max(latency.p99_ms, high)
        whole.append({
            "case": name, "min": latency.min_ms, "p99": min(latency.p99_ms, end), "low": low, "high": min(high, end),
            "end": min(last, end), "clipped": last > end, "text": f"{name}: up to {milliseconds(last)} ms",
        })  # fmt: skip
        for percentile, value in (("p50", latency.p50_ms), ("p90", latency.p90_ms), ("p99", latency.p99_ms)):
            text = f"{name}: {percentile} {milliseconds(value)} ms"
            if value <= end:
                points.append({"case": name, "percentile": percentile, "ms": value, "text": text})
    order = [row["case"] for row in whole]
    values = [value for row in whole for value in (row["min"], row["end"])]
    x = quantity("latency of a call in ms", values)
    y = {"field": "case", "type": "nominal", "title": None, "sort": order}
    scales = percentile_scales()
    fastest = min(cases, key=lambda case: case.latency.p50_ms)
    return Chart(
        "percentiles",
        "Percentiles",
        f"{called}The line begins at the fastest call and ends at p99; the true p50 lies in the box (95 %)."
        + (CLIPPED if any(row["clipped"] for row in whole) else ""),
        f"{len(order)} rows. Fastest p50: {name_of(fastest)} with {milliseconds(fastest.latency.p50_ms)} ms.",
        {
            "encoding": {"y": y},
            "layer": [
                {
                    "data": {"values": whole},
                    "mark": {"type": "rule", "strokeWidth": 2, "color": "var(--line)", "aria": False},
                    "encoding": {"x": {"field": "min", **x}, "x2": {"field": "p99"}},
                },
                {
                    "data": {"values": whole},
                    "mark": {
                        "type": "bar",
                        "height": 14,
                        "fill": "var(--panel)",
                        "stroke": "var(--line)",
                        "aria": False,
                    },
                    "encoding": {"x": {"field": "low", **x}, "x2": {"field": "high"}},
                },
                {
                    "data": {"values": points},
                    "mark": {"type": "point", "filled": True, "size": 110, "opacity": 1},
                    "encoding": {
                        "x": {"field": "ms", **x},
                        **scales,
                        "description": {"field": "text", "type": "nominal"},
                    },
                },
                *arrows(whole, "right", {"x": {"field": "end", **x}}),
            ],
        },
        tuple(MARKS),
        rows=tuple(order),
    )
