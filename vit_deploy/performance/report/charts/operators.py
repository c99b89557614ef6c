"""The chart of the time that each type of operator takes."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from vit_deploy.performance.report.charts.chart import Chart, cases_shown
from vit_deploy.performance.report.documents import Gathered
from vit_deploy.performance.report.looks import colour
from vit_deploy.performance.report.naming import Names
from vit_deploy.performance.report.operator_names import known_name

MOST_OPERATORS = 11  # that have a colour of their own


def operators(gathered: Gathered, names: Names) -> Chart | None:
    """The time of each type of operator, one bar a case; None where nothing was profiled."""
    cases, name_of, called = cases_shown(gathered, names, [case for case in gathered.cases if case.profile])
    if not cases:
        return None
    totals: dict[str, float] = defaultdict(float)
    for case in cases:
        for row in case.profile:
            totals[known_name(row.operator)] += row.ms
    ranked = sorted(totals, key=lambda operator: -totals[operator])
    shown = ranked if len(ranked) <= MOST_OPERATORS + 1 else ranked[:MOST_OPERATORS]
    rest = f"{len(ranked) - len(shown)} others"
    rows: list[dict[str, Any]] = []
    for case in cases:
        times: dict[str, float] = defaultdict(float)
        for row in case.profile:
            known = known_name(row.operator)
            times[known if known in shown else rest] += row.ms
        whole = sum(times.values()) or 1.0
        for place, operator in enumerate((*shown, rest)):
            if operator in times:
                text = f"{name_of(case)}: {operator} {times[operator]:.3f} ms, {times[operator] / whole:.0%}"
                rows.append({
                    "case": name_of(case), "operator": operator, "ms": times[operator], "place": place, "text": text,
                })  # fmt: skip
    order = list(dict.fromkeys(row["case"] for row in rows))
    domain = [*shown, *([rest] if len(shown) < len(ranked) else [])]
    return Chart(
        "operator-time",
        "Where the time goes",
        f"{called}In one call of the model, as the engine's profiler says; the table below has the figures.",
        f"{len(order)} bars. The costliest operators: {', '.join(ranked[:3])}.",
        {
            "data": {"values": rows},
            "mark": {"type": "bar", "stroke": "var(--page)", "strokeWidth": 1, "height": 16},
            "encoding": {
                "y": {"field": "case", "type": "nominal", "title": None, "sort": order},
                "x": {"field": "ms", "type": "quantitative", "title": "ms in one call of the model"},
                "color": {
                    "field": "operator",
                    "type": "nominal",
                    "title": None,
                    "scale": {"domain": domain, "range": [colour(place) for place in range(len(domain))]},
                },
                "order": {"field": "place", "type": "quantitative"},
                "description": {"field": "text", "type": "nominal"},
            },
        },
        tuple(domain),
        rows=tuple(order),
    )
