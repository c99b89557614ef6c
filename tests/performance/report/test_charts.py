from __future__ import annotations

import dataclasses

import pytest
from records import HOST, latency

from vit_deploy.performance.confidence import Interval
from vit_deploy.performance.latency import to_json
from vit_deploy.performance.report.axes import logarithmic_ticks, quantity
from vit_deploy.performance.report.charts import charts
from vit_deploy.performance.report.documents import gather
from vit_deploy.performance.report.looks import Looks
from vit_deploy.performance.report.naming import Names
from vit_deploy.performance.report.style import COLOURS, NARROW_PX, WIDE_PX


def drawn(gathered):
    names = Names(gathered)
    return {chart.name: chart for chart in charts(gathered, names, Looks(gathered, names))}


def test_there_is_a_chart_for_all_that_was_measured(gathered):
    found = drawn(gathered)
    assert list(found) == ["size", "accuracy", "parity", "percentiles", "batch", "operator-time"]
    points = found["size"].body["data"]["values"]
    assert [point["x"] for point in points] == [5.0, 1.3, 1.3]
    assert [point["y"] for point in points] == [case.latency.p50_ms for case in gathered.cases[::2]]
    assert all(point["low"] <= point["y"] <= point["high"] for point in points)
    assert "Fastest: tflite-int8, litert (xnnpack): 0.75 ms" in found["size"].summary
    lines = found["batch"].body["data"]["values"]
    assert [(row["series"].split(",")[0], row["at"]) for row in lines] == [
        (name, batch) for name in ("onnx-fp32", "onnx-int8", "tflite-int8") for batch in (1, 4)
    ]
    assert lines[1]["rate"] == gathered.cases[1].latency.throughput_per_s
    bars = found["operator-time"].body["data"]["values"]
    assert {row["operator"] for row in bars} == {"matrix multiplication", "softmax"}


def test_what_nobody_measured_has_no_chart(write):
    found = drawn(gather([write("bench", [to_json(latency("a"))])]))
    assert list(found) == ["percentiles"]


def test_each_figure_of_a_chart_is_said_in_words(gathered):
    for chart in drawn(gathered).values():
        layers = chart.body.get("layer", [chart.body])
        assert any("description" in layer.get("encoding", ()) for layer in layers), chart.name
        assert chart.summary and chart.note and chart.title


def test_unsteady_points_are_told(write):
    busy = {**HOST.to_dict(), "competing": 3.0}
    records = [to_json(latency("a")), {**to_json(latency("b")), "host": busy}]
    chart = drawn(gather([write("bench", records)]))["size"]
    assert [point["unsteady"] for point in chart.body["data"]["values"]] == [False, True]
    assert "Hollow points are unsteady" in chart.note and ", unsteady" in chart.body["data"]["values"][1]["text"]


def test_with_many_settings_rows_are_of_the_usual_one(write):
    records = [to_json(latency(name, batch)) for name in ("a", "b", "c", "d") for batch in (1, 2, 4)]
    chart = drawn(gather([write("bench", records)]))["percentiles"]
    assert chart.note.startswith("At batch 1, 1 thread.")
    assert len(chart.body["layer"][0]["data"]["values"]) == 4


def test_operators_past_the_costliest_are_one_bar_together(write):
    profile = [{"operator": f"op{index}", "calls": 1, "ms": 20.0 - index, "share": 0.05} for index in range(16)]
    chart = drawn(gather([write("bench", [{**to_json(latency("a")), "profile": profile}])]))["operator-time"]
    bars = {row["operator"]: row["ms"] for row in chart.body["data"]["values"]}
    assert list(bars) == [*(f"op{index}" for index in range(11)), "5 others"]
    assert sum(bars.values()) == sum(each["ms"] for each in profile)


def looks_of(write, count, engines=1):
    """What as many artifacts look like, each in as many engines."""
    records = [
        {**to_json(latency(f"model-{index}")), "provider": f"engine-{engine}"}
        for index in range(count)
        for engine in range(engines)
    ]
    gathered = gather([write("bench", records)])
    names = Names(gathered)
    series = [names.series(case) for case in gathered.cases]
    looks = Looks(gathered, names)
    scales = looks.scales(series)
    return looks, [*zip(series, scales["color"]["scale"]["range"], scales["shape"]["scale"]["range"], strict=True)]


def test_artifacts_have_colours_that_do_not_repeat_and_engines_have_shapes(write):
    looks, found = looks_of(write, COLOURS, engines=3)
    assert len({colour for _, colour, _ in found}) == COLOURS and len({shape for *_, shape in found}) == 3
    assert len({look for _, *look in map(tuple, found) for look in [tuple(look)]}) == len(found)
    by_artifact = {(name.split(",")[0], colour) for name, colour, _ in found}
    assert len(by_artifact) == COLOURS
    assert [entry.name for entry in looks.legend][:2] == ["model-0", "model-1"]
    assert len(looks.legend) == COLOURS + 3


def test_no_two_series_look_alike_though_there_are_more_than_colours(write):
    looks, found = looks_of(write, 5 * COLOURS)
    assert len({tuple(look) for _, *look in found}) == len(found) == len(looks.legend)


def test_one_legend_serves_all_charts_of_artifacts(gathered):
    names = Names(gathered)
    looks = Looks(gathered, names)
    for chart in charts(gathered, names, looks):
        own = chart.name in ("percentiles", "operator-time")
        assert bool(chart.legend) == own and ("'legend': None" in str(chart.body)) != own
    assert [entry.name for entry in looks.legend] == [
        *("onnx-fp32", "onnx-int8", "tflite-int8"),
        *("onnxruntime (cpu)", "litert (xnnpack)"),
    ]


def test_an_accuracy_has_its_interval(gathered):
    chart = drawn(gathered)["accuracy"]
    rows = chart.body["data"]["values"]
    assert [row["x"] for row in rows] == pytest.approx([90.0, 89.0, 88.0])
    # Wilson's interval of 45 of 50, as printed in tables of it.
    assert (rows[0]["left"], rows[0]["right"]) == pytest.approx((78.6398, 95.6525), abs=1e-3)
    (rule,) = [layer for layer in chart.body["layer"] if "x2" in layer["encoding"]]
    assert rule["encoding"]["x"]["field"] == "left" and rule["encoding"]["x2"]["field"] == "right"
    domain = rule["encoding"]["x"]["scale"]["domain"]
    assert domain[0] <= min(row["left"] for row in rows) and domain[1] >= max(row["right"] for row in rows)
    assert "(78.64 to 95.65)" in rows[0]["text"]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.6, 12.7, [0.5, 1, 2, 5, 10, 20]),
        (1, 10, [1, 2, 5, 10]),
        (4e-7, 2e-2, [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1]),
    ],
)
def test_logarithmic_axes_have_round_ticks_that_enclose_the_values(low, high, ticks):
    assert logarithmic_ticks(low, high) == pytest.approx(ticks)


def test_axes_begin_at_zero_unless_figures_span_much_or_lengths_do_not_tell():
    assert quantity("t", [2, 3])["scale"] == {"zero": True, "nice": True}
    assert quantity("t", [1, 100])["scale"]["type"] == "log"
    assert quantity("t", [0, 100])["scale"]["zero"] is True
    assert quantity("t", [90, 92], from_zero=False)["scale"]["domain"] == pytest.approx([89.8, 92.2])
    low, high = quantity("t", [90, 90], from_zero=False)["scale"]["domain"]
    assert low < 90 < high


def test_names_of_rows_that_are_too_long_for_a_phone_are_broken(gathered, write):
    assert "labelExpr" not in str(drawn(gathered)["percentiles"].spec(WIDE_PX))
    long = [to_json(latency(f"a-folder/model-with-a-long-name-and-a-longer-end-{index}")) for index in range(2)]
    spec = drawn(gather([write("bench", long)]))["percentiles"].spec(NARROW_PX)
    assert "labelExpr" in spec["config"]["axisYBand"]


def stalled(artifact):
    """A case of which one call and the end of the median's interval are a thousand times its median."""
    found = latency(artifact)
    samples = (*found.samples_ns[:-1], 8_678_000_000)
    case = latency(artifact, samples_ns=samples)
    case.__dict__["p50_interval_ms"] = Interval(0.99, 8678.0)  # as a file of an earlier version may lead to
    return case


def test_what_goes_on_beyond_a_chart_is_clipped_with_a_mark_and_said(gathered):
    cases = [dataclasses.replace(gathered.cases[0], latency=stalled("arts/onnx-fp32")), *gathered.cases[1:]]
    charts = drawn(dataclasses.replace(gathered, cases=cases))
    for name, along in (("size", "y"), ("percentiles", "x")):
        *layers, arrows = charts[name].body["layer"]
        assert "An arrow marks" in charts[name].note
        (arrow,) = arrows["data"]["values"]
        assert arrows["mark"]["shape"].startswith("triangle-") and "8678" in arrow["text"]
        domain = arrows["encoding"][along]["scale"].get("domain", [0, 20])
        assert domain[-1] <= 50  # of medians of up to 7 ms, and not of 8,678
        for layer in layers:
            rows = layer.get("data", charts[name].body.get("data"))["values"]
            ends = [row[end] for row in rows for end in ("low", "high", "min", "p99", "ms", "y") if end in row]
            assert max(ends) <= arrow[arrows["encoding"][along]["field"]] <= domain[-1]


def test_charts_of_calm_cases_have_no_marks_of_clipping(gathered):
    assert not any(
        "An arrow" in chart.note or "triangle" in str(chart.body["layer"][-1].get("mark"))
        for chart in drawn(gathered).values()
        if "layer" in chart.body
    )


def test_no_box_leaves_the_plot(write):
    """The true median may lie beyond p99 of few calls: the axis goes on to the end of its interval."""
    few = latency("a", samples_ns=(1_000_000,) * 9 + (8_000_000,) * 9, round_calls=(9, 9))
    few.__dict__["p50_interval_ms"] = Interval(1.0, 20.0)
    found = gather([write("bench", [to_json(few)])])
    cases = [dataclasses.replace(case, latency=few) for case in found.cases]
    box = drawn(dataclasses.replace(found, cases=cases))["percentiles"].body["layer"][1]
    assert box["encoding"]["x"]["scale"]["domain"][1] >= 20.0
