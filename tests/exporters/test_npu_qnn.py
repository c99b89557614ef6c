"""Artifacts compiled for Hexagon: the whole graph is the chip's program, and that program is what is proven."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jsonschema
import onnx
import pytest

import vit_deploy
from tests.hexagon import on_hexagon
from vit_deploy.core.hexagon import CHIPS
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import ConfigError, EngineError
from vit_deploy.exporters.npu import known_targets
from vit_deploy.exporters.npu.compiling import compile_each
from vit_deploy.exporters.npu.qnn import FILE, Qnn


def test_every_chip_is_a_target():
    assert {f"qnn-{name}" for name in CHIPS} <= set(known_targets())


def test_floats_are_refused_for_a_chip_that_has_none(bundles):
    with pytest.raises(
        ConfigError, match=r"is in fp32, and SM8350 \(Snapdragon 888(?s:.*)integers alone(?s:.*)int16x8"
    ):
        Qnn().check(read_artifact(bundles["onnx"]), "qnn-sm8350")


@on_hexagon
def test_the_compiled_file_is_one_operator_and_is_run_on_the_emulated_chip(bundles, tmp_path):
    source = read_artifact(bundles["onnx"])
    half = dataclasses.replace(source, precision="fp16")  # which is what the chip computes it in
    [one] = compile_each(half, ["qnn-sm8650"], tmp_path, {})
    model = onnx.load(one.path)
    assert [(node.domain, node.op_type) for node in model.graph.node] == [("com.microsoft", "EPContext")]
    manifest = json.loads((one.artifact.directory / "artifact.json").read_text())
    schema = json.loads(Path(vit_deploy.__file__).with_name("core").joinpath("artifact.schema.json").read_text())
    jsonschema.validate(manifest, schema)
    record = manifest["options"]["compiled"]
    assert (record["target"], record["file"], record["operators"]["cpu"]) == ("qnn-sm8650", FILE, 0)
    assert record["settings"] == {"soc_model": "57", "hexagon": "v75"}
    assert record["proof"].startswith("same, ") and record["proof"].endswith("Hexagon v75) emulated")
    assert FILE in one.artifact.files


@on_hexagon
def test_a_compiled_file_that_answers_otherwise_is_not_published(bundles, tmp_path):
    # It is held to what fp32 is, and computed in 16 bits.
    with pytest.raises(EngineError, match=r"compiled for SM8650 .* answers differently: largest difference"):
        compile_each(read_artifact(bundles["onnx"]), ["qnn-sm8650"], tmp_path, {})
    assert list(tmp_path.iterdir()) == []
