"""The folder that `export -o` was given, as an argument of the other commands."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from vit_deploy.core.registry import Plugin
from vit_deploy.core.synthetic_images import natural_pixels
from vit_deploy.errors import EngineError
from vit_deploy.exporters.onnx.quantize import OnnxQuantizer
from vit_deploy.runtimes import RUNTIMES


@pytest.fixture(scope="module")
def folder(bundles, tmp_path_factory):
    """All artifacts in one folder, beside what is none."""
    folder = tmp_path_factory.mktemp("exported")
    for path in bundles.values():
        shutil.copytree(path, folder / path.name)
    shutil.copytree(bundles["onnx"], folder / "onnx-int8.failed")
    shutil.copytree(bundles["onnx"], folder / ".staged")
    (folder / "notes").mkdir()
    return folder


NAMES = ["onnx-fp32", "savedmodel-fp32", "tflite-fp32"]


def test_verify_proves_all_that_is_inside_by_name(run, folder):
    document = run("verify", folder, "--quick", "--json").document
    assert [result["artifact"] for result in document["results"]] == [str(folder / name) for name in NAMES]
    assert document["ok"]


@pytest.mark.slow
def test_bench_times_all_that_is_inside_once(run, folder):
    done = run("bench", folder, folder / "onnx-fp32", "--runs", "2", "--runtime", "onnxruntime")
    assert done.code == 2 and "onnxruntime does not run" in done.err and str(folder / "tflite-fp32") in done.err
    document = run("bench", folder, folder / "onnx-fp32", "--runs", "2", "--json").document
    assert {result["artifact"] for result in document["results"]} == {str(folder / name) for name in NAMES}


def test_evaluate_runs_all_that_is_inside(run, folder, tmp_path):
    np.savez(tmp_path / "data.npz", images=natural_pixels(4, 24, 32, 3), labels=np.arange(4))
    document = run("evaluate", folder, "--data", tmp_path / "data.npz", "--json").document
    assert [result["artifact"] for result in document["results"]] == [str(folder / name) for name in NAMES]


def test_bundle_packs_all_that_is_inside(run, folder, tmp_path):
    document = run("bundle", folder, "-o", tmp_path / "all.tar.gz", "--json").document
    assert document["results"][0]["artifacts"] == [str(folder / name) for name in NAMES]


def test_quantize_takes_the_fp32_files_of_every_format_that_has_the_precision(run, folder, tmp_path):
    done = run("quantize", folder, "-p", "int8", "-p", "int8-full", "--no-speed", "-o", tmp_path, "--json")
    made = [result["path"].rpartition("/")[2] for result in done.document["results"]]
    assert made == ["onnx-int8", "tflite-int8", "tflite-int8-full"]
    assert "onnx-int8-full: of int8-full there are TFLite files alone" in done.document["skipped"]
    again = run("quantize", folder, "-p", "int8", "--no-speed", "-o", tmp_path)
    assert again.code == 2 and "onnx-int8" in again.err and "tflite-int8" in again.err


def test_quantize_asks_whether_a_mistyped_precision_is_the_one_it_resembles(run, folder, tmp_path):
    done = run("quantize", folder, "-p", "int8-ful", "-o", tmp_path)
    assert (done.code, "did you mean 'int8-full'?" in done.err) == (2, True)


def test_quantize_goes_on_to_the_next_format_where_nothing_can_be_made_of_one(run, folder, tmp_path, monkeypatch):
    def write(self, source, target, recipe, calibration):
        raise EngineError("no kernels for this", fix="take another precision")

    monkeypatch.setattr(OnnxQuantizer, "write", write)
    done = run("quantize", folder, "-p", "int8", "--no-speed", "-o", tmp_path, "--json")
    assert done.code == 2 and not done.document["ok"]
    assert [result["path"].rpartition("/")[2] for result in done.document["results"]] == ["tflite-int8"]
    assert [failure["artifact"] for failure in done.document["failed"]] == ["onnx-int8"]
    alone = run("quantize", folder / "onnx-fp32", "-p", "int8", "--no-speed", "-o", tmp_path / "alone", "--json")
    assert alone.code == 2 and alone.document["error"]["message"] == "no kernels for this"


def test_quantize_says_what_a_folder_without_fp32_files_holds(run, bundles, tmp_path):
    shutil.copytree(bundles["savedmodel"], tmp_path / "savedmodel-fp32")
    done = run("quantize", tmp_path, "-p", "int8", "-o", tmp_path / "out")
    assert done.code == 2 and f"{tmp_path} holds nothing to quantize: savedmodel-fp32" in done.err


@pytest.mark.parametrize("command", ["compare", "predict", "inspect"])
def test_a_command_for_one_bundle_names_those_inside(run, folder, bundles, command):
    done = run(command, folder, *[bundles["onnx"] / "artifact.json"] * (command != "inspect"))
    assert done.code == 2 and f"not an artifact, but a folder of artifacts: {', '.join(NAMES)}" in done.err
    assert f"fix: give one of them, as {folder / 'onnx-fp32'}" in done.err


@pytest.fixture
def no_litert(monkeypatch):
    """The environment of a device that lacks an engine."""
    monkeypatch.setitem(RUNTIMES._plugins, "litert", Plugin("x:Y", extra="litert", needs=("no_such_engine",)))


def test_bench_times_what_it_has_an_engine_for_and_says_what_it_has_not(run, bundles, no_litert):
    done = run("bench", bundles["tflite"], bundles["onnx"], "--runs", "2", "--json")
    assert done.code == 2 and {result["artifact"] for result in done.document["results"]} == {str(bundles["onnx"])}
    assert [failure["artifact"] for failure in done.document["failed"]] == [str(bundles["tflite"])]
    assert f"{bundles['tflite']} was not timed" in done.err and "vit-deploy[litert]" in done.err
    alone = run("bench", bundles["tflite"], "--runs", "2", "--json")
    assert alone.code == 2 and alone.document["results"] == [] and "litert" in alone.document["error"]["message"]


def test_evaluate_runs_what_it_has_an_engine_for_and_says_what_it_has_not(run, bundles, no_litert, tmp_path):
    np.savez(tmp_path / "data.npz", images=natural_pixels(4, 24, 32, 3), labels=np.arange(4))
    done = run("evaluate", bundles["tflite"], bundles["onnx"], "--data", tmp_path / "data.npz", "--json")
    assert done.code == 2 and [result["artifact"] for result in done.document["results"]] == [str(bundles["onnx"])]
    assert [failure["artifact"] for failure in done.document["failed"]] == [str(bundles["tflite"])]
    alone = run("evaluate", bundles["tflite"], "--data", tmp_path / "data.npz", "--json")
    assert alone.code == 2 and alone.document["results"] == []
