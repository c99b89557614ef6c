from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import vit_deploy
from vit_deploy import checkpoints
from vit_deploy.core.reference import forward

CONTRACT = {"artifact", "top1", "top5", "agreement", "images"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.npz"
    rng = np.random.default_rng(5)
    np.savez(path, images=rng.integers(0, 256, (6, 24, 32, 3), np.uint8), labels=rng.integers(0, 5, 6))
    return path


def test_bundles_and_keras_files_are_evaluated_side_by_side(run, bundles, keras_file, data):
    result = run("evaluate", bundles["onnx"], bundles["tflite"], keras_file, "--data", data, "--json")
    assert result.code == 0, result.err
    found = result.document["results"]
    assert [each["artifact"] for each in found] == [str(bundles["onnx"]), str(bundles["tflite"]), str(keras_file)]
    for each in found:
        assert set(each) >= CONTRACT
        assert each["images"] == 6 and each["agreement"] == 1 and each["top5"] == 1
        assert 0 <= each["top1"] <= 1 and each["reference"] == str(bundles["onnx"])


def test_a_single_artifact_agrees_with_none_and_says_so(run, bundles, data):
    (each,) = run("evaluate", bundles["onnx"], "--data", data, "--json").document["results"]
    assert each["agreement"] is None and each["failures"] == ["agreement needs a second artifact to agree with"]


def test_people_get_a_table_and_the_worst_confusions(run, bundles, data):
    result = run("evaluate", bundles["onnx"], "--data", data)
    assert result.code == 0
    assert "top-1" in result.out and "onnxruntime (cpu)" in result.out and "%" in result.out
    assert "taken for" in result.err


@pytest.mark.slow
def test_confusions_come_after_the_table_the_most_frequent_first_and_at_most_ten(bundles, tmp_path):
    rng = np.random.default_rng(8)
    np.savez(tmp_path / "data.npz", images=rng.integers(0, 256, (40, 24, 32, 3), np.uint8), labels=np.arange(40) % 5)
    models = [bundles[name] for name in ("onnx", "tflite", "savedmodel")]
    command = [sys.executable, "-m", "vit_deploy", "evaluate", *models, "--data", tmp_path / "data.npz"]
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    confused = [index for index, line in enumerate(lines) if " taken for " in line]
    table = [index for index, line in enumerate(lines) if "onnxruntime (cpu)" in line]
    assert table and table[0] < confused[0] and len(confused) == 10
    counts = [int(lines[index].partition(": ")[2].split()[0]) for index in confused]
    assert counts == sorted(counts, reverse=True)
    assert "rarer confusions, which --json has" in done.stdout


def test_who_is_agreed_with_is_said(run, bundles, data, tmp_path):
    assert run("quantize", bundles["onnx"], "-p", "fp16", "-p", "int8", "--no-speed", "-o", tmp_path).code == 0
    fp16, int8 = tmp_path / "onnx-fp16", tmp_path / "onnx-int8"
    result = run("evaluate", int8, bundles["onnx"], "--data", data)
    assert "as onnx-fp32" in result.out and "none of them" not in result.err
    result = run("evaluate", int8, fp16, "--data", data)
    assert "as onnx-int8" in result.out and f"none of them is fp32: agreement is with {int8}" in result.err


def test_the_order_of_folders_is_printed_where_it_counts(run, bundles, tmp_path):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(6)
    for name in ("e", "d", "c", "b", "a"):
        (tmp_path / name).mkdir()
        image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / name / "1.png")
    result = run("evaluate", bundles["onnx"], "--data", tmp_path)
    assert result.code == 0, result.err
    assert "in sorted order, since they are not the recorded labels: 0 a, 1 b, 2 c, 3 d, 4 e" in result.err
    (told,) = run("evaluate", bundles["onnx"], "--data", tmp_path, "--json").document["results"]
    assert told["folders"] == {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4} and told["folders_by"] == "order"
    made = run("quantize", bundles["onnx"], "-p", "int8", "--no-speed", "--data", tmp_path, "-o", tmp_path / ".made")
    assert made.code == 0 and "in sorted order, since they are not the recorded labels: 0 a, 1 b" in made.err
    (tmp_path / "f").mkdir()
    wrong = run("evaluate", bundles["onnx"], "--data", tmp_path, "--json")
    assert wrong.code == 2 and "has 6 class folders" in wrong.document["error"]["message"]


def test_data_that_are_not_there_are_exit_2(run, bundles, tmp_path):
    result = run("evaluate", bundles["onnx"], "--data", tmp_path / "absent")
    assert result.code == 2 and "there is nothing at" in result.err and result.out == ""


def test_what_a_keras_file_does_not_say_of_its_pixels_and_classes_can_be_stated(
    run, bundles, keras_file, data, tmp_path
):
    (tmp_path / "names.txt").write_text("ash\nbeech\ncedar\ndate\nelm\n")
    stated = ["--mean", "0.1,0.2,0.3", "--std", "0.9", "--labels", tmp_path / "names.txt"]
    converted = tmp_path / "stated.keras"
    assert run("convert", keras_file, *stated, "-o", converted).code == 0
    [recorded] = run("evaluate", converted, "--data", data, "--json").document["results"]
    [said] = run("evaluate", keras_file, *stated, "--data", data, "--json").document["results"]
    assert said["confusions"] == recorded["confusions"] and said["top1"] == recorded["top1"]
    assert {confusion["actual"] for confusion in said["confusions"]} <= {"ash", "beech", "cedar", "date", "elm"}
    refused = run("evaluate", bundles["onnx"], *stated, "--data", data)
    assert refused.code == 2 and "artifacts record their own" in refused.err


def other_answers(checkpoint, data):
    """Logits of the checkpoint, in NumPy, for the images of an `.npz`, and their classes."""
    with np.load(data) as arrays:
        return forward(checkpoint, checkpoint.preprocess.normalize(arrays["images"])), arrays["labels"]


def test_agreement_with_a_checkpoint_stands_beside_that_with_fp32(run, bundles, make_checkpoint, data, tmp_path):
    same = make_checkpoint()
    other = dataclasses.replace(
        same, preprocess=dataclasses.replace(same.preprocess, mean=(0.9, 0.0, 0.5), std=(0.05,) * 3)
    )
    checkpoints.save(other, tmp_path / "other.safetensors")
    given = [
        "evaluate",
        bundles["onnx"],
        bundles["tflite"],
        "--data",
        data,
        "--against",
        tmp_path / "other.safetensors",
    ]
    result = run(*given, "--json")
    assert result.code == 0, result.err
    expected, labels = other_answers(other, data)
    outputs, _ = other_answers(make_checkpoint(), data)
    first, others_first = outputs.argmax(axis=-1), expected.argmax(axis=-1)
    p, q = (np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True) for logits in (expected, outputs))
    for record in result.document["results"]:
        assert record["agreement"] == 1
        assert record["against"]["model"] == str(tmp_path / "other.safetensors")
        assert record["against"]["runtime"] == "numpy"
        assert record["against"]["top1_agreement"] == pytest.approx(np.mean(first == others_first))
        assert record["against"]["top5_agreement"] == 1  # of five classes
        assert record["against"]["mean_kl"] == pytest.approx((p * np.log(p / q)).sum(axis=-1).mean(), rel=1e-4)
        assert record["against"]["top1"] == pytest.approx(np.mean(others_first == labels))
    assert 0 < record["against"]["top1_agreement"] < 1
    assert [sentence["checkpoint"] for sentence in result.document["assumed"]] in (
        [],
        [str(tmp_path / "other.safetensors")],
    )
    shown = run(*given)
    assert "same top-1" in shown.out and "as onnx-fp32" in shown.out
    assert f"compared with {tmp_path / 'other.safetensors'} in numpy, whose own top-1 is" in shown.err


def test_an_artifact_agrees_with_the_checkpoint_it_was_made_of(run, bundles, keras_file, data, tmp_path):
    for other in (keras_file, bundles["tflite"]):
        result = run("evaluate", bundles["onnx"], "--data", data, "--against", other, "--json")
        assert result.code == 0, result.err
        [each] = result.document["results"]
        assert (each["against"]["top1_agreement"], each["against"]["top5_agreement"]) == (1, 1)
        assert each["against"]["mean_kl"] < 1e-9 and each["agreement"] is None
    shown = run("evaluate", bundles["onnx"], "--data", data, "--against", keras_file)
    assert "needs a second artifact" not in shown.err


def test_what_cannot_be_compared_is_refused(run, bundles, make_checkpoint, data, tmp_path):
    def refused(*given):
        result = run("evaluate", bundles["onnx"], "--data", data, *given)
        assert result.code == 2 and result.out == "" and "Traceback" not in result.err
        return " ".join(result.err.split())

    checkpoints.save(make_checkpoint(num_classes=4), tmp_path / "four.safetensors")
    checkpoints.save(make_checkpoint(include_top=False), tmp_path / "features.safetensors")
    checkpoints.save(make_checkpoint(image_size=(32, 32)), tmp_path / "square.safetensors")
    said = refused("--against", tmp_path / "four.safetensors")
    assert "has 5 classes" in said and "four.safetensors 4" in said
    assert "has no head" in refused("--against", tmp_path / "features.safetensors")
    assert "takes 32x32x3" in refused("--against", tmp_path / "square.safetensors")
    assert "absent" in refused("--against", tmp_path / "absent.pth")
    assert "can be stated of a checkpoint" in refused("--against", bundles["tflite"], "--mean", "0.4")
    assert "another machine" in refused("--against", bundles["tflite"], "--on", "ssh://nobody@127.0.0.1:1")
    assert "artifacts record their own" in refused("--num-heads", "2")


def test_what_a_checkpoint_does_not_say_can_be_stated_of_the_one_to_compare_with(
    run, bundles, make_checkpoint, data, tmp_path
):
    checkpoints.save(make_checkpoint(), tmp_path / "same.safetensors")
    given = ["evaluate", bundles["onnx"], "--data", data, "--against", tmp_path / "same.safetensors", "--json"]
    [said] = run(*given, "--mean", "0.9,0.1,0.5", "--std", "0.1").document["results"]
    assert said["against"]["mean_kl"] > 1e-6


def test_images_without_numbers_agree_with_nothing(bundles, data, monkeypatch):
    from vit_deploy.runtimes.ort.sessions import OnnxSession

    infer = OnnxSession.infer

    def spoilt(self, images):
        outputs = infer(self, images).copy()
        outputs[0] = np.nan
        return outputs

    monkeypatch.setattr(OnnxSession, "infer", spoilt)
    found = vit_deploy.evaluate(bundles["tflite"], data, against=bundles["onnx"])
    other = found.result.against
    assert not found.ok and other.top1 == other.top5 == pytest.approx(5 / 6) and other.kl < 1e-9
    assert other.failures == (f"the outputs of {bundles['onnx']} for 1 of 6 images are NaN or infinite",)
    found = vit_deploy.evaluate(bundles["onnx"], data, against=bundles["tflite"])
    assert found.result.against.top1 == pytest.approx(5 / 6) and found.result.against.failures == ()
