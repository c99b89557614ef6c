"""Images in a folder, a Parquet file and tar shards, to be put on other file systems."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vit_deploy
from tests.linear_bundle import CLASSES

COUNT = 24
NAMES = {0: "a b%20c.png", 1: "ä.png", 2: "x-y.png"}  # some that addresses write otherwise
GIVEN = ["photos", "photos/*/*.png", "photos/**", "x.parquet", "shards/*.tar", "shards/{0..1}.tar.gz"]


def png(place: int) -> bytes:
    """A small image of its own."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(place).integers(0, 256, (9, 8, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def write_files(root: Path) -> Path:
    """A folder of images, and files of each kind that hold the same."""
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    for place in range(COUNT):
        path = root / "photos" / str(place % CLASSES) / NAMES.get(place, f"{place:03}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(place))
    contents = [path.read_bytes() for path in sorted((root / "photos").rglob("*.png"))]
    pq.write_table(pa.table({"image": contents, "label": [place % 3 for place in range(COUNT)]}), root / "x.parquet")
    (root / "shards").mkdir()
    for shard in range(2):
        for ending, mode in (("tar", "w"), ("tar.gz", "w:gz")):
            with tarfile.open(root / "shards" / f"{shard}.{ending}", mode) as archive:
                for place in range(shard * COUNT // 2, (shard + 1) * COUNT // 2):
                    member = tarfile.TarInfo(f"{place:03}.png")
                    member.size = len(contents[place])
                    archive.addfile(member, io.BytesIO(contents[place]))
    return root


def assert_embedded_alike(bundle: Path, files: Path, given: str, folder: Path, *, workers: int) -> None:
    """The images at an address, in whatever form, have the vectors that those of a folder on the disk have."""
    vit_deploy.embed(bundle, files / "photos", folder / "here.npy", workers=0, batch=4)
    found = vit_deploy.embed(bundle, given, folder / "there.npy", workers=workers, batch=4)
    assert found.ok and found.result.images == COUNT
    assert (folder / "there.npy").read_bytes() == (folder / "here.npy").read_bytes()
    if given.partition("?")[0].endswith("/photos"):  # whose images have the same names
        assert (folder / "there.jsonl").read_text() == (folder / "here.jsonl").read_text()


def assert_told_alike(bundle: Path, files: Path, photos: str, query: str = "") -> None:
    """The folder of images at an address, and one of these, have the classes that those on the disk have."""
    here = vit_deploy.evaluate(bundle, files / "photos", workers=0)
    there = vit_deploy.evaluate(bundle, f"{photos}{query}", workers=0)
    assert there.records == here.records
    [seen] = vit_deploy.predict(bundle, f"{photos}/0/a%20b%2520c.png{query}", workers=0)
    [expected] = vit_deploy.predict(bundle, files / "photos" / "0" / NAMES[0], workers=0)
    assert seen.top == expected.top
