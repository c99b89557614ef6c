from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import onnx
import pytest

from vit_deploy.errors import EngineError
from vit_deploy.latency import Case
from vit_deploy.profiling import PROFILERS, OperatorTime, Profile, profile, summary


@pytest.fixture(scope="module")
def onnx_profile(bundles):
    return profile(Case(bundles["onnx"], "onnxruntime", batch=2, threads=1), timeout_s=60)


def test_the_operators_of_a_call_are_summed_by_type_and_medians_taken_over_the_calls():
    calls = [
        [("Add", 1.0), ("MatMul", 5.0), ("Add", 1.0)],
        [("Add", 2.0), ("MatMul", 6.0), ("Add", 2.0)],
        [("Add", 1.5), ("MatMul", 700.0), ("Add", 1.5)],
    ]
    assert summary(calls) == [OperatorTime("MatMul", 1, 6.0, 6 / 9), OperatorTime("Add", 2, 3.0, 3 / 9)]
    assert summary([[], []]) == []


def test_onnx_runtime_tells_what_its_operators_take(onnx_profile, bundles):
    assert onnx_profile.why_not is None
    found = {each.operator: each for each in onnx_profile.operators}
    assert sum(each.share for each in found.values()) == pytest.approx(1)
    assert [each.ms for each in onnx_profile.operators] == sorted((each.ms for each in found.values()), reverse=True)
    # The engine's own optimizer leaves these of the file alone: two blocks of two norms, and one norm at the end.
    nodes = Counter(node.op_type for node in onnx.load(bundles["onnx"] / "model.onnx").graph.node)
    assert nodes["LayerNormalization"] == 5
    norms = sum(each.calls for name, each in found.items() if "LayerNormalization" in name)
    assert norms == 5
    assert found["Softmax"].calls == nodes["Softmax"] == 2
    assert all(each.ms > 0 for each in found.values())


def test_openvino_tells_what_its_operators_take(bundles):
    pytest.importorskip("openvino")
    found = profile(Case(bundles["onnx"], "openvino", batch=2, threads=1), timeout_s=60)
    operators = {each.operator: each for each in found.operators}
    assert sum(each.share for each in operators.values()) == pytest.approx(1)
    graph = onnx.load(bundles["onnx"] / "model.onnx").graph
    weights = {each.name for each in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights]
    assert operators["FullyConnected"].calls == len(products) > 8
    assert not {"Const", "Input", "Output"} & set(operators)


def test_an_operator_belongs_to_the_run_that_it_began_in():
    pytest.importorskip("onnxruntime")
    from vit_deploy.profilers.ort import operators_of_runs

    def event(name, ts, dur, operator=None):
        args = {} if operator is None else {"op_name": operator}
        return {"cat": "Node" if operator else "Session", "name": name, "ts": ts, "dur": dur, "args": args}

    events = [
        event("session_initialization", 0, 50),
        event("a_kernel_time", 60, 7, "Early"),  # before any run
        event("a_kernel_time", 101, 20, "Add"),
        event("a_fence_before", 101, 1, "Add"),
        event("model_run", 100, 50),
        event("b_kernel_time", 205, 30, "Mul"),
        event("model_run", 200, 50),
        event("b_kernel_time", 270, 30, "Late"),  # after the last
    ]
    assert operators_of_runs(events) == [[("Add", 0.02)], [("Mul", 0.03)]]


def test_engines_that_do_not_tell_are_named_with_the_reason(bundles):
    for case, words in [
        (Case(bundles["tflite"], "litert"), "LiteRT's Python package gives no access to its profiler"),
        (Case(bundles["onnx"], "onnxruntime", provider="cuda"), "is profiled on cpu alone, not on cuda"),
        (Case(Path("a"), "another"), "another is not profiled"),
    ]:
        found = profile(case, timeout_s=1)
        assert found.operators == () and words in found.why_not
        record = found.added_to({"notes": ["slow"]})
        assert record["profile"] is None and record["notes"] == ["slow", f"no profile: {found.why_not}"]


def test_a_file_that_the_engine_refuses_is_an_error_that_names_the_case(bundles, tmp_path):
    import shutil

    broken = shutil.copytree(bundles["onnx"], tmp_path / "broken")
    (broken / "model.onnx").write_bytes(b"\x08\x08nothing")
    with pytest.raises(EngineError, match=r"profiling .*broken in onnxruntime"):
        profile(Case(broken, "onnxruntime", threads=1), timeout_s=60)


def test_every_profiler_names_the_extra_that_installs_it():
    assert all(plugin.extra and plugin.needs for plugin in PROFILERS.values())


def test_a_profile_in_a_record_is_plain_json(onnx_profile):
    record = json.loads(json.dumps(onnx_profile.added_to({"notes": []})))
    assert set(record["profile"][0]) == {"operator", "calls", "ms", "share"}
    assert Profile().added_to({"notes": []}) == {"notes": [], "profile": []}
