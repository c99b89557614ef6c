from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

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
    assert {each["actual"] for each in said["confusions"]} <= {"ash", "beech", "cedar", "date", "elm"}
    refused = run("evaluate", bundles["onnx"], *stated, "--data", data)
    assert refused.code == 2 and "artifacts record their own" in refused.err
