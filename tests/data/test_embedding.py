"""Features of many images: in order, whole or not at all, and gone on with where a run was ended."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

import vit_deploy
from tests.data.photos import BROKEN, COUNT, Killed, embed, expected
from tests.linear_bundle import CLASSES
from vit_deploy.core.staging import only_run
from vit_deploy.data import embedding
from vit_deploy.errors import DataError, OutputError, UsageError


def test_vectors_are_the_sessions_in_order_and_broken_images_are_rows(bundle, photos, tmp_path):
    found = embed(bundle, photos, tmp_path / "f.npy")
    vectors = np.load(tmp_path / "f.npy", mmap_mode="r")
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected(bundle, photos), rtol=1e-5, atol=1e-5)
    lines = [json.loads(line) for line in (tmp_path / "f.jsonl").read_text().splitlines()]
    assert [line["name"] for line in lines] == [f"{place:03}.png" for place in range(COUNT)]
    assert [place for place, line in enumerate(lines) if "failure" in line] == list(BROKEN)
    assert len({line["digest"] for line in lines}) == COUNT - 1, "both broken ones have the same bytes"
    assert not found.ok and found.result.broken == 2 and found.result.images == COUNT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.jsonl", "f.npy", "photos"]


def test_workers_and_streams_change_no_byte(bundle, photos, tmp_path):
    embed(bundle, photos, tmp_path / "a.npy", streams=1)
    embed(bundle, photos, tmp_path / "b.npy", workers=2, streams=3)
    assert (tmp_path / "a.npy").read_bytes() == (tmp_path / "b.npy").read_bytes()
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


@pytest.mark.parametrize("top", [None, 3])
def test_parquet_holds_the_same_and_classes_where_they_are_asked_for(bundle, photos, tmp_path, top):
    pq = pytest.importorskip("pyarrow.parquet")
    embed(bundle, photos, tmp_path / "f.parquet", top=top)
    table = pq.read_table(tmp_path / "f.parquet").to_pydict()
    vectors = expected(bundle, photos)
    assert [place for place, failure in enumerate(table["failure"]) if failure] == list(BROKEN)
    for place in range(COUNT):
        if place in BROKEN:
            assert table["vector" if top is None else "class"][place] is None
        elif top is None:
            np.testing.assert_allclose(table["vector"][place], vectors[place], rtol=1e-5, atol=1e-5)
        else:
            assert table["class"][place] == np.argsort(-vectors[place])[:top].tolist()
            assert 0 < sum(table["probability"][place]) <= 1.00001


@pytest.mark.parametrize("top", [None, 2])
def test_a_batch_of_broken_images_alone_is_rows_too(bundle, photos, tmp_path, top):
    pq = pytest.importorskip("pyarrow.parquet")
    for place in range(8, 16):
        (photos / f"{place:03}.png").write_bytes(b"broken")
    found = embed(bundle, photos, tmp_path / "f.parquet", top=top)
    assert found.result.images == COUNT and found.result.broken == 10
    failed = [bool(failure) for failure in pq.read_table(tmp_path / "f.parquet")["failure"].to_pylist()]
    assert failed == [place in (*BROKEN, *range(8, 16)) for place in range(COUNT)]


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_no_unicode_are_escaped_where_they_fail_too(bundle, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"broken")
    embed(bundle, tmp_path / "photos", tmp_path / "f.parquet")
    [row] = pq.read_table(tmp_path / "f.parquet").to_pylist()
    assert row["name"] == "caf\\xe9.png" and "caf\\xe9.png is no image" in row["failure"]


def test_two_runs_do_not_write_the_same(bundle, photos, tmp_path):
    pytest.importorskip("fcntl")
    (tmp_path / "f.npy.parts").mkdir()
    with only_run(tmp_path / "f.npy.parts"), pytest.raises(OutputError, match="another run is writing"):
        embed(bundle, photos, tmp_path / "f.npy")


def test_a_full_disk_is_said_and_what_was_kept_stays(bundle, photos, tmp_path, counted, monkeypatch):
    save = np.savez

    def full(file, **arrays):
        if len(counted) > 16:
            raise OSError(errno.ENOSPC, "no space")
        save(file, **arrays)

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OutputError, match="no space left"):
        embed(bundle, photos, tmp_path / "f.npy", streams=1)
    monkeypatch.setattr(np, "savez", save)
    assert embed(bundle, photos, tmp_path / "f.npy").result.resumed == 16


def test_nothing_is_left_of_a_run_that_finished_nothing(bundle, photos, tmp_path, monkeypatch):
    def ended(self, session, names, images):
        raise Killed

    monkeypatch.setattr(embedding.Model, "_batch", ended)
    with pytest.raises(Killed):
        embed(bundle, photos, tmp_path / "new" / "f.npy")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DataError, match="there are no images"):
        embed(bundle, tmp_path / "empty.txt", tmp_path / "new" / "f.npy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.txt", "photos"]


def test_what_cannot_be_written_is_refused_before_any_work(bundle, photos, tmp_path, counted):
    (tmp_path / "f.jsonl").write_text("mine")
    with pytest.raises(OutputError, match=r"already there: .*f\.jsonl"):
        embed(bundle, photos, tmp_path / "f.npy")
    with pytest.raises(UsageError, match=r"expected a name that ends in \.npy, \.parquet"):
        embed(bundle, photos, tmp_path / "f.csv")
    with pytest.raises(UsageError, match="--top"):
        embed(bundle, photos, tmp_path / "g.npy", top=2)
    assert not counted and sorted(path.name for path in tmp_path.iterdir()) == ["f.jsonl", "photos"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder that takes none")
def test_a_place_that_takes_no_folder_is_said(bundle, photos):
    with pytest.raises(OutputError, match="no folder can be made beside"):
        embed(bundle, photos, Path("/proc/f.npy"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_named_and_is_no_file_is_a_broken_image_that_nobody_waits_for(bundle, photos, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    found = embed(bundle, [tmp_path / "pipe.png", photos / "001.png"], tmp_path / "f.npy")
    assert found.result.images == 2 and found.result.failures == (
        f"{tmp_path / 'pipe.png'} is no image: no file at all",
    )
    (tmp_path / "list.txt").write_text("pipe.png\nphotos/001.png\n")
    first, second = vit_deploy.predict(bundle, [tmp_path / "list.txt"], workers=0)
    assert first.failure and second.top


def test_outputs_that_are_no_numbers_are_told(bundle, photos, tmp_path, monkeypatch):
    infer = embedding.Model._batch

    class Broken:
        def infer(self, images):
            return np.full((len(images), CLASSES), np.nan, np.float32)

    monkeypatch.setattr(embedding.Model, "_batch", lambda self, session, *given: infer(self, Broken(), *given))
    found = embed(bundle, photos, tmp_path / "f.npy")
    assert found.result.broken == COUNT
    assert f"the model answered {CLASSES} values that are NaN or infinite" in found.result.failures
