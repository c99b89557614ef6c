"""What is true of many cases of a report is said once, with the range of its figures."""

from __future__ import annotations

import dataclasses

from records import HOST, latency

from vit_deploy.performance.latency import to_json
from vit_deploy.performance.profilers import OperatorTime
from vit_deploy.performance.report.documents import gather
from vit_deploy.performance.report.naming import Names
from vit_deploy.performance.report.operator_names import by_known_name, known_name
from vit_deploy.performance.report.remarks import remarks


def told(write, cases):
    gathered = gather([write("bench", [to_json(case) for case in cases])])
    return remarks(gathered, Names(gathered))


def test_forty_cases_on_a_busy_machine_make_one_remark_with_the_range(write):
    hosts = [dataclasses.replace(HOST, competing=1.0 + 0.1 * (index % 5)) for index in range(40)]
    [remark] = told(write, [latency(f"m{index}", host=host) for index, host in enumerate(hosts)])
    assert remark.text == "other processes kept 1.0 to 1.4 cores busy when it began"
    assert (remark.whom, len(remark.cases), remark.unsteady) == ("all 40 cases", 40, True)


def test_few_cases_are_named_and_many_are_counted(write):
    busy = dataclasses.replace(HOST, competing=1.5)
    [few] = told(write, [latency("a", host=busy), latency("b"), latency("c"), latency("d")])
    assert few.whom == "a, onnxruntime (cpu), batch 1, 1 thread"
    [many] = told(write, [*(latency(f"m{index}", host=busy) for index in range(4)), latency("calm")])
    assert many.whom == "4 of 5 cases" and len(many.cases) == 4


def test_what_makes_a_case_unsteady_comes_first(write):
    busy = dataclasses.replace(HOST, competing=1.5)
    cases = [latency("a", threads=4, host=busy), latency("b", threads=4), latency("c", threads=4)]
    first, second = told(write, cases)
    assert first.unsteady and not second.unsteady
    assert second.text == "4 threads share 2 cores"


def test_operators_of_every_engine_have_the_names_that_people_know():
    alike = {
        "matrix multiplication": (
            "Gemm",
            "Fully Connected",
            "FullyConnectedCompressed",
            "MatMulNBits",
            "BatchMatMulV2",
        ),
        "layer normalization": ("LayerNormalization", "MVN", "SkipLayerNormalization"),
        "GELU": ("Gelu", "BiasGelu", "GELU"),
        "softmax": ("Softmax", "SOFTMAX"),
        "patch embedding": ("Conv", "Convolution", "CONV_2D"),
        "moving and reshaping": ("Transpose", "Static Reshape", "ReorderOutput"),
    }
    for known, names in alike.items():
        assert {known_name(name) for name in names} == {known}
    assert known_name("SomethingNew") == "SomethingNew"


def test_operators_of_one_kind_are_counted_together_the_costliest_kind_first():
    profile = [
        OperatorTime("Softmax", 2, 0.5, 0.25),
        OperatorTime("Gemm", 3, 1.0, 0.5),
        OperatorTime("MatMul", 1, 0.5, 0.25),
    ]
    found = by_known_name(profile)
    assert list(found) == ["matrix multiplication", "softmax"]
    assert [each.operator for each in found["matrix multiplication"]] == ["Gemm", "MatMul"]
