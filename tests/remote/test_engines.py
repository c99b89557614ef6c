"""Engines that artifacts need on another machine are told from the modules that are not installed there."""

from __future__ import annotations

from pathlib import Path

import pytest

import vit_deploy
from vit_deploy.core.registry import no_engine
from vit_deploy.errors import ConfigError
from vit_deploy.remote.engines import missing_there, needs


def test_one_engine_of_those_that_take_a_format_is_enough() -> None:
    wanted = needs(["onnx", "tflite"])
    assert missing_there(wanted, ["openvino"]) == ()
    assert missing_there(wanted, ["onnxruntime"]) == ()
    assert missing_there(wanted, ["openvino", "onnxruntime"]) == ("onnxruntime",)
    assert missing_there(wanted, ["openvino", "onnxruntime", "ai_edge_litert"]) == ("ai_edge_litert", "onnxruntime")


def test_every_engine_that_is_asked_for_is_needed() -> None:
    wanted = needs(["onnx"], ["onnxruntime", "openvino"])
    assert missing_there(wanted, ["openvino"]) == ("openvino",)
    with pytest.raises(ConfigError, match="unknown runtime 'onnx'"):
        needs(["onnx"], ["onnx"])


def test_an_engine_that_does_not_offer_the_provider_does_not_count() -> None:
    assert missing_there(needs(["onnx"], (), ["cuda"]), ["onnxruntime"]) == ("onnxruntime",)


def test_of_two_libraries_either_will_do() -> None:
    wanted = needs(["tensorrt"])
    assert missing_there(wanted, ["tensorrt"]) == ()
    [both] = missing_there(wanted, ["tensorrt", "tensorrt_rtx"])
    assert both == "tensorrt or tensorrt_rtx"
    assert no_engine("python3", [both]).fix == "python3 -m pip install tensorrt-rtx"


@pytest.mark.parametrize(("runtimes", "providers"), [(["web"], []), ([], ["wasm"]), (["onnxruntime", "web"], ["cpu"])])
def test_a_browser_is_of_this_machine_alone(runtimes: list[str], providers: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"(web|wasm) runs on this machine alone\n  fix: leave out --on"):
        needs(["onnx"], runtimes, providers)


def test_where_a_browser_is_and_its_files_are_not_sent(bundles: dict[str, Path]) -> None:
    for given, option in (({"browser": "firefox"}, "--browser"), ({"runtime_files": "x"}, "--runtime-files")):
        with pytest.raises(ConfigError, match=f"{option} is of this machine's browsers"):
            vit_deploy.verify(bundles["onnx"], on="ssh://nobody@localhost", **given)
