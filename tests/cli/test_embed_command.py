"""The command `embed`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.linear_bundle import write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "onnx-fp32")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for place in range(3):
        Image.fromarray(np.full((9, 8, 3), 40 * place, np.uint8)).save(tmp_path / "photos" / f"{place}.png")
    return tmp_path / "photos"


def test_a_document_says_what_was_written(run, bundle, photos, tmp_path):
    found = run("embed", bundle, "--data", photos, "-o", tmp_path / "f.npy", "--workers", 0, "--json")
    assert found.code == 0, found.err
    [result] = found.document["results"]
    assert result["images"] == 3 and result["broken"] == result["resumed"] == 0 and result["failures"] == []
    assert result["path"] == str(tmp_path / "f.npy") and result["runtime"] == "onnxruntime"
    assert result["seconds"] > 0 and result["throughput_per_s"] > 0


def test_broken_images_are_named_and_exit_1(run, bundle, photos, tmp_path):
    (photos / "1.png").write_bytes(b"broken")
    found = run("embed", bundle, "--data", photos, "-o", tmp_path / "f.npy", "--workers", 0)
    assert found.code == 1
    assert "broken: " in found.err and "1.png is no image that can be read" in found.err
    assert "f.npy" in found.out and "onnxruntime (cpu)" in found.out
    assert np.isnan(np.load(tmp_path / "f.npy")).all(axis=1).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "{photos}", "-o", "f.txt"], "the file to write is 'f.txt'"),
        (["--data", "{photos}/absent", "-o", "{tmp}/f.npy"], "there is nothing at"),
        (["--data", "{photos}", "--column", "x", "-o", "{tmp}/f.npy"], "--column names a column of Parquet files"),
        (["--data", "{photos}", "--top", "2", "-o", "{tmp}/f.npy"], "an .npy has room for one array"),
        (["-o", "{tmp}/f.npy"], "--data"),
        (["--data", "{photos}", "--output", "logit", "-o", "{tmp}/f.npy"], "did you mean 'logits'? it gives logits"),
        (["--data", "{photos}", "--top", "2", "--output", "logits", "-o", "{tmp}/f.parquet"], "leave out --top or"),
    ],
)
def test_what_cannot_be_is_exit_2_and_leaves_nothing(run, bundle, photos, tmp_path, arguments, said):
    given = [argument.format(photos=photos, tmp=tmp_path) for argument in arguments]
    found = run("embed", bundle, *given, "--workers", 0)
    assert found.code == 2 and said in found.err
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_file_for_a_fixed_batch_takes_its_own(run, photos, tmp_path):
    fixed = write_bundle(tmp_path / "fixed", batch=2)
    refused = run("embed", fixed, "--data", photos, "--batch", 3, "-o", tmp_path / "f.npy")
    assert refused.code == 2 and "--batch is 3" in refused.err and "takes 2" in refused.err
    assert run("embed", fixed, "--data", photos, "-o", tmp_path / "f.npy", "--workers", 0).code == 0
    assert len(np.load(tmp_path / "f.npy")) == 3
