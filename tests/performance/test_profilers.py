from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import onnx
import pytest

from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import EngineError
from vit_deploy.performance.latency import Case
from vit_deploy.performance.profilers import PROFILERS, OperatorTime, Profile, profile, summary
from vit_deploy.verification.golden import read_golden


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
    found = {operator.operator: operator for operator in onnx_profile.operators}
    assert sum(each.share for each in found.values()) == pytest.approx(1)
    assert [operator.ms for operator in onnx_profile.operators] == sorted(
        (each.ms for each in found.values()), reverse=True
    )
    # The engine's own optimizer leaves these of the file alone: two blocks of two norms, and one norm at the end.
    nodes = Counter(node.op_type for node in onnx.load(bundles["onnx"] / "model.onnx").graph.node)
    assert nodes["LayerNormalization"] == 5
    norms = sum(value.calls for name, value in found.items() if "LayerNormalization" in name)
    assert norms == 5
    assert found["Softmax"].calls == nodes["Softmax"] == 2
    assert all(each.ms > 0 for each in found.values())


def test_openvino_tells_what_its_operators_take(bundles):
    pytest.importorskip("openvino")
    found = profile(Case(bundles["onnx"], "openvino", batch=2, threads=1), timeout_s=60)
    operators = {operator.operator: operator for operator in found.operators}
    assert sum(operator.share for operator in operators.values()) == pytest.approx(1)
    graph = onnx.load(bundles["onnx"] / "model.onnx").graph
    weights = {initializer.name for initializer in graph.initializer}
    products = [node for node in graph.node if node.op_type in ("MatMul", "Gemm") and node.input[1] in weights]
    assert operators["FullyConnected"].calls == len(products) > 8
    assert not {"Const", "Input", "Output"} & set(operators)


def test_litert_tells_what_its_operators_take(bundles):
    found = profile(Case(bundles["tflite"], "litert", batch=3, threads=1), timeout_s=60)
    operators = {operator.operator: operator for operator in found.operators}
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    path = str(bundles["tflite"] / "model.tflite")
    in_file = Counter(
        detail["op_name"] for detail in Interpreter(path, experimental_op_resolver_type=kernels)._get_ops_details()
    )
    # The file is made for one image: three of them are three runs.
    assert operators["Softmax"].calls == 3 * in_file["SOFTMAX"] == 6
    assert operators["Fully Connected"].calls == 3 * in_file["FULLY_CONNECTED"] > 8
    assert all(0 <= operator.ms < 1000 for operator in operators.values())


def test_litert_before_it_had_a_profiler_is_told_by_its_version(bundles, monkeypatch):
    litert = pytest.importorskip("vit_deploy.performance.profilers.litert")
    monkeypatch.setattr(litert, "version", lambda name: "2.0.3")
    images = read_golden(read_artifact(bundles["tflite"])).images[:1]
    with pytest.raises(EngineError, match=r"ai-edge-litert 2\.0\.3 gives no access to LiteRT's profiler") as error:
        litert.LiteRTProfiler().times(read_artifact(bundles["tflite"]), images, threads=1, warmup=0, calls=1)
    assert ">=2.3" in error.value.fix


def test_events_that_are_no_operators_work_are_left_out():
    litert = pytest.importorskip("vit_deploy.performance.profilers.litert")
    events = [
        (b"Invoke", 1, 0, 1444),
        (b"Fully Connected (NC, F32) GEMM", litert.DELEGATE_OPERATOR, 0, 1500),
        (b"ADD", litert.OWN_KERNEL, 0, 7),
    ]

    def engine(name, profiler, *arguments):
        if name == "LiteRtGetNumProfilerEvents":
            arguments[0]._obj.value = len(events)
        else:
            (litert._Event * len(events)).from_buffer(arguments[1])[:] = [litert._Event(*event) for event in events]

    assert litert._operators(engine, None) == [("Fully Connected", 1.5), ("ADD", 0.007)]


def test_events_of_another_layout_are_found_out_before_they_are_read():
    litert = pytest.importorskip("vit_deploy.performance.profilers.litert")

    def engine(bytes_of_an_event, count=20):
        def call(name, profiler, *arguments):
            if name == "LiteRtGetNumProfilerEvents":
                arguments[0]._obj.value = count
            else:
                memory = arguments[1]
                memory[: min(count * bytes_of_an_event, len(memory))] = bytes(
                    min(count * bytes_of_an_event, len(memory))
                )

        return call

    for size in (96, 112):
        with pytest.raises(EngineError, match="tells its events in another layout"):
            litert._operators(engine(size), None)
    assert litert._operators(engine(104), None) == []


def test_an_operator_belongs_to_the_run_that_it_began_in():
    pytest.importorskip("onnxruntime")
    from vit_deploy.performance.profilers.ort import operators_of_runs

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
        (Case(bundles["tflite"], "litert", provider="cpu"), "is profiled on xnnpack alone, not on cpu"),
        (Case(bundles["tflite"], "savedmodel"), "TensorFlow's operators are not profiled"),
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
