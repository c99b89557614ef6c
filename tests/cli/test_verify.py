from __future__ import annotations

import shutil

import pytest
from test_export import damage

import vit_deploy
from vit_deploy.artifact import read_artifact, write_manifest
from vit_deploy.plugins import Plugin
from vit_deploy.runtimes import RUNTIMES

RUNTIME = {"onnx": "onnxruntime", "tflite": "litert", "savedmodel": "savedmodel"}
METRICS = {"max_abs", "rms", "cosine", "snr_db", "top1_agreement", "top5_agreement", "kl"}


def test_all_formats_and_the_checkpoint_itself_compute_the_same_function(run, bundles, keras_file):
    result = run("verify", *bundles.values(), keras_file)
    assert result.code == 0 and result.out.count(" same") == 4
    for path in (*bundles.values(), keras_file):
        assert str(path) in result.out


def test_the_document_has_what_the_contract_says_for_each_artifact_in_order(run, bundles, keras_file):
    document = run("verify", *bundles.values(), keras_file, "--json").document
    assert document["ok"] and document["command"] == "verify"
    expected = [(str(path), RUNTIME[format]) for format, path in bundles.items()]
    expected.append((str(keras_file), "keras"))
    assert [(each["artifact"], each["runtime"]) for each in document["results"]] == expected
    for each in document["results"]:
        assert {"artifact", "runtime", "ok", "metrics", "tolerance", "failures"} <= set(each)
        assert set(each["metrics"]) >= METRICS and each["ok"] and each["failures"] == []
        assert None not in each["metrics"].values()
        assert each["metrics"]["top1_agreement"] == 1.0


@pytest.mark.parametrize("format", ["onnx", "tflite"])
def test_a_planted_weight_is_found_even_under_fresh_digests(run, bundles, make_checkpoint, tmp_path, format):
    copied = shutil.copytree(bundles[format], tmp_path / "planted")
    artifact = read_artifact(copied)
    damage(artifact.model_path, make_checkpoint())
    refused = run("verify", copied)
    assert refused.code == 2 and f"{artifact.model_path.name} has other content" in refused.err
    write_manifest(artifact)
    result = run("verify", copied, bundles["savedmodel"], "--json")
    assert result.code == 1 and not result.document["ok"]
    bad, good = result.document["results"]
    assert not bad["ok"] and good["ok"]
    assert bad["metrics"]["max_abs"] == pytest.approx(1e-3, rel=1e-2) and bad["worst_index"][1] == 2
    assert bad["failures"][0].startswith("largest difference 0.001 is above the tolerance of")
    shown = run("verify", copied)
    assert shown.code == 1 and "DIFFERENT" in shown.out and "largest difference" in shown.err


def test_a_damaged_bundle_is_exit_2_and_named(run, bundles, tmp_path):
    copied = shutil.copytree(bundles["onnx"], tmp_path / "cut")
    model = copied / "model.onnx"
    model.write_bytes(model.read_bytes()[:-100])
    result = run("verify", bundles["tflite"], copied, "--json")
    assert result.code == 2 and result.document["results"] == []
    assert result.document["error"]["type"] == "ArtifactError"
    assert (
        str(copied) in result.document["error"]["message"] and "model.onnx has" in result.document["error"]["message"]
    )


def test_a_runtime_of_another_format_is_refused(run, bundles):
    result = run("verify", bundles["onnx"], "--runtime", "litert")
    assert result.code == 2 and "litert does not run" in result.err and "fix: onnxruntime does" in result.err


def test_a_missing_runtime_is_exit_2_with_the_command_that_installs_it(run, bundles, monkeypatch):
    monkeypatch.setitem(RUNTIMES._plugins, "litert", Plugin("x:Y", extra="litert", needs=("no_such_engine",)))
    result = run("verify", bundles["tflite"])
    assert result.code == 2 and 'fix: pip install "vit-deploy[litert]"' in result.err


def test_a_checkpoint_that_is_not_there_is_exit_2(run):
    result = run("verify", "absent.keras")
    assert result.code == 2 and "absent.keras" in result.err


def test_a_model_saved_in_mixed_precision_is_proven_in_float32(run, tmp_path):
    sizes = {"embed_dim": 12, "num_heads": 3, "num_layers": 2, "mlp_dim": 20, "num_classes": 5}
    model = vit_deploy.ViT(input_shape=(24, 32, 3), patch_size=(8, 4), dtype="mixed_float16", **sizes)
    model.save(tmp_path / "mixed.keras")
    result = run("verify", tmp_path / "mixed.keras")
    assert result.code == 0, result.err
