"""Features of many images: in order, whole or not at all, and gone on with where a run was ended."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vit_deploy
from tests.linear_bundle import CLASSES, HEIGHT, WIDTH, write_bundle
from vit_deploy.core.images import load_image
from vit_deploy.core.manifest import read_artifact
from vit_deploy.data import embedding, parts
from vit_deploy.errors import DataError, OutputError, UsageError

COUNT = 30
BROKEN = (4, 17)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "onnx-fp32")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for place in range(COUNT):
        Image.fromarray(rng.integers(0, 256, (9, 8, 3), np.uint8)).save(folder / f"{place:03}.png")
    for place in BROKEN:
        (folder / f"{place:03}.png").write_bytes(b"broken")
    return folder


def embed(bundle, photos, output, **options):
    return vit_deploy.embed(bundle, photos, output, **{"workers": 0, "batch": 4, **options})


def expected(bundle: Path, photos: Path) -> np.ndarray:
    artifact = read_artifact(bundle)
    rows = []
    with vit_deploy.session(artifact) as session:
        for place in range(COUNT):
            if place in BROKEN:
                rows.append(np.full(CLASSES, np.nan, np.float32))
            else:
                image = load_image(photos / f"{place:03}.png", artifact.preprocess, (HEIGHT, WIDTH))
                rows.append(session.infer(image[None])[0])
    return np.stack(rows)


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


class Killed(BaseException):
    """What ends a run at once, wherever it is."""


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch):
    """Names of the images that were computed; the run is ended when as many as `counted.most` were."""
    monkeypatch.setattr(embedding, "PART_S", 0.0)  # a part for each group
    infer = embedding.Model._batch

    class Counted(list):
        most = 1000

    found = Counted()

    def counting(self, session, names, images):
        if len(found) >= found.most:
            raise Killed
        found.extend(names)
        return infer(self, session, names, images)

    monkeypatch.setattr(embedding.Model, "_batch", counting)
    return found


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


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_no_unicode_are_escaped_where_they_fail_too(bundle, tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / os.fsdecode(b"caf\xe9.png")).write_bytes(b"broken")
    embed(bundle, tmp_path / "photos", tmp_path / "f.parquet")
    [row] = pq.read_table(tmp_path / "f.parquet").to_pylist()
    assert row["name"] == "caf\\xe9.png" and "caf\\xe9.png is no image" in row["failure"]


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


def test_two_runs_do_not_write_the_same(bundle, photos, tmp_path):
    pytest.importorskip("fcntl")
    (tmp_path / "f.npy.parts").mkdir()
    with parts._only_run(tmp_path / "f.npy.parts"), pytest.raises(OutputError, match="another run is writing"):
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
