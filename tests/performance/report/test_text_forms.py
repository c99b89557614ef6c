from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import pytest
from records import latency

from vit_deploy.core.gpu import Gpu
from vit_deploy.performance.latency import Case, to_json
from vit_deploy.performance.report.documents import gather
from vit_deploy.performance.report.markdown_page import markdown_page
from vit_deploy.performance.report.naming import short_names
from vit_deploy.performance.report.spreadsheet import COLUMNS, spreadsheet


def test_csv_has_a_row_a_case_with_its_figures(gathered):
    rows = list(csv.DictReader(io.StringIO(spreadsheet(gathered))))
    assert len(rows) == 6 and tuple(rows[0]) == COLUMNS
    for row, case in zip(rows, gathered.cases, strict=True):
        assert row["artifact"] == str(case.latency.case.artifact)
        assert float(row["p50_ms"]) == case.latency.p50_ms
        assert float(row["p50_low_ms"]) <= float(row["p50_ms"]) <= float(row["p50_high_ms"])
        assert float(row["top1"]) == case.quality.top1
        assert row["unsteady"] == "; ".join(case.latency.unsteady)


def test_csv_of_a_single_call_leaves_empty_what_cannot_be_told(write):
    record = to_json(latency("a", samples_ns=(1_000_000,), round_calls=(1,)))
    [row] = csv.DictReader(io.StringIO(spreadsheet(gather([write("bench", [record])]))))
    assert row["std_ms"] == row["p50_low_ms"] == row["top1"] == ""
    assert float(row["p99_ms"]) == 1


@pytest.mark.parametrize("name", ["=1+1", "+1", "-1", "@sum(a)"])
def test_no_cell_of_text_is_a_formula(write, name):
    record = {**to_json(latency("a")), "artifact": name}
    [row] = csv.DictReader(io.StringIO(spreadsheet(gather([write("bench", [record])]))))
    assert row["artifact"] == f"'{name}"


def test_markdown_tells_latency_quality_operators_and_machines(gathered):
    text = markdown_page(gathered, "What was measured")
    assert text.startswith("# What was measured\n")
    for heading in ("Latency", "Start, memory and energy", "Accuracy and parity", "Time of each kind of operator"):
        assert f"\n## {heading}\n" in text
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("| artifact | engine | batch |"))
    rows = lines[lines.index(head) + 2 :][:6]
    assert all(row.count(" | ") == head.count(" | ") for row in rows)
    assert "**0.75** (best)" in next(row for row in rows if row.startswith("| tflite-int8 |"))
    assert "A \\<b\\>processor\\</b\\>" in text


def test_nothing_in_a_name_is_markdown_html_or_a_link(write):
    name = "a|b`c`<img src=x>[d](javascript:1) *e* www.evil.example @someone"
    record = {**to_json(latency("a")), "artifact": name}
    text = markdown_page(gather([write("bench", [record])]), "# x\n<script> http://evil.example")
    lines = text.splitlines()
    shown = lines[next(index for index, line in enumerate(lines) if line.startswith("| artifact ")) + 2]
    first_cell = re.split(r"(?<!\\)\|", shown)[1]
    assert "javascript" in first_cell and not re.search(r"(?<!\\)[<>`*\[\]]", first_cell)
    assert "http://" not in text and "www." not in text and "@someone" not in text
    assert lines[0].startswith("# \\# x \\<script\\> h")


def test_short_names_are_as_short_as_they_can_be():
    assert short_names(["a/b/onnx", "a/b/tflite"]) == {"a/b/onnx": "onnx", "a/b/tflite": "tflite"}
    assert short_names(["x/one/onnx", "x/two/onnx"]) == {"x/one/onnx": "one/onnx", "x/two/onnx": "two/onnx"}
    assert short_names(["/x/onnx", "x/onnx"]) == {"/x/onnx": "/x/onnx", "x/onnx": "x/onnx"}
    assert short_names([]) == {}


def test_what_was_told_of_a_gpu_is_in_the_page_and_in_the_row_and_processors_have_no_column_of_it(write, gathered):
    gpu = Gpu("NVIDIA H100", power_limit_w=700.0)
    facts = {"provider": "cuda", "gpu": gpu, "peak_gpu_mb": 812.0, "build_ms": 41_000.0}
    facts |= {"queued_calls": (10,), "queued_ns": (5_000_000,)}
    case = Case(Path("arts/onnx-fp16"), "onnxruntime", "cuda", cuda_graph=True)
    on_gpu = gather([write("bench", [to_json(latency("a")), to_json(latency("a", case=case, **facts))])])
    text = markdown_page(on_gpu, "On a GPU")
    assert "NVIDIA H100, 700 W" in text and "onnxruntime (cuda, graph)" in text
    assert "peak GPU memory MB" in text and "engine build ms" in text and "2000.0" in text
    rows = list(csv.DictReader(io.StringIO(spreadsheet(on_gpu))))
    assert [(row["gpu"], row["cuda_graph"]) for row in rows] == [("", "no"), ("NVIDIA H100", "yes")]
    assert rows[1]["peak_gpu_mb"] == "812.0" and rows[0]["peak_gpu_mb"] == ""
    assert "GPU" not in markdown_page(gathered, "On processors")
