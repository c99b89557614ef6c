"""A report says first which file to ship, why, and what stands against the others."""

from __future__ import annotations

import dataclasses

import pytest
from records import HOST, evaluated, latency, verified

from vit_deploy.performance.latency import to_json
from vit_deploy.performance.report.answer import answers
from vit_deploy.performance.report.documents import gather
from vit_deploy.performance.report.markdown_page import markdown_page
from vit_deploy.performance.report.naming import Names

BUSY = {**HOST.to_dict(), "competing": 1.5}


def answered(write, timed, right=(), proven=()):
    """The answer for one machine: artifacts with their milliseconds, accuracies and verdicts."""
    records = [to_json(case) for case in timed]
    documents = [write("bench", records)]
    documents += [write("evaluate", list(right))] if right else []
    documents += [write("verify", list(proven))] if proven else []
    gathered = gather(documents)
    [answer] = answers(gathered, Names(gathered))
    return answer


def test_the_fastest_of_those_that_are_right_is_shipped_and_the_others_have_their_reasons(write):
    timed = [latency("m/onnx-fp32", ms=2.0), latency("m/onnx-int8", ms=1.0), latency("m/onnx-int4", ms=0.5)]
    right = [
        evaluated("m/onnx-fp32", top1=0.9, images=2000),
        evaluated("m/onnx-int8", top1=0.893, images=2000),
        evaluated("m/onnx-int4", top1=0.8, images=2000),
    ]
    answer = answered(write, timed, right)
    assert [candidate.case.latency.case.artifact.name for candidate in answer.candidates] == [
        *("onnx-int8", "onnx-fp32", "onnx-int4"),
    ]
    first, *others = answer.sentences
    assert first == (
        "Ship onnx-int8, onnxruntime (cpu): 1.3 MB, 1.00 ms a call at batch 1, 1 thread, right on 89.3 % "
        "(87.9 to 90.6) of the images."
    )
    assert "It is the fastest of the 2 that nothing stands against." in others
    assert "Beside onnx-fp32 it has 0.26 of the size and 0.50 of the latency." in others
    assert "Not onnx-int4: less often right than onnx-fp32, beyond chance." in others
    assert others[-1] == "All times were steady."


def test_of_files_that_are_as_fast_within_chance_the_smallest_is_shipped(write):
    timed = [latency("m/onnx-fp32", ms=1.0), latency("m/onnx-int8", ms=1.0005)]
    answer = answered(write, timed)
    assert answer.sentences[0].startswith("Ship onnx-int8")
    assert "It is as fast as onnx-fp32 within chance, and smaller." in answer.sentences
    assert any("add what evaluate --json writes" in sentence for sentence in answer.sentences)


def test_what_failed_its_proof_or_answers_as_another_model_is_not_shipped(write):
    timed = [latency("m/onnx-fp32", ms=2.0), latency("m/onnx-int8", ms=1.0), latency("m/tflite-int8", ms=0.5)]
    right = [evaluated(str(case.case.artifact), images=2000) for case in timed]
    right[2]["agreement"] = 0.4
    proven = [verified("m/onnx-int8", verdict="different")]
    answer = answered(write, timed, right, proven)
    assert answer.sentences[0].startswith("Ship onnx-fp32")
    assert "Not onnx-int8: it computes another function than its checkpoint." in answer.sentences
    assert "Not tflite-int8: answers as fp32 does on 40% of the images only." in answer.sentences
    none = answered(write, timed[1:2], (), proven)
    assert none.sentences[0] == "Ship none of these files: something stands against each of them."


def test_what_was_unsteady_is_said_and_whether_the_answer_hangs_on_it(write):
    busy = dataclasses.replace(HOST, competing=1.5)
    answer = answered(write, [latency("m/a", ms=1.0, host=busy), latency("m/b", ms=2.0)])
    assert answer.sentences[-1].startswith("1 of 2 cases was unsteady, this file among them: measure again")
    answer = answered(write, [latency("m/a", ms=1.0), latency("m/b", ms=2.0, host=busy)])
    assert answer.sentences[-1].startswith("1 of 2 cases was unsteady: measure again")


def test_few_images_and_an_artifact_without_accuracy_are_said(write):
    timed = [latency("m/a", ms=1.0), latency("m/b", ms=2.0)]
    answer = answered(write, timed, [evaluated("m/b", images=24)])
    assert answer.sentences[0].startswith("Ship b,")
    assert "Not a: how right it is was not measured." in answer.sentences
    assert "Accuracy is of 24 images only, which says little." in answer.sentences


def test_of_several_engines_the_fastest_runs_a_file_and_each_machine_has_its_answer(write):
    other = dataclasses.replace(HOST, cpu="another processor")
    slow = {**to_json(latency("m/a", ms=3.0)), "runtime": "openvino"}
    records = [slow, to_json(latency("m/a", ms=2.0)), to_json(latency("m/a", ms=9.0, host=other))]
    gathered = gather([write("bench", records)])
    found = answers(gathered, Names(gathered))
    assert [answer.machine for answer in found] == [str(HOST.cpu), "another processor"]
    assert [len(answer.candidates) for answer in found] == [1, 1]
    assert "onnxruntime (cpu)" in found[0].sentences[0] and "2.00 ms" in found[0].sentences[0]
    assert markdown_page(gathered, "t").index("Ship a") < markdown_page(gathered, "t").index("## Which file to ship")


@pytest.mark.parametrize("images", [None, 0])
def test_an_accuracy_of_unknown_images_has_no_interval(write, images):
    timed = [latency("m/a", ms=1.0), latency("m/b", ms=2.0)]
    answer = answered(write, timed, [evaluated("m/a", images=images), evaluated("m/b", images=images)])
    assert "right on 90.0 % of the images" in answer.sentences[0]
    answer = answered(write, timed, [evaluated("m/a", top1=0.8, images=images), evaluated("m/b", images=images)])
    assert answer.sentences[0].startswith("Ship b,") and "Not a: less often right than b." in answer.sentences
