from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
import onnxruntime
import pytest

from vit_deploy import checkpoints
from vit_deploy.core import config, format_table
from vit_deploy.core.config import Scale
from vit_deploy.core.manifest import read_artifact
from vit_deploy.core.reference import forward
from vit_deploy.core.registry import Plugin
from vit_deploy.exporters import EXPORTERS
from vit_deploy.exporters.folding import fold_norms
from vit_deploy.exporters.onnx.export import OnnxExporter
from vit_deploy.verification import targets
from vit_deploy.verification.recording import golden_pixels
from vit_deploy.verification.tolerances import NOISE_FACTOR

FORMATS = ("savedmodel", "onnx", "tflite")
SMALL = MappingProxyType(
    {**config.SCALE_CONFIGS, "pico": Scale(12, 3, 2, 2.0), "tiny": Scale(24, 3, 2, 2.0)},
)


@pytest.fixture
def small_scales(monkeypatch):
    """Scales that are small enough for a test, under the real names."""
    for module in (config, targets):
        monkeypatch.setattr(module, "SCALE_CONFIGS", SMALL)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_with_nothing_given_it_builds_tiny_in_all_formats_and_says_so(run, small_scales, tmp_path):
    result = run("export")
    assert result.code == 0, result.err
    assert "tiny with random weights, seed 0: good for sizes and timings, not for answers" in result.err
    made = tmp_path / "artifacts" / "tiny-224x224"
    assert sorted(path.name for path in made.iterdir()) == sorted(f"{format_name}-fp32" for format_name in FORMATS)
    assert read_artifact(made / "onnx-fp32").config.embed_dim == 24
    for format in FORMATS:
        assert f"artifacts/tiny-224x224/{format}-fp32" in result.out
    assert result.out.count(" same") == 3


def test_a_scale_takes_the_options_that_shape_it(run, small_scales, tmp_path):
    options = ["--image-size", "32x48", "--patch-size", "8x16", "--num-classes", "7", "--seed", "3"]
    document = run("export", "pico", "--format", "onnx", *options, "--json").document
    assert document["results"][0]["path"] == "artifacts/pico-32x48/onnx-fp32"
    made = read_artifact(tmp_path / "artifacts" / "pico-32x48" / "onnx-fp32")
    assert made.config.image_size == (32, 48) and made.config.patch_size == (8, 16) and made.config.num_classes == 7
    assert made.provenance[0].to_dict() == {"action": "random", "seed": 3}
    other = run("export", "pico", "--format", "onnx", *options[:-1], "4", "-o", "other", "--json")
    assert other.code == 0
    assert read_artifact(tmp_path / "other" / "onnx-fp32").weights_digest != made.weights_digest


def test_a_scale_wins_over_a_file_of_that_name_and_a_path_means_the_file(run, small_scales, keras_file, tmp_path):
    shutil.copy(keras_file, tmp_path / "pico")
    assert run("export", "pico", "--image-size", "32", "-f", "onnx", "-o", "by-scale").code == 0
    assert read_artifact(tmp_path / "by-scale" / "onnx-fp32").config.image_size == (32, 32)
    shutil.copy(keras_file, tmp_path / "pico.keras")
    assert run("export", "./pico.keras", "-f", "onnx", "-o", "by-file").code == 0
    assert read_artifact(tmp_path / "by-file" / "onnx-fp32").config.image_size == (24, 32)
    result = run("export", "./pico", "-f", "onnx", "-o", "by-path")
    found = read_artifact(tmp_path / "by-path" / "onnx-fp32").config.image_size if result.code == 0 else result.err
    assert found == (24, 32) or "pico" in str(found)  # read or refused, but never the scale


@pytest.mark.parametrize(
    ("option", "value"),
    [("--seed", "1"), ("--num-classes", "3")],
)
def test_options_that_shape_random_weights_do_not_go_with_a_file(run, keras_file, tmp_path, option, value):
    result = run("export", keras_file, option, value, "-o", "out")
    assert result.code == 2 and option in result.err and str(keras_file) in result.err
    assert list(tmp_path.iterdir()) == []


def test_every_option_of_the_graph_reaches_the_file(run, keras_file, tmp_path):
    graph = ["--batch", "2", "--opset", "17", "--layout", "nchw", "--include-preprocessing"]
    result = run("export", keras_file, "-f", "onnx", *graph, "-o", "out", "--json")
    assert result.code == 0, result.err
    path = tmp_path / "out" / "onnx-fp32" / "model.onnx"
    assert [(opset.domain, opset.version) for opset in onnx.load(path).opset_import] == [("", 17)]
    session = onnxruntime.InferenceSession(path)
    (given,) = session.get_inputs()
    assert (given.name, given.shape, given.type) == ("images", [2, 3, 24, 32], "tensor(uint8)")
    checkpoint = checkpoints.load(keras_file)
    pixels = golden_pixels(checkpoint.config)[:2]
    (logits,) = session.run(["logits"], {"images": np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))})
    images = checkpoint.preprocess.normalize(pixels)
    truth = forward(checkpoint, images)
    floor = np.abs(forward(checkpoint, images, np.float32) - truth).max()
    assert np.abs(logits - truth).max() <= NOISE_FACTOR * floor
    made = read_artifact(path.parent)
    assert made.options == {"opset": 17} and made.input.batch == 2 and made.input.preprocessing_inside


def test_a_batch_of_one_reaches_all_formats(run, keras_file, tmp_path):
    assert run("export", keras_file, "--batch", "1", "-o", "out").code == 0
    for format in FORMATS:
        assert read_artifact(tmp_path / "out" / f"{format}-fp32").input.shape == (1, 24, 32, 3)


def test_the_document_of_an_export_has_what_the_contract_says(run, keras_file, tmp_path):
    result = run("export", keras_file, "-f", "savedmodel", "-f", "onnx", "-o", tmp_path / "out", "--json")
    assert result.code == 0
    document = result.document
    assert (document["schema"], document["command"], document["ok"], document["skipped"]) == (1, "export", True, [])
    assert [record["format"] for record in document["results"]] == ["savedmodel", "onnx"]
    for record in document["results"]:
        assert set(record) == {"path", "format", "precision", "bytes", "seconds", "verify_seconds", "parity"}
        folder = tmp_path / "out" / f"{record['format']}-fp32"
        assert record["path"] == str(folder) and record["precision"] == "fp32"
        model = folder / ("model.onnx" if record["format"] == "onnx" else "saved_model")
        sizes = [path.stat().st_size for path in [model, *model.rglob("*")] if path.is_file()]
        assert record["bytes"] == sum(sizes)
        assert record["seconds"] > 0 and record["verify_seconds"] > 0
        assert record["parity"]["ok"] and record["parity"]["failures"] == []
        assert 0 < record["parity"]["metrics"]["max_abs"] <= record["parity"]["tolerance"]["max_abs"]


def test_what_is_there_is_refused_before_any_work_and_replaced_with_force(run, keras_file, tmp_path, monkeypatch):
    assert run("export", keras_file, "-f", "onnx", "-o", "out").code == 0
    before = files(tmp_path / "out")
    with monkeypatch.context() as patch:
        patch.setattr(targets, "load_source", lambda *_: pytest.fail("the work began"))
        for command in (["-f", "onnx"], ["-f", "savedmodel", "-f", "onnx"]):
            result = run("export", keras_file, *command, "-o", "out")
            assert result.code == 2 and "already there: out/onnx-fp32\n" in result.err and "--force" in result.err
    assert files(tmp_path / "out") == before
    assert run("export", keras_file, "-f", "onnx", "--opset", "18", "-o", "out", "--force").code == 0
    assert read_artifact(tmp_path / "out" / "onnx-fp32").options == {"opset": 18}
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["onnx-fp32"]


def test_a_target_below_a_file_is_refused(run, keras_file, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = run("export", keras_file, "-o", "file/out")
    assert result.code == 2 and "cannot write below a file" in result.err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow  # as in tests/test_reproducible.py
def test_another_process_writes_the_same_bytes(run, keras_file, tmp_path):
    command = ["export", keras_file, "-f", "onnx", "-f", "tflite", "-o"]
    assert run(*command, "here").code == 0
    program = [sys.executable, "-m", "vit_deploy", *command, "there"]
    subprocess.run(program, check=True, env={**os.environ, "PYTHONHASHSEED": "12345"})
    here, there = files(tmp_path / "here"), files(tmp_path / "there")
    assert set(here) == set(there) and len(here) == 6
    assert [name for name in here if here[name] != there[name]] == []


def test_a_model_that_fails_its_proof_is_exit_1_and_its_siblings_are_published(run, keras_file, tmp_path, monkeypatch):
    write = OnnxExporter.write

    def wrong(self, checkpoint, artifact, options):
        write(self, checkpoint, artifact, options)
        damage(artifact.model_path, checkpoint)

    monkeypatch.setattr(OnnxExporter, "write", wrong)
    command = ["export", keras_file, "-f", "onnx", "-f", "savedmodel", "--json"]
    result = run(*command, "-o", "out")
    assert result.code == 1
    bad, good = result.document["results"]
    assert not result.document["ok"] and bad["path"] is None and not bad["parity"]["ok"] and good["parity"]["ok"]
    assert "onnx-fp32 failed its proof and is not published: largest difference" in result.err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["savedmodel-fp32"]

    result = run(*command[:-1], "-o", "kept", "--keep-failed")
    assert result.code == 1
    assert "DIFFERENT" in result.out and result.out.count(" same") == 1
    assert "is published as kept/onnx-fp32.failed" in result.err
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["onnx-fp32.failed", "savedmodel-fp32"]
    assert run("verify", "kept/onnx-fp32.failed").code == 1


def damage(path, checkpoint):
    """Change one weight of a model file by what nobody would see in it."""
    content = path.read_bytes()
    biases = [each.weights["head.bias"] for each in (checkpoint, fold_norms(checkpoint))]  # as in ONNX, as in TFLite
    [bias] = [values for values in biases if content.count(values.tobytes()) == 1]
    changed = bias.copy()
    changed[2] += np.float32(1e-3)
    path.write_bytes(content.replace(bias.tobytes(), changed.tobytes()))


def test_gaps_are_listed_as_skipped(run, keras_file, monkeypatch):
    records = format_table.FORMATS._records
    monkeypatch.setitem(records, "onnx", dataclasses.replace(records["onnx"], precisions={"cpu": ("fp32", "int8")}))
    command = ["export", keras_file, "-f", "savedmodel", "-p", "fp32", "-p", "int8", "-o", "out"]
    result = run(*command, "--json")
    assert result.code == 0 and result.document["skipped"] == [
        "savedmodel-int8: of int8 there are ONNX and TFLite files alone"
    ]
    assert "skipped savedmodel-int8: of int8 there are ONNX and TFLite files alone" in run(*command, "--force").err


def test_a_missing_engine_is_exit_2_with_the_command_that_installs_it(run, keras_file, tmp_path, monkeypatch):
    missing = Plugin("x:Y", extra="cpu", needs=("no_such_engine",))
    monkeypatch.setitem(EXPORTERS._plugins, "onnx", missing)
    result = run("export", keras_file, "-o", "out", "--json")
    assert result.code == 2
    assert result.document["error"] == {
        "type": "MissingEngineError",
        "message": "the format 'onnx' needs no_such_engine, which is not installed",
        "fix": 'pip install "vit-deploy[cpu]"',
    }
    assert json.loads(result.out)["results"] == []
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_checkpoint_is_exit_2(run, keras_file, tmp_path):
    (tmp_path / "cut.keras").write_bytes(keras_file.read_bytes()[:2000])
    result = run("export", "cut.keras", "-o", "out")
    assert result.code == 2 and "cut.keras" in result.err and "Traceback" not in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["cut.keras"]


def test_a_file_for_cuda_is_made_proven_and_told(run, small_scales):
    result = run("export", "tiny", "--for", "cuda", "-p", "fp16", "-p", "int8", "--no-speed", "--json", "-o", "made")
    assert result.code == 0, result.err
    assert [record["path"] for record in result.document["results"]] == ["made/onnx-fp16"]
    assert result.document["skipped"] == ["onnx-int8: has no kernels in files for cuda"]
    shown = run("inspect", "made/onnx-fp16")
    assert "made for" in shown.out and "com.microsoft.Attention" in shown.out


def test_it_takes_halves_in_and_out_as_well(run, small_scales):
    result = run("export", "tiny", "--for", "cuda", "-p", "fp16", "--half-io", "--no-speed", "-o", "made")
    assert result.code == 0, result.err
    artifact = read_artifact(Path("made/onnx-fp16"))
    assert (artifact.input.dtype, artifact.output.dtype) == ("float16", "float16")
    assert "Cast" not in [node.op_type for node in onnx.load(str(artifact.model_path)).graph.node]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--for", "gpu"), "files are not made for 'gpu' here"),
        (("--for", "cuda", "-f", "tflite"), "--for shape ONNX files"),
        (("--for", "cuda", "-p", "int4"), "onnx for cuda has none of the precisions int4"),
        (("-p", "bf16"), "bf16 is for ONNX files for cuda"),
    ],
)
def test_what_is_made_for_nothing_is_refused_before_any_work(run, small_scales, words, said):
    result = run("export", "tiny", *words, "-o", "made")
    assert result.code == 2 and said in result.err
    assert not Path("made").exists()
