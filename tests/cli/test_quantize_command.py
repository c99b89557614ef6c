"""`vit-deploy quantize` and `export --precision`: documents, tables, exit codes."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest


@pytest.fixture
def labelled(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "labelled.npz"
    np.savez(path, images=rng.integers(0, 256, (12, 24, 32, 3), dtype=np.uint8), labels=np.arange(12) % 5)
    return path


@pytest.mark.slow
def test_quantize_tells_size_speed_and_accuracy_beside_fp32(run, bundles, labelled, tmp_path):
    out = tmp_path / "out"
    result = run("quantize", bundles["tflite"], "-p", "int8", "-p", "fp16", "--data", labelled, "-o", out, "--json")
    assert result.code == 0 and result.document["command"] == "quantize" and result.document["ok"]
    int8, fp16 = result.document["results"]
    assert (int8["precision"], fp16["precision"]) == ("int8", "fp16")
    assert int8["path"] == str(out / "tflite-int8") and int8["parity"]["ok"]
    facts = fp16["facts"]
    assert facts["latency_ratio"] == pytest.approx(facts["latency_ms"] / facts["fp32_latency_ms"])
    assert facts["size_ratio"] == pytest.approx(fp16["bytes"] / facts["fp32_bytes"])
    assert facts["agreement"] == 1.0 and facts["images"] == 12 and facts["top1"] == facts["fp32_top1"]


def test_the_table_has_the_facts_and_the_sensitivities(run, bundles, tmp_path):
    out = tmp_path / "out"
    result = run("quantize", bundles["tflite"], "-p", "int4", "--sensitivity", "--no-speed", "-o", out)
    assert result.code == 0
    assert "of fp32" in result.out and "top-1 as fp32" in result.out and "tflite-fp32" in result.out
    assert "10 of 14 layers" in result.out and "quantized" in result.out


def test_export_with_precisions_lists_gaps_and_takes_the_formats_that_have_them(run, keras_file, tmp_path):
    command = ["export", keras_file, "-f", "tflite", "-f", "savedmodel"]
    result = run(*command, "-p", "int8", "-p", "fp32", "--no-speed", "-o", tmp_path / "out", "--json")
    assert result.code == 0
    names = [f"{record['format']}-{record['precision']}" for record in result.document["results"]]
    assert names == ["tflite-int8", "tflite-fp32", "savedmodel-fp32"]
    assert result.document["skipped"] == ["savedmodel-int8: of int8 there are ONNX and TFLite files alone"]
    assert "facts" in result.document["results"][0] and "facts" not in result.document["results"][2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-p", "int8", "--max-drop", "0.5"], "--max-drop needs labelled images"),
        (["-p", "int8", "--max-drop", "1", "--min-cosine", "0.9"], "both --max-drop and --min-cosine"),
        (["-p", "int7"], "tflite cannot be quantized to 'int7'"),
        (["-p", "int8-static", "--calibrate", "nowhere"], "there is nothing at nowhere"),
        (["-p", "int8-static", "--clipping", "hard"], "--clipping is 'hard'"),
        (["-p", "int8-full", "--keep-float", "head"], "int8-full has integers alone"),
        (["-p", "int8", "--smoothing", "0.5"], "smoothed by their weights alone"),
        (["-p", "int8", "--attention-bits", "8"], "--attention-bits is for int8-full"),
        (["-p", "int8-static", "--softmax-bits", "8"], "are for int8-full"),
        (["-p", "int16x8", "--all-integers", "--residual-bits", "8"], "are for int8-full"),
        (["-p", "int8-full", "--softmax-bits", "9"], "softmax bits are 9"),
        (["-p", "int8-static", "--percentile", "99"], "--clipping percentile"),
        (["-p", "int4", "--clipping", "percentile", "--percentile", "99"], "--clipping is for calibrated ranges"),
        (["-p", "fp16", "--bias-correction"], "makes up for kernels in integers"),
        (["-p", "int8", "--data", "nowhere"], "there is nothing at nowhere"),
        (["-p", "int8", "--min-cosine", "2"], "min cosine is 2.0"),
    ],
)
def test_bad_input_is_exit_2_and_leaves_nothing_behind(run, bundles, tmp_path, options, message):
    result = run("quantize", bundles["tflite"], *options, "-o", tmp_path / "out", "--json")
    assert result.code == 2 and message in result.document["error"]["message"]
    assert "Traceback" not in result.err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bias-correction"], "ONNX files have no bias correction"),
        (["--keep-float", "nonsense"], "no such layers: nonsense"),
        (["--calibrate", "nowhere"], "there is nothing at nowhere"),
        (["--data", "nowhere"], "there is nothing at nowhere"),
    ],
)
def test_export_refuses_what_cannot_be_quantized_before_it_makes_fp32(run, keras_file, tmp_path, options, message):
    command = ["export", keras_file, "-f", "onnx", "-p", "fp32", "-p", "int8"]
    result = run(*command, *options, "-o", tmp_path / "out", "--json")
    assert result.code == 2 and message in result.document["error"]["message"]
    assert not (tmp_path / "out").exists()


def test_input_and_output_have_16_bits_only_where_it_is_asked_for(run, bundles, tmp_path):
    import onnx

    for name, options in {"usual": [], "half": ["--half-io"]}.items():
        result = run("quantize", bundles["onnx"], "-p", "fp16", "--no-speed", *options, "-o", tmp_path / name)
        assert result.code == 0, result.err
        bundle = tmp_path / name / "onnx-fp16"
        graph = onnx.load(bundle / "model.onnx").graph
        wanted = onnx.TensorProto.FLOAT16 if options else onnx.TensorProto.FLOAT
        for value in (graph.input[0], graph.output[0]):
            assert value.type.tensor_type.elem_type == wanted
        manifest = json.loads((bundle / "artifact.json").read_text())
        dtype = "float16" if options else "float32"
        assert manifest["input"]["dtype"] == manifest["output"]["dtype"] == dtype
        assert run("verify", bundle).code == 0
    snippet = run("inspect", tmp_path / "half" / "onnx-fp16", "--snippet").out
    assert "np.float16" in snippet
    refused = run("quantize", bundles["onnx"], "-p", "int8", "--half-io", "-o", tmp_path / "no")
    assert refused.code == 2 and "--half-io is for ONNX files in fp16" in refused.err


def test_what_fails_is_told_the_others_are_there_and_the_exit_code_is_2(run, bundles, tmp_path, monkeypatch):
    from vit_deploy.errors import EngineError
    from vit_deploy.exporters.tflite.quantize import TFLiteQuantizer

    whole = TFLiteQuantizer.write

    def write(self, source, target, recipe, calibration):
        if recipe.precision == "int4":
            raise EngineError("no kernels for this", fix="take another precision")
        return whole(self, source, target, recipe, calibration)

    monkeypatch.setattr(TFLiteQuantizer, "write", write)
    command = ["quantize", bundles["tflite"], "-p", "int4", "-p", "int8", "--no-speed", "-o"]
    result = run(*command, tmp_path / "json", "--json")
    said = {"type": "EngineError", "message": "no kernels for this", "fix": "take another precision"}
    assert result.code == 2 and not result.document["ok"] and result.document["error"] == said
    assert [record["precision"] for record in result.document["results"]] == ["int8"]
    assert result.document["failed"] == [
        {"artifact": "tflite-int4", "format": "tflite", "precision": "int4", "error": said}
    ]
    quiet = run(*command, tmp_path / "quiet", "-q")
    assert quiet.code == 2 and "tflite-int8" in quiet.out
    assert "tflite-int4 could not be made: no kernels for this\n  fix: take another precision" in quiet.err


def test_however_quiet_a_failed_proof_says_why_and_names_no_folder_that_is_gone(run, bundles, tmp_path, monkeypatch):
    from vit_deploy.exporters import publish

    whole = publish.verify

    def verify(artifact, **options):
        proof = whole(artifact, **options)
        return dataclasses.replace(proof, parity=proof.parity.failed("it is another function"))

    monkeypatch.setattr(publish, "verify", verify)
    result = run("quantize", bundles["tflite"], "-p", "int8", "--no-speed", "-o", tmp_path / "out", "-q")
    assert result.code == 1
    assert "tflite-int8 failed its proof and is not published: it is another function" in result.err
    assert ".vit-deploy" not in result.out + result.err and str(tmp_path) not in result.out
    kept = run("quantize", bundles["tflite"], "-p", "int8", "--no-speed", "-o", tmp_path / "out", "--keep-failed")
    assert str(tmp_path / "out" / "tflite-int8.failed") in kept.out


def test_a_budget_is_told_with_what_the_published_file_reaches(run, bundles, labelled, tmp_path):
    command = ["quantize", bundles["tflite"], "-p", "int8", "--max-drop", "50", "--data", labelled, "--no-speed", "-o"]
    (record,) = run(*command, tmp_path / "json", "--json").document["results"]
    budget, facts = record["budget"], record["facts"]
    assert (budget["max_drop"], budget["min_cosine"], budget["images"]) == (50, None, 12)
    assert budget["reached"] == pytest.approx(100 * (facts["fp32_top1"] - facts["top1"]))
    said = run(*command, tmp_path / "said")
    assert f"tflite-int8 loses {budget['reached']:.2f} points of top-1 on 12 labelled images, of 50 allowed" in said.err


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_calibration_images_scaled_otherwise_than_the_model_takes_them_are_refused(run, bundles, tmp_path, format):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 24, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "scaled.npz", images=pixels.astype(np.float32) / 255)
    command = ["quantize", bundles[format], "-p", "int8-static", "--no-speed", "-o", tmp_path / "out", "--calibrate"]
    refused = run(*command, tmp_path / "scaled.npz")
    assert refused.code == 2 and "as if only scaled to 0..1; normalised ones are from -1 to 1" in refused.err
    assert "fix: give uint8 pixels 0..255" in refused.err and not (tmp_path / "out").exists()
    np.savez(tmp_path / "pixels.npz", images=pixels)
    assert run(*command, tmp_path / "pixels.npz").code == 0


@pytest.mark.parametrize(
    ("change", "message"),
    {
        "floats": (
            lambda each: each.astype(np.float32) / 255,
            "expected uint8 pixels 0..255, not yet norm",
        ),
        "channels first": (lambda each: each.transpose(0, 3, 1, 2), "fix: save them with their channels last"),
        "size": (lambda each: each[:, 1:], "has images of 23x32x3"),
    }.values(),
)
@pytest.mark.parametrize("command", ["quantize", "evaluate", "compress"])
def test_labelled_arrays_of_another_kind_are_refused(run, bundles, keras_file, tmp_path, command, change, message):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 24, 32, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=change(pixels), labels=np.arange(9) % 2)
    arguments = {
        "quantize": ["quantize", bundles["tflite"], "-p", "int8", "--max-drop", "1", "-o", tmp_path / "out"],
        "evaluate": ["evaluate", bundles["onnx"]],
        "compress": ["compress", keras_file, "--method", "prune", "-o", tmp_path / "out.keras"],
    }
    said = run(*arguments[command], "--data", tmp_path / "data.npz")
    assert said.code == 2 and message in said.err


def test_the_check_of_batches_says_what_answers_owe_to_the_batch(run, bundles, tmp_path):
    assert run("quantize", bundles["onnx"], "-p", "int8", "-p", "fp16", "--no-speed", "-o", tmp_path).code == 0
    result = run("verify", tmp_path / "onnx-int8", bundles["onnx"], "--json")
    assert result.code == 0
    int8, fp32 = (
        {check["name"]: check["message"] for check in record["checks"] if check["name"].startswith("batch of")}
        for record in result.document["results"]
    )
    assert "an image's answer depends on the others of its batch, by up to" in int8["batch of 7"]
    assert "of 7 have another first class than alone" in int8["batch of 7"]
    assert set(fp32.values()) == {""}
    assert "batch of 7: allowed, but an image's answer depends on" in run("verify", tmp_path / "onnx-int8").err


def test_precisions_may_be_joined_by_commas(run, bundles, tmp_path):
    result = run("quantize", bundles["tflite"], "-p", "int8,fp16", "--no-speed", "-o", tmp_path / "out", "--json")
    assert result.code == 0
    assert [record["precision"] for record in result.document["results"]] == ["int8", "fp16"]


def test_formats_may_be_joined_by_commas(run, keras_file, tmp_path):
    result = run("export", keras_file, "-f", "onnx,tflite", "-p", "fp32,fp16", "--no-speed", "-o", tmp_path, "--json")
    assert result.code == 0
    names = [f"{record['format']}-{record['precision']}" for record in result.document["results"]]
    assert sorted(names) == ["onnx-fp16", "onnx-fp32", "tflite-fp16", "tflite-fp32"]


def test_a_precision_that_the_format_lacks_is_skipped_and_the_others_are_made(run, bundles, tmp_path):
    result = run("quantize", bundles["onnx"], "-p", "int8,int8-full", "--no-speed", "-o", tmp_path / "out", "--json")
    assert result.code == 0
    assert [record["precision"] for record in result.document["results"]] == ["int8"]
    assert result.document["skipped"] == ["onnx-int8-full: of int8-full there are TFLite files alone"]
    for asked, said in {"int8-full": "onnx cannot be quantized to 'int8-full'", "int8,int9": "to 'int9'"}.items():
        refused = run("quantize", bundles["onnx"], "-p", asked, "-o", tmp_path / "new")
        assert refused.code == 2 and said in refused.err and not (tmp_path / "new").exists()


def test_options_for_other_precisions_are_said_to_do_nothing_for_fp32(run, keras_file, tmp_path):
    options = ["--calibrate", "photos", "--keep-float", "head"]
    result = run("export", keras_file, "-f", "tflite", *options, "-o", tmp_path / "out")
    assert result.code == 0
    assert "not used: --calibrate and --keep-float, for files in fp32 are made without" in result.err
    assert "not used" not in run("export", keras_file, "-f", "tflite", "--no-speed", "-o", tmp_path / "plain").err
