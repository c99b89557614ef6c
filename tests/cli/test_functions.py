"""A command prints what its function returns."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

import vit_deploy
from vit_deploy import api, checkpoints, cli
from vit_deploy.cli.app import COMMANDS
from vit_deploy.core.options import QuantizeOptions
from vit_deploy.core.options.quantizing import Clipping
from vit_deploy.errors import ConfigError

OF_TIME = {"seconds", "verify_seconds"}  # fields that no two runs have in common
UNTIMED = QuantizeOptions(measure_speed=False)


def without_times(value):
    if isinstance(value, dict):
        return {name: without_times(each) for name, each in value.items() if name not in OF_TIME}
    return [without_times(each) for each in value] if isinstance(value, list | tuple) else value


@pytest.fixture
def same(run, tmp_path, monkeypatch):
    """Runs a command in one folder and its function in another, and compares document and result."""

    def check(arguments, function):
        folders = [tmp_path / name for name in ("command", "function")]
        for folder in folders:
            folder.mkdir()
        monkeypatch.chdir(folders[0])
        said = run(*arguments, "--json")
        monkeypatch.chdir(folders[1])
        outcome = function()
        assert without_times(said.document) == without_times(outcome.to_dict())
        assert said.code == 0 and outcome.ok
        written = [sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) for folder in folders]
        assert written[0] == written[1] != []
        return outcome

    return check


@pytest.fixture
def file(tmp_path, make_checkpoint) -> Path:
    path = tmp_path / "small.safetensors"
    checkpoints.save(make_checkpoint(), path)
    return path


def test_build_is_a_function(same):
    built = same(
        (
            *("build", "pico", "-o", "a.safetensors", "--image-size", "32x64", "--num-classes", 5),
            *("--no-class-token", "--pooling", "mean"),
        ),
        lambda: vit_deploy.build(
            "pico",
            "a.safetensors",
            image_size=(32, 64),
            num_classes=5,
            architecture=vit_deploy.ArchitectureOptions(class_token=False, pooling="mean"),
        ),
    )
    assert built.result.checkpoint.config.num_classes == 5


def test_convert_is_a_function(same, file):
    converted = same(
        ("convert", file, "-o", "b.safetensors", "--mean", "0.25", "--no-head"),
        lambda: vit_deploy.convert(
            file, "b.safetensors", reading=vit_deploy.CheckpointOptions(mean=0.25, no_head=True)
        ),
    )
    assert converted.result.checkpoint.preprocess.mean == (0.25, 0.25, 0.25)


def test_resize_is_a_function(same, file):
    resized = same(
        ("resize", file, "-o", "c.safetensors", "--image-size", "48x32", "--like", "google", "--report"),
        lambda: vit_deploy.resize(file, "c.safetensors", image_size=(48, 32), like="google", report=True),
    )
    assert resized.result.convention == "google" and resized.result.drift is not None


def test_export_is_a_function(same, file):
    exported = same(
        ("export", file, "-f", "onnx,tflite", "-p", "fp32", "-p", "int8", "--no-speed", "-o", "out", "--batch", 2),
        lambda: vit_deploy.export(
            file, "out", formats=["onnx", "tflite"], precisions=["fp32", "int8"], quantizing=UNTIMED, batch=2
        ),
    )
    assert [each.name for each in exported] == ["onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8"]


def test_quantize_is_a_function(same, bundles):
    quantized = same(
        ("quantize", bundles["onnx"], "-p", "int8", "-o", "out", "--keep-float", "head", "--no-speed"),
        lambda: vit_deploy.quantize(
            bundles["onnx"],
            "out",
            precisions="int8",
            quantizing=dataclasses.replace(UNTIMED, keep_float=("head",)),
        ),
    )
    assert quantized.result.precision == "int8"
    assert set(quantized.made.facts) == {"onnx-fp32", "onnx-int8"}


def test_what_failed_its_proof_is_raised_or_told(file, tmp_path, monkeypatch):
    from vit_deploy.errors import ExportError
    from vit_deploy.exporters import publish

    real = publish.verify

    def failed(artifact, **options):
        result = real(artifact, **options)
        return dataclasses.replace(result, parity=result.parity.failed("another function"))

    monkeypatch.setattr(publish, "verify", failed)
    told = vit_deploy.export(file, tmp_path / "told", formats="onnx", check=False)
    assert not told.ok and list(told) == [] and told.to_dict()["results"][0]["path"] is None
    with pytest.raises(ExportError, match="onnx-fp32: another function"):
        vit_deploy.export(file, tmp_path / "raised", formats="onnx")


def test_every_command_is_a_function_and_calls_no_other_code_of_its_own():
    names = {command.name for command in COMMANDS} - {"version", "help"}
    assert names <= set(api.__all__) and names <= set(vit_deploy.__all__)
    for name in sorted(names):
        text = (Path(cli.__file__).parent / f"{name}.py").read_text()
        [function] = [node for node in ast.parse(text).body if getattr(node, "name", "") == name]
        called = {ast.unparse(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
        assert f"api.{name}" in called and len([each for each in called if each.startswith("api.")]) == 1, name
        assert function.end_lineno - function.body[0].lineno < 60, name


def test_options_are_given_as_words_and_lists_too():
    options = QuantizeOptions(clipping="mse", keep_float=["head"])
    assert options.clipping is Clipping.MSE and options.keep_float == ("head",)
    with pytest.raises(ConfigError, match="clipping is 'mean'; expected one of min-max, percentile, mse"):
        QuantizeOptions(clipping="mean")
