"""Charts of the throughput over batches, threads and streams."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from vit_deploy.performance.report.charts.chart import Chart
from vit_deploy.performance.report.documents import Gathered, Timed
from vit_deploy.performance.report.looks import Looks
from vit_deploy.performance.report.naming import Names, in_words, setting, usual_setting


def scaling(gathered: Gathered, names: Names, looks: Looks, part: int, name: str, axis: str) -> Chart | None:
    """Throughput over one part of the setting, the others left alone; None where nothing was swept."""
    usual = usual_setting(gathered.cases)
    lines: dict[str, dict[int, Timed]] = defaultdict(dict)
    for case in gathered.cases:
        called = setting(case)
        at = called[part]
        if at is not None and all(called[index] == usual[index] for index in range(3) if index != part):
            lines[names.series(case)].setdefault(at, case)
    swept = {series: cases for series, cases in lines.items() if len(cases) > 1}
    if not swept:
        return None
    rows: list[dict[str, Any]] = [
        {
            "series": series,
            "at": at,
            "rate": case.latency.throughput_per_s,
            "text": f"{series}: {case.latency.throughput_per_s:.1f} images a second at {at} {axis}",
        }
        for series, cases in swept.items()
        for at, case in sorted(cases.items())
    ]
    steps = sorted({row["at"] for row in rows})
    scales = looks.scales(list(swept))
    x = {
        "field": "at",
        "type": "quantitative",
        "title": axis,
        "scale": {"type": "log", "base": 2, "nice": False, "padding": 12},
        "axis": {"values": steps, "format": "d", "grid": False},
    }
    y = {"field": "rate", "type": "quantitative", "title": "images a second", "scale": {"zero": True}}
    gains = [
        f"{series} {cases[max(cases)].latency.throughput_per_s / cases[min(cases)].latency.throughput_per_s:.2f} times "
        f"from {min(cases)} to {max(cases)}"
        for series, cases in swept.items()
    ]
    words = in_words(usual).split(", ")
    fixed = ", ".join(word for word in words if name.removesuffix("s") not in word)
    return Chart(
        name,
        f"Scaling with {name}",
        f"Images a second{f' at {fixed}' if fixed else ''}; higher is better.",
        f"{len(swept)} lines: {'; '.join(gains)}.",
        {
            "data": {"values": rows},
            "encoding": {"x": x, "y": y, "color": scales["color"]},
            "layer": [
                {"mark": {"type": "line", "strokeWidth": 2, "aria": False}},
                {
                    "mark": {"type": "point", "filled": True, "size": 100, "opacity": 1},
                    "encoding": {
                        "shape": scales["shape"],
                        "description": {"field": "text", "type": "nominal"},
                    },
                },
            ],
        },
    )
