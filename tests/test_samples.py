"""Every sample runs as it stands; the quick start is as good as it says."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_deploy.core.manifest import read_artifact

SAMPLES = Path(__file__).parent.parent / "samples"
BUNDLES = ("savedmodel-fp32", "onnx-fp32", "tflite-fp32")


def run(name, *arguments):
    command = [sys.executable, str(SAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=SAMPLES.parent, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def accuracies(printed):
    return {name: float(value) for name, value in re.findall(r"^(\S+-fp32) .*accuracy.* (\d\.\d{4})", printed, re.M)}


def test_every_numbered_sample_has_a_test():
    numbered = sorted(path.name for path in SAMPLES.glob("[0-9]*.py"))
    tested = Path(__file__).read_text(encoding="utf-8")
    assert len(numbered) >= 5
    assert [name for name in numbered if f'run("{name}"' not in tested] == []


@pytest.mark.slow
def test_the_blocks_of_a_vit_are_those_of_the_reference():
    differences = re.findall(r"^block_\d+  \(2, 13, 192\) .* (\S+)$", run("04_intermediate_features.py"), re.M)
    assert len(differences) == 6
    assert max(map(float, differences)) < 1e-5


@pytest.mark.slow
def test_the_quick_start_learns_the_digits_and_every_file_answers_alike(tmp_path):
    found = accuracies(run("01_quick_start.py", "-o", tmp_path))
    assert tuple(found) == BUNDLES
    assert min(found.values()) > 0.97
    assert max(found.values()) - min(found.values()) < 0.005
    assert read_artifact(tmp_path / "onnx-fp32").labels == tuple("0123456789")


@pytest.mark.slow
def test_features_of_all_engines_tell_apart_digits_that_were_never_seen(tmp_path):
    found = accuracies(run("02_features.py", "-o", tmp_path))
    assert tuple(found) == BUNDLES
    assert min(found.values()) > 0.8


@pytest.mark.slow
def test_a_fine_tuned_model_is_exported_as_one_vit(tmp_path):
    printed = run("03_fine_tune.py", "-o", tmp_path)
    assert accuracies(printed)["onnx-fp32"] > 0.9
    assert float(printed.split()[-1]) < 1e-4
    assert read_artifact(tmp_path / "onnx-fp32").config.num_classes == 5


@pytest.mark.slow
def test_tokens_and_attention_are_drawn_from_the_file_alone(tmp_path):
    printed = run("05_dense_features.py", "-o", tmp_path, "--epochs", "1")
    held = re.search(r"^map \(8, 8, 64\): three components hold (0\.\d+) of the variance$", printed, re.M)
    assert held and 0.2 < float(held[1]) < 1
    assert re.search(r"^block_1.attention \(4, 65, 65\): ([01]\.\d+) of the class token's attention", printed, re.M)
    shutil.move(tmp_path / "onnx-fp32" / "model.onnx", alone := tmp_path / "alone.onnx")
    run("05_dense_features.py", "--file", alone, tmp_path / "digit.png", "-o", tmp_path / "again")
    drawn, again = (np.asarray(Image.open(folder / "dense.png")) for folder in (tmp_path, tmp_path / "again"))
    assert drawn.shape == (256, 768, 3)
    np.testing.assert_array_equal(drawn, again)
    for start in (256, 512):  # colours of patches, then their attention
        assert np.ptp(drawn[:, start : start + 256].astype(int)) == 255
