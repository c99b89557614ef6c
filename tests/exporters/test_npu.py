"""Artifacts that are compiled for accelerators: the steps around a compiler, and Vela where it is installed."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import ClassVar

import jsonschema
import pytest

import vit_deploy
from vit_deploy.cli import run
from vit_deploy.core.compiled import Compiled, Fallback
from vit_deploy.core.manifest import read_artifact
from vit_deploy.errors import ConfigError, EngineError, MissingEngineError, OutputError, UsageError
from vit_deploy.exporters.npu import compiling, known_targets
from vit_deploy.exporters.npu.vela import Vela
from vit_deploy.exporters.quantization import QuantizeOptions
from vit_deploy.exporters.quantization.pipeline import quantize
from vit_deploy.formats import vela


class Doubling:
    """A compiler that writes the file twice, and leaves one operator to the CPU."""

    targets = ("twice-1", "twice-2")
    formats = ("tflite",)
    settings: ClassVar = {"speed": "how fast"}
    libraries = ("numpy",)

    def check(self, source, target):
        pass

    def compile(self, source, target, settings, folder):
        if target == "twice-2" and settings.get("speed") == "none":
            raise EngineError("it will not")
        (folder / "model.twice").write_bytes(source.model_path.read_bytes() * 2)
        left = (Fallback("GELU", 1, "no such operator"),)
        return Compiled(target, "Doubling", "1.0", "model.twice", 7, left, {"cycles": 12.0}, dict(settings))


@pytest.fixture
def doubling(monkeypatch):
    monkeypatch.setattr(compiling, "compiler_of", lambda target: Doubling())


@pytest.fixture(scope="module")
def made(bundles, tmp_path_factory):
    """Artifacts in integers by their precision, and the fp32 one that they are made of."""
    source = read_artifact(bundles["tflite"])
    options = QuantizeOptions(measure_speed=False)
    results = quantize(source, tmp_path_factory.mktemp("made"), ["int8-full", "int16x8"], options).results
    return {"fp32": source} | {result.artifact.precision: result.artifact for result in results}


def test_a_compiled_file_lies_beside_the_proven_one_and_says_where_it_is_from(doubling, bundles, tmp_path):
    source = read_artifact(bundles["tflite"])
    [one] = compiling.compile_each(source, ["twice-1"], tmp_path, {"speed": "high"})
    found = read_artifact(tmp_path / "tflite-fp32-twice-1")
    assert found.model_path.read_bytes() == source.model_path.read_bytes()
    assert (found.directory / "model.twice").read_bytes() == source.model_path.read_bytes() * 2
    assert (found.directory / "golden.npz").is_file() and found.producer["numpy"]
    compiled = Compiled.of(found)
    assert compiled is not None
    assert (compiled.on_npu, compiled.on_cpu, compiled.settings) == (6, 1, {"speed": "high"})
    assert one.to_dict()["bytes"] == 2 * source.model_bytes
    assert vit_deploy.verify(found.directory, quick=True).ok


def test_its_manifest_is_what_the_schema_says_and_inspect_shows_it(doubling, bundles, tmp_path, capsys):
    compiling.compile_each(read_artifact(bundles["tflite"]), ["twice-1"], tmp_path, {})
    folder = tmp_path / "tflite-fp32-twice-1"
    schema = json.loads(Path(vit_deploy.__file__).with_name("core").joinpath("artifact.schema.json").read_text())
    jsonschema.validate(json.loads((folder / "artifact.json").read_text()), schema)
    assert run(["inspect", str(folder)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "compiled for twice-1 by Doubling 1.0: model.twice" in shown
    assert "operators on the NPU 6 of 7" in shown and "left to the CPU 1 GELU (no such operator)" in shown
    assert "cycles 12" in shown
    assert vit_deploy.inspect(folder).records[0]["compiled"]["operators"] == {"npu": 6, "cpu": 1}
    assert "compiled" not in vit_deploy.inspect(bundles["tflite"]).records[0]


def test_what_cannot_be_compiled_is_refused_before_any_work(doubling, bundles, tmp_path):
    tflite = read_artifact(bundles["tflite"])
    compiling.compile_each(tflite, ["twice-1"], tmp_path, {})
    refusals = {
        "takes tflite": (read_artifact(bundles["onnx"]), {}, ConfigError),
        "was compiled already, for twice-1": (read_artifact(tmp_path / "tflite-fp32-twice-1"), {}, ConfigError),
        "has no setting 'sped'": (tflite, {"sped": "1"}, UsageError),
        "already there": (tflite, {}, OutputError),
    }
    for words, (source, settings, error) in refusals.items():
        with pytest.raises(error, match=words):
            compiling.compile_each(source, ["twice-1"], tmp_path, settings)


def test_of_several_targets_those_made_before_one_failed_are_named(doubling, bundles, tmp_path):
    source = read_artifact(bundles["tflite"])
    with pytest.raises(EngineError, match=r"it will not; already published: .*tflite-fp32-twice-1"):
        compiling.compile_each(source, ["twice-1", "twice-2"], tmp_path, {"speed": "none"})
    assert [path.name for path in tmp_path.iterdir()] == ["tflite-fp32-twice-1"]


def test_an_unknown_accelerator_is_told_with_the_one_it_resembles(bundles, tmp_path):
    with pytest.raises(UsageError, match="no accelerator 'ethos-u55-25'") as caught:
        vit_deploy.compile(bundles["tflite"], tmp_path, targets="ethos-u55-25")
    assert "ethos-u55-256" in caught.value.fix
    assert len(known_targets()) >= 11


def test_a_setting_is_a_name_and_a_value(bundles, tmp_path, capsys):
    command = ["compile", str(bundles["tflite"]), "--for", "ethos-u55-256", "-o", str(tmp_path), "--set", "Sram_Only"]
    assert run(command) == 2
    assert "expected NAME=VALUE" in capsys.readouterr().err


def test_without_its_compiler_the_extra_is_named(bundles, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    with pytest.raises(MissingEngineError) as caught:
        vit_deploy.compile(bundles["tflite"], tmp_path, targets="ethos-u55-256")
    assert "vit-deploy[ethos]" in caught.value.fix


SAID = """
Warning (supported operators) operator: MEAN, ofm: 'a/Mean'
Reason: Unsupported depth-reduction.  IFM: 1, 17, 3, 64
Reduction over depth is only supported if any of h,w,c == 1

Warning (supported operators) operator: MUL, ofm: 'a/mul'
Reason: Operation has tensor with unsupported DataType Float32 (a/mul)
Feature-map dataTypes must be one of {"INT16", "INT8"}

Network summary for model
"""


def test_a_reason_is_the_compilers_own_without_the_names_of_tensors():
    found = [(match["operator"], vela.reason_in(match["reason"])) for match in vela.OBJECTION.finditer(SAID)]
    depth = (
        "Unsupported depth-reduction. IFM: 1, 17, 3, 64; Reduction over depth is only supported if any of h,w,c == 1"
    )
    assert found == [("MEAN", depth), ("MUL", "computes in float32")]


def test_what_the_compiler_leaves_without_a_word_is_counted_all_the_same(made):
    path = made["int8-full"].model_path
    operators, left = vela.fallbacks(path, path, "")  # as if it had compiled nothing
    assert sum(fallback.count for fallback in left) == operators
    assert {fallback.reason for fallback in left} == {vela.UNSAID}


@pytest.fixture
def has_vela():
    pytest.importorskip("ethosu", reason="needs ethos-u-vela")


@pytest.mark.parametrize("target", ["ethos-u55-256", "ethos-u65-512", "ethos-u85-256"])
def test_vela_takes_every_operator_of_an_integer_vit(has_vela, made, tmp_path, target):
    [one] = vit_deploy.compile(made["int8-full"], tmp_path, targets=target)
    assert one.compiled.on_cpu == 0 and one.compiled.on_npu > 50
    assert b"ethos-u" in one.path.read_bytes() and one.path.name == "model_vela.tflite"
    assert one.compiled.estimates["inferences_per_s"] > 0 < one.compiled.estimates["sram_bytes"]
    assert read_artifact(one.artifact.directory).options["compiled"] == one.compiled.to_dict()


def test_what_is_left_to_the_cpu_is_told_with_its_reason(has_vela, made, tmp_path, capsys):
    assert run(["compile", str(made["int16x8"].directory), "--for", "ethos-u55-256", "-o", str(tmp_path)]) == 0
    assert "leaves 2 SOFTMAX to the CPU: computes in float32" in capsys.readouterr().err


def test_vela_refuses_what_would_gain_nothing_and_settings_that_it_does_not_know(has_vela, made, tmp_path):
    with pytest.raises(EngineError, match=r"lets nothing of tflite-fp32 run on ethos-u55-256: computes in float32"):
        vit_deploy.compile(made["fp32"], tmp_path, targets="ethos-u55-256")
    with pytest.raises(EngineError, match=r"Memory_Mode\.No not found"):
        vit_deploy.compile(made["int8-full"], tmp_path, targets="ethos-u55-256", settings={"memory-mode": "No"})
    assert not any(tmp_path.iterdir())


def test_a_memory_mode_is_what_vela_takes_it_for(has_vela, made, tmp_path):
    settings = {"memory-mode": "Sram_Only", "optimise": "Size"}
    [one] = vit_deploy.compile(made["int8-full"], tmp_path, targets="ethos-u55-128", settings=settings)
    assert one.compiled.settings["memory-mode"] == "Sram_Only" and one.compiled.settings["optimise"] == "Size"


def test_a_file_for_several_sizes_is_refused(made, tmp_path):
    from vit_deploy.core.image_sizes import ImageSize

    sizes = (ImageSize((24, 32), "a"), ImageSize((48, 32), "b"))
    with pytest.raises(ConfigError, match="for several sizes"):
        Vela().check(dataclasses.replace(made["int8-full"], sizes=sizes), "ethos-u55-256")
