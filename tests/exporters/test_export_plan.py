from __future__ import annotations

import dataclasses

import pytest

from vit_deploy.core.format import Target
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.registry import Plugin, Registry
from vit_deploy.errors import ConfigError, MissingEngineError
from vit_deploy.exporters.plan import DYNAMIC, plan


def test_a_plan_has_every_combination_once_in_the_order_asked_for():
    jobs, skipped = plan(["tflite", "onnx", "tflite"], ["fp32", "fp32"])
    assert [job.name for job in jobs] == ["tflite-fp32", "onnx-fp32"] and skipped == []
    assert [job.options.batch for job in jobs] == [1, None]
    assert plan(["onnx"], ["fp32"], batch=DYNAMIC)[0][0].options.batch is None
    assert [job.options.batch for job in plan(["tflite", "onnx", "savedmodel"], ["fp32"], batch="3")[0]] == [3, 3, 3]


def test_only_onnx_gets_what_only_onnx_has():
    jobs, _ = plan(["onnx", "savedmodel"], ["fp32"], opset=17, layout="nchw", include_preprocessing=True)
    assert (jobs[0].options.opset, jobs[0].options.layout) == (17, "nchw")
    assert jobs[1].options.layout == "nhwc"
    assert all(job.options.include_preprocessing for job in jobs)


def test_precisions_that_a_format_lacks_are_listed_as_skipped(monkeypatch):
    fewer = dataclasses.replace(FORMATS["onnx"], precisions={Target.CPU: ("fp32", "int8")})
    monkeypatch.setitem(FORMATS._records, "onnx", fewer)
    jobs, skipped = plan(["onnx", "savedmodel"], ["fp32", "int8", "int8"])
    assert [job.name for job in jobs] == ["onnx-fp32", "onnx-int8", "savedmodel-fp32"]
    assert skipped == ["savedmodel-int8: of int8 there are ONNX and TFLite files alone"]
    with pytest.raises(ConfigError, match="savedmodel has none of the precisions int8"):
        plan(["onnx", "savedmodel"], ["int8"])


SHAPING = "--layout, --opset and --for shape ONNX files"
BAD_PLANS = {
    "unknown format 'onxx'": {"formats": ["onxx"]},
    "unknown precision 'fp31'": {"precisions": ["fp31"]},
    f"{SHAPING}, and the formats are tflite": {"formats": ["tflite"], "layout": "nchw"},
    f"{SHAPING}, and the formats are savedmodel": {"formats": ["savedmodel"], "opset": 18},
    "TFLite files are made for a fixed batch, and --batch is dynamic": {"formats": ["tflite"], "batch": DYNAMIC},
    "opset is 16; expected 17 to 21": {"opset": 16},
    "opset is 22; expected 17 to 21": {"opset": 22},
    "layout is 'chwn'; expected nhwc or nchw": {"layout": "chwn"},
    "batch is 0; expected a positive number or 'dynamic'": {"batch": "0"},
}


@pytest.mark.parametrize("said", BAD_PLANS)
def test_a_plan_that_cannot_be_is_refused(said):
    with pytest.raises(ConfigError) as caught:
        plan(**{"formats": ["onnx"], "precisions": ["fp32"]} | BAD_PLANS[said])
    assert caught.value.message == said and caught.value.fix


def test_a_mistyped_precision_is_answered_with_the_one_that_is_meant():
    with pytest.raises(ConfigError) as caught:
        plan(["tflite"], ["int8-ful"])
    assert str(caught.value) == "unknown precision 'int8-ful'\n  fix: did you mean 'int8-full'?"


def test_missing_engines_are_told_before_any_work(monkeypatch):
    missing = Plugin("vit_deploy.runtimes.ort.runtime:OnnxRuntime", extra="onnx", needs=("no_such_runtime",))
    monkeypatch.setattr("vit_deploy.exporters.plan.RUNTIMES", Registry("runtime", {"onnxruntime": missing}))
    with pytest.raises(MissingEngineError) as caught:
        plan(["onnx"], ["fp32"])
    assert caught.value.fix == 'pip install "vit-deploy[onnx]"'
