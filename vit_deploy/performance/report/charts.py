"""The charts of a report, as Vega-Lite specifications that use the page's own colours."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vit_deploy.performance.report.axes import end_of_latencies, quantity
from vit_deploy.performance.report.documents import Gathered, Timed
from vit_deploy.performance.report.naming import Names, in_words, setting, usual_setting
from vit_deploy.performance.report.style import at_width, series_scales
from vit_deploy.performance.report.tables import milliseconds

Spec = dict[str, Any]

MOST_ROWS = 8  # of a chart with a row for each case, before it shows the usual setting alone
MOST_OPERATORS = 7  # that have a colour of their own
LATENCY = "median latency in ms"
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
        legend: names in it.
        rows: names above the rows of a chart that has one for each case.
    """

    name: str
    title: str
    note: str
    summary: str
    body: Spec
    legend: tuple[str, ...]
    rows: tuple[str, ...] = ()

    def spec(self, width: int) -> Spec:
        """The specification at a width in pixels."""
        return at_width(self.body, width, legend=self.legend, rows=self.rows)


def charts(gathered: Gathered, names: Names) -> list[Chart]:
    """Those for which there are figures."""
    sizes = _against(
        gathered, names, "size", "Latency against size", "size of the model files in MB", "smaller and faster",
        lambda case: None if case.bytes is None else case.bytes / 1e6,
    )  # fmt: skip
    accuracy = _against(
        gathered, names, "accuracy", "Latency against accuracy", "top-1 accuracy in %", "more often right and faster",
        lambda case: None if case.quality.top1 is None else 100 * case.quality.top1,
    )  # fmt: skip
    parity = _against(
        gathered, names, "parity", "Latency against parity", "largest difference from the reference",
        "closer to the reference and faster", lambda case: case.quality.max_abs or None,
    )  # fmt: skip
    scaling = [
        _scaling(gathered, names, 0, "batch", "images a call"),
        _scaling(gathered, names, 1, "threads", "threads of one call"),
        _scaling(gathered, names, 2, "streams", "calls at the same time"),
    ]
    every = [sizes, accuracy, parity, _percentiles(gathered, names), *scaling, _operators(gathered, names)]
    return [chart for chart in every if chart is not None]


def _against(
    gathered: Gathered,
    names: Names,
    name: str,
    title: str,
    axis: str,
    better: str,
    read: Callable[[Timed], float | None],
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
        rows.append({
            "series": names.series(case), "x": value, "y": latency.p50_ms, "low": low, "high": min(high, end),
            "text": text + (", unsteady" if latency.unsteady else ""),
            "unsteady": bool(latency.unsteady), "clipped": high > end,
        })  # fmt: skip
    scales = series_scales([row["series"] for row in rows])
    x = {"field": "x", **quantity(axis, [row["x"] for row in rows], from_zero=name != "accuracy")}
    y = quantity(LATENCY, [row[end] for row in rows for end in ("low", "high")])
    fastest, slowest = min(rows, key=lambda row: row["y"]), max(rows, key=lambda row: row["y"])
    return Chart(
        name,
        title,
        f"At {in_words(usual)}. The bars show where the true median lies (95 %). {_corner(name)} is {better}."
        + (" Hollow points are unsteady." if any(row["unsteady"] for row in rows) else "")
        + (CLIPPED if any(row["clipped"] for row in rows) else ""),
        f"{len(rows)} points. Fastest: {fastest['text']}. Slowest: {slowest['text']}.",
        {
            "data": {"values": rows},
            "encoding": {"x": x, "color": scales["color"]},
            "layer": [
                {
                    "mark": {"type": "rule", "strokeWidth": 2, "aria": False},
                    "encoding": {
                        "y": {"field": "low", **y},
                        "y2": {"field": "high"},
                    },
                },
                {
                    "mark": {"type": "point", "size": 110, "opacity": 1, "strokeWidth": 2},
                    "encoding": {
                        "y": {"field": "y", **y},
                        "shape": scales["shape"],
                        "fill": scales["color"],
                        "fillOpacity": {"condition": {"test": "datum.unsteady", "value": 0}, "value": 1},
                        "description": {"field": "text", "type": "nominal"},
                    },
                },
                *_arrows(rows, "up", {"y": {"field": "high", **y}}),
            ],
        },
        tuple(row["series"] for row in rows),
    )


def _arrows(rows: Sequence[Mapping[str, Any]], points: str, at: Spec) -> list[Spec]:
    """A layer with a mark at the end of each figure that goes on beyond the chart; none where none does."""
    clipped = [row for row in rows if row["clipped"]]
    if not clipped:
        return []
    mark = {"type": "point", "shape": f"triangle-{points}", "size": ARROW_PX, "filled": True, "opacity": 1}
    colour = {"color": {"value": "var(--text)"}}
    told = {"description": {"field": "text", "type": "nominal"}}
    return [{"data": {"values": clipped}, "mark": mark, "encoding": {**colour, **told, **at}}]


def _corner(name: str) -> str:
    return "Bottom right" if name == "accuracy" else "Bottom left"


def _shown(
    gathered: Gathered, names: Names, chosen: Sequence[Timed]
) -> tuple[list[Timed], Callable[[Timed], str], str]:
    """The cases that a chart with a row for each has room for, what each is called, and how they were called."""
    usual = usual_setting(gathered.cases)
    called_so = [case for case in chosen if setting(case) == usual]
    if len(chosen) <= MOST_ROWS or not called_so:
        return list(chosen), names.case, ""
    return called_so, names.series, f"At {in_words(usual)}. "


def _percentiles(gathered: Gathered, names: Names) -> Chart:
    """The span from the fastest call to p99 of each case."""
    cases, name_of, called = _shown(gathered, names, gathered.cases)
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
    scales = series_scales(["p50", "p90", "p99"], field="percentile")
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
                *_arrows(whole, "right", {"x": {"field": "end", **x}}),
            ],
        },
        ("p50", "p90", "p99"),
        rows=tuple(order),
    )


def _scaling(gathered: Gathered, names: Names, part: int, name: str, axis: str) -> Chart | None:
    """Throughput over one part of the setting, the others left alone; None where nothing was swept."""
    usual = usual_setting(gathered.cases)
    lines: dict[str, dict[int, Timed]] = defaultdict(dict)
    for case in gathered.cases:
        called = setting(case)
        at = called[part]
        if at is not None and all(called[each] == usual[each] for each in range(3) if each != part):
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
    scales = series_scales(list(swept))
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
        tuple(swept),
    )


def _operators(gathered: Gathered, names: Names) -> Chart | None:
    """The time of each type of operator, one bar a case; None where nothing was profiled."""
    cases, name_of, called = _shown(gathered, names, [case for case in gathered.cases if case.profile])
    if not cases:
        return None
    totals: dict[str, float] = defaultdict(float)
    for case in cases:
        for each in case.profile:
            totals[each.operator] += each.ms
    ranked = sorted(totals, key=lambda operator: -totals[operator])
    shown = ranked if len(ranked) <= MOST_OPERATORS + 1 else ranked[:MOST_OPERATORS]
    rest = f"{len(ranked) - len(shown)} others"
    rows: list[dict[str, Any]] = []
    for case in cases:
        times: dict[str, float] = defaultdict(float)
        for each in case.profile:
            times[each.operator if each.operator in shown else rest] += each.ms
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
        "Time of each operator",
        f"{called}In one call of the model, as the engine's profiler says; the table below has the figures.",
        f"{len(order)} bars. The costliest operators: {', '.join(ranked[:3])}.",
        {
            "data": {"values": rows},
            "mark": {"type": "bar", "stroke": "var(--page)", "strokeWidth": 1, "height": 16},
            "encoding": {
                "y": {"field": "case", "type": "nominal", "title": None, "sort": order},
                "x": {"field": "ms", "type": "quantitative", "title": "ms in one call of the model"},
                "color": series_scales(domain, field="operator")["color"],
                "order": {"field": "place", "type": "quantitative"},
                "description": {"field": "text", "type": "nominal"},
            },
        },
        tuple(domain),
        rows=tuple(order),
    )
