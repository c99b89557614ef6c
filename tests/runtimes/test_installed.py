from __future__ import annotations

import pytest

from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.registry import Plugin
from vit_deploy.errors import MissingEngineError
from vit_deploy.runtimes import RUNTIMES, installed_takers, takers_of
from vit_deploy.verification.verifying import verify

MISSING = Plugin("x:Y", extra="openvino", needs=("no_such_engine",))


def test_of_the_engines_for_a_format_those_that_are_not_installed_are_passed_over(monkeypatch):
    monkeypatch.setitem(RUNTIMES._plugins, "openvino", MISSING)
    assert installed_takers("onnx") == ("onnxruntime",)


def test_the_interpreter_of_microcontrollers_is_taken_where_it_is_named_alone(monkeypatch):
    monkeypatch.setitem(RUNTIMES._plugins, "tflm", Plugin("x:Y", extra="tflm", needs=("numpy",)))
    assert "tflm" not in installed_takers("tflite") and "tflm" not in takers_of("tflite", "cpu")
    assert installed_takers("tflite", "tflm") == ("tflm",)


def test_where_none_is_installed_the_usual_one_is_named(monkeypatch):
    for name in FORMATS["onnx"].runtime_names:
        monkeypatch.setitem(RUNTIMES._plugins, name, MISSING)
    assert installed_takers("onnx") == ("onnxruntime",)


@pytest.mark.parametrize("format", FORMATS)
def test_the_order_is_that_of_the_table(format):
    takers = FORMATS[format].runtime_names
    usual = [name for name in takers if not FORMATS.runtimes()[name].named_only]
    assert installed_takers(format) == tuple(name for name in usual if not RUNTIMES[name].missing())


def test_an_engine_that_has_not_the_provider_is_passed_over_unless_it_is_asked_for(monkeypatch):
    here = Plugin("x:Y", extra="openvino", needs=("numpy",))
    monkeypatch.setitem(RUNTIMES._plugins, "openvino", here)
    assert installed_takers("onnx") == installed_takers("onnx", "cpu") == ("onnxruntime", "openvino")
    assert installed_takers("onnx", "cuda") == ("onnxruntime",)
    assert installed_takers("onnx", "cpu-bf16") == ("openvino",)
    assert installed_takers("onnx", "npu") == ("onnxruntime",)  # which then says what it has
    assert installed_takers("tflite", "/lib/libedge.so") == installed_takers("tflite", "libedge.so") == ("litert",)
    assert installed_takers("onnx", "/lib/libedge.so") == ("onnxruntime",)


def test_the_providers_in_the_table_are_those_that_the_engines_take():
    from vit_deploy.runtimes.ort import sessions
    from vit_deploy.runtimes.tensorflow import options

    assert FORMATS.runtimes().keys() == RUNTIMES.keys()
    assert FORMATS.runtimes()["onnxruntime"].providers == tuple(sessions.PROVIDERS)
    assert FORMATS.runtimes()["savedmodel"].providers == tuple(options.DEVICES)


def test_the_providers_in_the_table_are_those_that_openvino_takes():
    openvino = pytest.importorskip("vit_deploy.runtimes.openvino")
    assert FORMATS.runtimes()["openvino"].providers == tuple(openvino.PRECISIONS)


def test_a_device_that_has_openvino_alone_needs_not_be_told_so(bundles, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setitem(RUNTIMES._plugins, "onnxruntime", MISSING)
    found = verify(read_artifact(bundles["onnx"]))
    assert found.runtime == "openvino" and found.ok


def test_a_device_that_needs_one_of_several_engines_is_told_one_to_install(monkeypatch):
    from vit_deploy.remote.work import require

    neither = Plugin("x:Y", extra="tensorrt-rtx", either=("no_such_engine", "nor_this_one"))
    monkeypatch.setitem(RUNTIMES._plugins, "tensorrt", neither)
    with pytest.raises(MissingEngineError, match="has no no_such_engine or nor_this_one") as caught:
        require(["tensorrt"])
    assert caught.value.fix.endswith("-m pip install nor-this-one")


def test_a_browser_is_taken_where_it_or_a_provider_of_its_own_is_named_alone(monkeypatch):
    monkeypatch.setattr("vit_deploy.runtimes.web.found.lacking", tuple)
    for format in ("onnx", "tflite"):
        assert "web" in FORMATS[format].runtime_names
        assert "web" not in installed_takers(format) and "web" not in takers_of(format)
        assert installed_takers(format, "wasm") == installed_takers(format, "webgpu") == ("web",)


def test_what_a_browser_lacks_is_told_though_no_module_is_missing(monkeypatch):
    monkeypatch.setattr("vit_deploy.runtimes.web.found.lacking", lambda: ("a browser",))
    assert RUNTIMES["web"].missing() == ("a browser",) and RUNTIMES["web"].absent_modules() == ()
    RUNTIMES.check("web")  # options may name what the environment does not
