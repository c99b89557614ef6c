from __future__ import annotations

import shutil
from xml.etree import ElementTree

import pytest
from PIL import Image
from test_export import damage

import vit_deploy
from vit_deploy import checkpoints
from vit_deploy.core.manifest import read_artifact, write_manifest
from vit_deploy.core.registry import Plugin
from vit_deploy.core.synthetic_images import natural_pixels
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
    assert [(result["artifact"], result["runtime"]) for result in document["results"]] == expected
    for result in document["results"]:
        assert {"artifact", "runtime", "ok", "metrics", "tolerance", "failures"} <= set(result)
        assert set(result["metrics"]) >= METRICS and result["ok"] and result["failures"] == []
        assert None not in result["metrics"].values()
        assert result["metrics"]["top1_agreement"] == 1.0


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
    assert (
        result.code == 2
        and "litert does not run" in result.err
        and "fix: take onnxruntime or openvino or qnn or web" in result.err
    )


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


def test_reports_are_written_and_replace_those_of_an_earlier_run_alone(run, bundles, tmp_path):
    files = ("--junit", tmp_path / "verify.xml", "--markdown", tmp_path / "verify.md")
    assert run("verify", bundles["onnx"], "--quick", *files).code == 0
    root = ElementTree.parse(tmp_path / "verify.xml").getroot()
    assert root.tag == "testsuites" and root.get("failures") == "0"
    assert (tmp_path / "verify.md").read_text(encoding="utf-8").startswith("### vit-deploy verify: 1 of 1")
    assert run("verify", bundles["onnx"], bundles["tflite"], "--quick", *files).code == 0
    assert (tmp_path / "verify.md").read_text(encoding="utf-8").startswith("### vit-deploy verify: 2 of 2")
    assert len(ElementTree.parse(tmp_path / "verify.xml").getroot()) == 2
    (tmp_path / "verify.md").write_text("# What I wrote myself\n", encoding="utf-8")
    refused = run("verify", bundles["onnx"], "--quick", *files)
    assert refused.code == 2 and "already there" in refused.err and "verify.md" in refused.err
    assert "verify.xml" not in refused.err
    assert run("verify", bundles["onnx"], "--quick", *files, "--force").code == 0


def test_github_gets_annotations_on_stderr_and_the_summary_of_the_job(run, bundles, tmp_path, monkeypatch):
    summary = tmp_path / "summary.md"
    summary.write_text("before\n", encoding="utf-8")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    result = run("verify", bundles["onnx"], "--quick", "--github", "--json")
    assert result.document["ok"] and "::notice title=" in result.err
    assert summary.read_text(encoding="utf-8").startswith("before\n### vit-deploy verify: 1 of 1")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "absent" / "summary.md"))
    refused = run("verify", bundles["onnx"], "--quick", "--github")
    assert refused.code == 2 and "cannot append to" in refused.err and "GITHUB_STEP_SUMMARY" in refused.err


def test_a_stricter_tolerance_fails_and_is_shown_beside_its_figure(run, bundles):
    result = run("verify", bundles["onnx"], "--tolerance", "max_abs=1e-12", "--tolerance", "kl=0.5", "--json")
    [record] = result.document["results"]
    assert result.code == 1 and record["tolerance"] == {"max_abs": 1e-12, "kl": 0.5}
    shown = run("verify", bundles["onnx"], "--quick", "--tolerance", "max_abs=1e-12")
    assert shown.code == 1 and "1.0e-12" in shown.out and "DIFFERENT" in shown.out
    both = run("verify", bundles["onnx"], "--quick", "--tolerance", "top1_agreement=0.5")
    assert both.code == 0 and "(≤ " in both.err and "top1_agreement 100% (≥ 50%)" in both.err


def test_a_table_in_pyproject_counts_where_it_is(run, bundles, tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").write_text("[tool.vit-deploy.verify]\nmax_abs = 1e-12\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert run("verify", bundles["onnx"], "--quick").code == 1
    assert run("verify", bundles["onnx"], "--quick", "--tolerance", "max_abs=1e-3").code == 0
    (tmp_path / "pyproject.toml").write_text("[tool.vit-deploy.verify]\nmaxabs = 1e-12\n", encoding="utf-8")
    refused = run("verify", bundles["onnx"], "--quick")
    assert refused.code == 2 and "no such metric: maxabs" in refused.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images", "."], "--images needs --against"),
        (["--tolerance", "1e-4"], "--tolerance is '1e-4'"),
        (["--tolerance", "max_abs=none"], "no metric of fp32 is held"),
        (
            ["--tolerance", "max_abs=none", "--tolerance", "token_cosine=0.9"],
            "token_cosine cannot be taken of the logits",
        ),
        (["--tolerance", "max_abs=-1"], "max_abs = -1, and it lies between 0 and inf"),
        (["--threads", "0"], "--threads is '0'"),
        (["--threads", "99999999999"], "expected numbers up to 1024"),
        (["--threads", "9" * 5000], "expected numbers up to 1024"),
        (["--junit", "both", "--markdown", "both"], "both name both"),
        (["--against", "no-such.keras"], "no-such.keras"),
        (["--provider", "cuda"], "no CUDAExecutionProvider"),
    ],
)
def test_options_that_cannot_be_are_exit_2(run, bundles, arguments, said):
    result = run("verify", bundles["onnx"], *arguments)
    assert result.code == 2 and said in result.err and "Traceback" not in result.err


def test_image_files_are_compared_with_the_checkpoint(run, bundles, keras_file, tmp_path):
    for index, pixels in enumerate(natural_pixels(3, 30, 50, 3, seed=2)):
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
    result = run("verify", bundles["onnx"], bundles["tflite"], "--against", keras_file, "--images", tmp_path, "--json")
    assert result.code == 0, result.err
    for record in result.document["results"]:
        assert record["ok"] and {"repeated run", "preprocessing"} < {check["name"] for check in record["checks"]}


def test_all_checks_are_in_the_document_unless_the_golden_images_are_enough(run, bundles):
    [record] = run("verify", bundles["onnx"], "--threads", "1,2", "--json").document["results"]
    names = [check["name"] for check in record["checks"]]
    assert names[0] == "repeated run" and names[-2:] == ["1 thread", "2 threads"] and len(names) == 12
    assert run("verify", bundles["onnx"], "--quick", "--json").document["results"][0]["checks"] == []


def test_one_image_is_inconclusive_and_says_to_give_others(run, bundles, keras_file, tmp_path):
    Image.fromarray(natural_pixels(1, 30, 50, 3, seed=2)[0]).save(tmp_path / "0.png")
    result = run("verify", bundles["onnx"], "--against", keras_file, "--images", tmp_path, "--quick")
    assert result.code == 1 and "INCONCLUSIVE" in result.out and "give images that are not all alike" in result.err


@pytest.mark.parametrize(
    ("changes", "tap", "said"),
    [
        ({"num_classes": 7}, "head", "leaves the reference at head, by Gemm head"),
        ({"embed_dim": 24}, "patch_embed", "leaves the reference at patch_embed, by Conv patch_embed"),
        ({"num_layers": 1}, None, "has 2 blocks and the reference 1"),
        ({"num_layers": 3}, None, "has 2 blocks and the reference 3"),
    ],
)
def test_another_kind_of_model_is_told_where_that_can_be_said(
    run, bundles, make_checkpoint, tmp_path, changes, tap, said
):
    path = tmp_path / "other.safetensors"
    checkpoints.save(make_checkpoint(**changes), path)
    result = run("verify", bundles["onnx"], "--against", path, "--locate", "--quick", "--json")
    assert result.code == 1 and said in result.err
    assert result.document["results"][0]["located"]["tap"] == tap


def test_models_of_other_channels_are_refused(run, bundles, make_checkpoint, tmp_path):
    path = tmp_path / "grey.safetensors"
    checkpoints.save(make_checkpoint(channels=1), path)
    result = run("verify", bundles["onnx"], "--against", path)
    assert result.code == 2 and f"takes images of 3 channels, and {path} of 1" in result.err


@pytest.mark.parametrize("like", ["google", "dinov2"])
def test_a_checkpoint_is_resized_as_the_artifact_was(run, make_checkpoint, tmp_path, like):
    checkpoints.save(make_checkpoint(), tmp_path / "model.safetensors")
    options = ("--image-size", "48x32", "--like", like, "-f", "onnx", "-o", tmp_path / "out", "-q")
    assert run("export", tmp_path / "model.safetensors", *options).code == 0
    result = run("verify", tmp_path / "out" / "onnx-fp32", "--against", tmp_path / "model.safetensors", "--quick")
    assert result.code == 0, result.out


def test_against_an_artifact_the_recorded_activations_are_compared_with_and_that_is_said(run, bundles):
    arguments = ("--against", bundles["tflite"], "--tolerance", "max_abs=1e-12", "--quick", "--locate")
    result = run("verify", bundles["onnx"], *arguments)
    assert result.code == 1 and "so its own are taken" in result.err
    assert "nothing leaves the reference on the first 2 images" in result.err


def test_however_quiet_a_failure_says_why(run, bundles):
    result = run("verify", bundles["onnx"], "--quick", "--tolerance", "max_abs=1e-12", "-q")
    assert result.code == 1
    assert "largest difference" in result.err and "is above the tolerance of 1e-12" in result.err


def without(monkeypatch, runtime):
    """The environment of a device that lacks an engine."""
    monkeypatch.setitem(RUNTIMES._plugins, runtime, Plugin("x:Y", extra=runtime, needs=("no_such_engine",)))


def test_what_an_engine_can_prove_is_proven_though_the_other_one_is_missing(run, bundles, monkeypatch, tmp_path):
    without(monkeypatch, "litert")
    report = tmp_path / "junit.xml"
    done = run("verify", bundles["tflite"], bundles["onnx"], "--quick", "--json", "--junit", report)
    (result,) = done.document["results"]
    assert done.code == 2 and result["artifact"] == str(bundles["onnx"]) and result["ok"] and not done.document["ok"]
    (gap,) = done.document["failed"]
    assert gap["artifact"] == str(bundles["tflite"]) and gap["error"]["type"] == "MissingEngineError"
    assert done.document["error"] == gap["error"] and f"{bundles['tflite']} was not proven" in done.err
    assert len(ElementTree.parse(report).getroot().findall(".//testcase")) == 2
    shown = run("verify", bundles["onnx"], bundles["tflite"], "--quick")
    assert shown.code == 2 and " same" in shown.out and "NOT RUN" in shown.out
