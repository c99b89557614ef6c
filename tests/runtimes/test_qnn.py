"""Qualcomm's Hexagon processor, emulated: the whole graph is there, or an error says what is not."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from linear_onnx import expected, write_model
from onnx import helper

from tests.hexagon import on_hexagon
from vit_deploy.core.format_table import FORMATS
from vit_deploy.core.hexagon import CHIPS
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import EngineError, MissingEngineError
from vit_deploy.runtimes import RUNTIMES, RuntimeOptions, installed_takers, open_session
from vit_deploy.runtimes.diagnosis import conflicts
from vit_deploy.runtimes.packages import Package


def here(*packages):
    return {name: Package.declaring(name, version) for name, version in packages}


def found(*packages):
    return [(conflict.problem, conflict.fix) for conflict in conflicts(here(*packages), {}, (3, 12))]


def test_the_plugin_beside_an_onnx_runtime_is_no_conflict_and_alone_it_is_one():
    assert found(("onnxruntime", "1.32.0"), ("onnxruntime-qnn", "2.7.0")) == []
    [(problem, fix)] = found(("onnxruntime-qnn", "2.7.0"))
    assert "onnxruntime-qnn 2.7.0 is a plugin of ONNX Runtime, which is not installed" in problem
    assert fix == 'pip install "vit-deploy[qnn]"'


def test_before_it_was_a_plugin_it_wrote_over_an_onnx_runtimes_files():
    [(problem, fix)] = found(("onnxruntime", "1.23.0"), ("onnxruntime-qnn", "1.23.2"))
    assert problem == "onnxruntime-qnn and onnxruntime are installed together, and write over each other's files"
    assert fix == 'pip uninstall -y onnxruntime-qnn onnxruntime && pip install onnxruntime "onnxruntime-qnn>=2"'


def test_it_runs_only_where_it_is_named(monkeypatch):
    providers = FORMATS.runtimes()["qnn"].providers
    assert providers == ("htp", *(f"htp-{name}" for name in CHIPS))
    assert "qnn" not in installed_takers("onnx")
    assert all(installed_takers("onnx", provider) == ("qnn",) for provider in providers)


@on_hexagon
@pytest.mark.parametrize("batch", [None, 2])
def test_a_file_answers_on_the_emulated_processor_and_says_that_it_is_one(
    make_artifact, weight, seven_images, batch, capfd
):
    artifact = write_model(make_artifact("onnx", batch), weight)
    with open_session(artifact, None, RuntimeOptions(provider="htp")) as session:
        outputs = session.infer(seven_images[:3])
        assert session.provider == "htp-emulated"
        assert set(session.placement) == {"htp-emulated"} and session.placement["htp-emulated"] > 0
        assert session.notes == (
            "SM8650 (Snapdragon 8 Gen 3, Hexagon v75) is emulated on this processor: its answers count, times do not",
        )
    right = expected(seven_images[:3], weight)
    assert np.abs(outputs - right).max() / np.abs(right).max() < 2**-8  # it computes in half
    assert capfd.readouterr().out == ""


@on_hexagon
def test_operators_that_the_processor_does_not_take_are_named(make_artifact, weight):
    foreign = helper.make_node("Celu", ["images"], ["nhwc"], name="stranger")
    artifact = write_model(make_artifact("onnx", 1), weight, before=[foreign])
    with pytest.raises(EngineError, match=r"Hexagon v75\) does not take \d of 3 operators of .*: stranger \(Celu\)"):
        RUNTIMES.load("qnn")().open(artifact).__enter__()


@on_hexagon
def test_a_chip_that_has_integers_alone_is_said_to_have_no_others(bundles):
    artifact = read_artifact(bundles["onnx"])
    with pytest.raises(EngineError, match=r"SM8350 \(Snapdragon 888(?s:.*)computes in integers alone"):
        RUNTIMES.load("qnn")().open(artifact, RuntimeOptions(provider="htp-sm8350")).__enter__()


@on_hexagon
def test_a_provider_that_it_has_not_is_an_error(make_artifact, weight):
    artifact = write_model(make_artifact("onnx", 1), weight)
    with pytest.raises(EngineError, match=r"with the provider 'cuda'(?s:.*)choose one of htp, htp-sm8350"):
        RUNTIMES.load("qnn")().open(artifact, RuntimeOptions(provider="cuda")).__enter__()


def test_without_the_plugin_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(
        "vit_deploy.core.registry.importlib.util.find_spec",
        lambda name, real=importlib.util.find_spec: None if name == "onnxruntime_qnn" else real(name),
    )
    with pytest.raises(MissingEngineError) as caught:
        RUNTIMES.load("qnn")
    assert caught.value.fix == 'pip install "vit-deploy[qnn]"'
