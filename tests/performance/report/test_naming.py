"""Every case of a report has a name of its own, also where several files measured the same."""

from __future__ import annotations

import csv
import io
import re

from records import latency, measured

from vit_deploy.performance.latency import to_json
from vit_deploy.performance.report.charts import charts
from vit_deploy.performance.report.documents import gather
from vit_deploy.performance.report.looks import Looks
from vit_deploy.performance.report.naming import Names
from vit_deploy.performance.report.spreadsheet import spreadsheet
from vit_deploy.performance.report.tables import latencies


def test_the_same_case_in_two_files_is_told_apart_by_the_files(write):
    old = write("bench", [to_json(latency("a/onnx", ms=2.0)), to_json(latency("a/tflite", ms=1.0))], "old.json")
    new = write("bench", [to_json(latency("a/onnx", ms=1.0))], "new.json")
    gathered = gather([old, new])
    names = Names(gathered)
    assert [names.series(case) for case in gathered.cases] == [
        "onnx, onnxruntime (cpu) in old.json",
        "tflite, litert (xnnpack) in old.json",
        "onnx, onnxruntime (cpu) in new.json",
    ]
    table = latencies(gathered, names)
    assert [row[table.columns.index("file")].text for row in table.rows] == ["old.json", "old.json", "new.json"]
    percentiles = next(
        chart for chart in charts(gathered, names, Looks(gathered, names)) if chart.name == "percentiles"
    )
    assert len(percentiles.rows) == len(set(percentiles.rows)) == 3
    rows = list(csv.DictReader(io.StringIO(spreadsheet(gathered))))
    assert [row["file"] for row in rows] == [str(old), str(old), str(new)]
    assert rows[0]["ratio_low"] == "" and float(rows[2]["ratio_low"]) <= 0.5 <= float(rows[2]["ratio_high"])


def test_the_same_case_twice_in_one_file_is_numbered(write):
    gathered = gather([write("bench", [to_json(latency("a")), to_json(latency("a"))])])
    names = Names(gathered)
    assert [names.series(case) for case in gathered.cases] == ["a, onnxruntime (cpu)", "a, onnxruntime (cpu), no. 2"]
    assert "file" not in latencies(gathered, names).columns


def test_cases_that_differ_need_no_file(write):
    gathered = gather([write("bench", measured(), "one.json"), write("bench", [to_json(latency("b"))], "two.json")])
    assert not any(" in " in Names(gathered).series(case) for case in gathered.cases)


def test_the_interval_of_a_ratio_stands_beside_it(gathered):
    table = latencies(gathered, Names(gathered))
    first, *others = (row[table.columns.index("to first (95 %)")].text for row in table.rows)
    assert first == "1.00" and all(re.fullmatch(r"\d\.\d\d \(\d\.\d\d to \d\.\d\d\)", text) for text in others)


def test_the_best_latency_and_the_best_throughput_are_marked_each(gathered):
    table = latencies(gathered, Names(gathered))
    for title, best in (("p50 ms", min), ("images/s", max)):
        cells = [row[table.columns.index(title)] for row in table.rows]
        assert [cell.key for cell in cells if cell.mark == "best"] == [best(cell.key for cell in cells)]
