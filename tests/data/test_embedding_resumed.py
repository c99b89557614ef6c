"""Runs over many images that were ended anywhere: they go on to the same bytes, or say why they cannot."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.data.photos import COUNT, Killed, embed
from tests.linear_bundle import write_bundle
from vit_deploy.data import embedding
from vit_deploy.errors import DataError, OutputError


@pytest.mark.parametrize("most", [4, 8, 24, 28])
def test_a_run_that_is_ended_goes_on_without_doing_work_twice_to_the_same_bytes(
    bundle, photos, tmp_path, counted, most
):
    embed(bundle, photos, tmp_path / "whole.npy")
    del counted[:]
    counted.most = most
    with pytest.raises(Killed):
        embed(bundle, photos, tmp_path / "f.npy", streams=1)
    assert not (tmp_path / "f.npy").exists()
    kept = most - most % 8  # groups of two batches
    counted.most = 1000
    del counted[:]
    found = embed(bundle, photos, tmp_path / "f.npy", streams=2)
    assert found.result.resumed == kept and found.result.images == COUNT and found.result.broken == 2
    assert sorted(counted) == [f"{place:03}.png" for place in range(kept, COUNT)]
    assert (tmp_path / "f.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert (tmp_path / "f.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not list(tmp_path.glob("*.parts"))


def test_a_run_that_was_ended_while_it_wrote_only_writes(bundle, photos, tmp_path, counted, monkeypatch):
    written = embedding._written

    def ended(*given, **options):
        raise Killed

    monkeypatch.setattr(embedding, "_written", ended)
    with pytest.raises(Killed):
        embed(bundle, photos, tmp_path / "f.npy")
    monkeypatch.setattr(embedding, "_written", written)
    del counted[:]
    assert embed(bundle, photos, tmp_path / "f.npy").result.resumed == COUNT and not counted
    assert len(np.load(tmp_path / "f.npy")) == COUNT


def test_an_interrupt_keeps_what_is_computed(bundle, photos, tmp_path, monkeypatch):
    rows = embedding.Model.rows

    def interrupted(self, session, items, images):
        if items[0].name == "016.png":
            raise KeyboardInterrupt
        return rows(self, session, items, images)

    monkeypatch.setattr(embedding.Model, "rows", interrupted)
    said = []
    with pytest.raises(KeyboardInterrupt):
        embed(bundle, photos, tmp_path / "f.npy", streams=1, note=said.append)
    assert said == [f"{tmp_path / 'f.npy'}.parts keeps 16 finished images, and the same command goes on from there"]
    monkeypatch.setattr(embedding.Model, "rows", rows)
    said = []
    assert embed(bundle, photos, tmp_path / "f.npy", note=said.append).result.resumed == 16
    assert said == [f"going on after 16 images that {tmp_path / 'f.npy'}.parts holds"]


@pytest.fixture
def ended(bundle, photos, tmp_path, counted) -> Path:
    """The output of a run that was ended in the middle."""
    counted.most = 16
    with pytest.raises(Killed):
        embed(bundle, photos, tmp_path / "f.npy", streams=1)
    counted.most = 1000
    del counted[:]
    return tmp_path / "f.npy"


def test_other_options_are_refused_and_begin_anew_with_force(bundle, photos, ended, counted):
    with pytest.raises(OutputError, match=r"begun with other batch \(4, now 8\)") as error:
        embed(bundle, photos, ended, batch=8)
    assert "--force" in error.value.fix and not counted
    found = embed(bundle, photos, ended, batch=8, force=True)
    assert found.result.resumed == 0 and len(counted) == COUNT


def test_another_artifact_is_refused(photos, ended, tmp_path):
    other = write_bundle(tmp_path / "other", batch=4)
    with pytest.raises(OutputError, match="begun with other artifact"):
        embed(other, photos, ended)


def test_images_that_have_changed_are_refused_and_later_ones_are_not(bundle, photos, ended):
    os.utime(photos / "020.png", ns=(1, 1))
    (photos / "029.png").unlink()
    os.utime(photos / "003.png", ns=(1, 1))
    with pytest.raises(OutputError, match="the images have changed since they were begun"):
        embed(bundle, photos, ended)
    assert embed(bundle, photos, ended, force=True).result.images == COUNT - 1


def test_fewer_images_than_are_finished_are_refused(bundle, photos, ended):
    for place in range(10, COUNT):
        (photos / f"{place:03}.png").unlink()
    with pytest.raises(OutputError, match="the images have changed"):
        embed(bundle, photos, ended)


def test_images_that_came_after_what_is_finished_are_computed(bundle, photos, ended):
    (photos / "029.png").unlink()
    assert embed(bundle, photos, ended).result.images == COUNT - 1


def test_a_part_that_is_damaged_is_named(bundle, photos, ended):
    [*_, last] = sorted(Path(f"{ended}.parts").glob("part-*.npz"))
    last.write_bytes(last.read_bytes()[:-40])
    with pytest.raises(DataError, match=f"{last.name} is damaged"):
        embed(bundle, photos, ended)


PROGRAM = """
import sys
from vit_deploy import cli
from vit_deploy.data import embedding
embedding.PART_S = 0.01
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_process_that_is_killed_goes_on_to_the_same_bytes(bundle, photos, tmp_path, number):
    pytest.importorskip("pyarrow")
    lines = "".join(f"photos/{place % COUNT:03}.png\n" for place in range(4000))
    (tmp_path / "list.txt").write_text(lines)
    command = [sys.executable, "-c", PROGRAM, "embed", str(bundle), "--data", "list.txt", "--json", "-o"]

    def run(output: str) -> subprocess.Popen[str]:
        return subprocess.Popen([*command, output], cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    with run("whole.parquet") as whole:
        document = json.loads(whole.communicate()[0])
    assert document["results"][0]["images"] == 4000
    with run("f.parquet") as process:
        while not list(tmp_path.glob("f.parquet.parts/part-*")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(number)
        process.communicate()
    assert not (tmp_path / "f.parquet").exists()
    with run("f.parquet") as again:
        [result] = json.loads(again.communicate()[0])["results"]
    assert again.returncode == 1, "broken images are told"
    assert 0 < result["resumed"] < 4000 and result["images"] == 4000
    assert (tmp_path / "f.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.parquet", "list.txt", "photos", "whole.parquet"]


# Ends its process without a word at one point of its end.
ENDING = """
import os, pathlib, shutil, signal, sys
from vit_deploy import cli
from vit_deploy.data import parts

def end():
    os.kill(os.getpid(), signal.SIGKILL)

def rows(self, whole=parts.Parts.rows):
    yield next(whole(self))
    end()

def replace(self, target, whole=pathlib.Path.replace):
    whole(self, target)
    if str(target).endswith(point):
        end()

def rmtree(folder, **options):
    if pathlib.Path(folder).is_dir():
        next(pathlib.Path(folder).glob("*")).unlink()
        end()

point = sys.argv.pop(1)
if point == "rows":
    parts.Parts.rows = rows
elif point == "rmtree":
    parts.shutil.rmtree = rmtree
else:
    pathlib.Path.replace = replace
sys.exit(cli.run(sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("point", ["rows", "/f.jsonl", "/f.npy", "/f.npy.parts.done", "rmtree"])
def test_a_run_that_is_killed_while_it_finishes_ends_with_the_same_bytes(bundle, photos, tmp_path, point, counted):
    embed(bundle, photos, tmp_path / "whole.npy")
    given = ["--data", str(photos), "-o", str(tmp_path / "f.npy")]
    line = ["embed", str(bundle), *given, "--workers", "0", "--batch", "4"]
    killed = subprocess.run([sys.executable, "-c", ENDING, point, *line], capture_output=True, timeout=300)
    assert killed.returncode == -signal.SIGKILL
    del counted[:]
    if (tmp_path / "f.npy.parts").exists():
        found = embed(bundle, photos, tmp_path / "f.npy")
        assert not counted and found.result.resumed == COUNT and found.result.broken == 2
    else:
        with pytest.raises(OutputError, match="already there"):
            embed(bundle, photos, tmp_path / "f.npy")
    assert (tmp_path / "f.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert (tmp_path / "f.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    embed(bundle, photos, tmp_path / "f.npy", force=True)
    assert not list(tmp_path.glob("*.parts*"))
