"""Verdicts on size, speed and accuracy beside fp32."""

from __future__ import annotations

import json

from vit_deploy.cli import quantizing
from vit_deploy.core.quantities import milliseconds_apart
from vit_deploy.exporters.quantization.tradeoffs import Facts, verdicts
from vit_deploy.performance.confidence import Interval


def facts(latency_ms, fp32_ms=10.0, **changes):
    ratio = None if latency_ms is None else Interval(0.95 * latency_ms / fp32_ms, 1.05 * latency_ms / fp32_ms)
    return Facts(25, 100, latency_ms, fp32_ms, 0.999, 1.0, 8, **{"latency_ratio_interval": ratio, **changes})


def test_a_slower_precision_is_named_in_plain_words_with_the_fastest():
    table = {"tflite-fp32": facts(10.0), "tflite-int8": facts(4.0), "tflite-int8-full": facts(27.0)}
    assert verdicts(table) == [
        "tflite-int8-full is slower than fp32 on this machine: 27.00 ms against 10.00 ms; "
        "the fastest here is tflite-int8"
    ]
    assert verdicts({"tflite-fp32": facts(10.0), "tflite-int8": facts(10.1)}) == []
    assert verdicts({"tflite-int8": facts(None)}) == []


def test_what_chance_explains_is_not_called_slower():
    fp32 = facts(0.128, 0.128)
    assert verdicts({"onnx-fp32": fp32, "onnx-int8": facts(0.134, 0.128)}) == []
    too_few = facts(0.2, 0.128, latency_ratio_interval=None)
    assert verdicts({"onnx-fp32": fp32, "onnx-int8": too_few}) == []
    sure = facts(0.1284, 0.1241, latency_ratio_interval=Interval(1.01, 1.05))
    (said,) = verdicts({"onnx-fp32": facts(0.1241, 0.1241), "onnx-int8": sure})
    assert "0.128 ms against 0.124 ms" in said


def test_two_latencies_that_differ_are_told_with_as_many_digits_as_it_takes():
    assert milliseconds_apart(0.13, 0.11) == ("0.13", "0.11")
    assert milliseconds_apart(12.344, 12.343) == ("12.344", "12.343")
    assert milliseconds_apart(0.12841, 0.12839) == ("0.12841", "0.12839")
    assert milliseconds_apart(2.0, 2.0) == ("2.00", "2.00")


def test_an_unsteady_latency_is_said_with_its_reason():
    table = {
        "onnx-fp32": facts(10.0),
        "onnx-int8": facts(4.0, unsteady=("the calls differ by 40%: the machine may be busy",)),
        "onnx-int4": facts(20.0),
    }
    slower, unsteady = verdicts(table)
    assert slower.endswith("the fastest here is onnx-int8, but it was unsteady")
    assert unsteady == "onnx-int8 was unsteady: the calls differ by 40%: the machine may be busy"
    assert table["onnx-int8"].to_dict()["unsteady"] == ["the calls differ by 40%: the machine may be busy"]
    columns, rows = quantizing._facts_table(table)
    assert [row[[column.name for column in columns].index("steady")] for row in rows] == ["yes", "NO", "yes"]
    json.dumps([each.to_dict() for each in table.values()], allow_nan=False)
