"""Every kind of source gives its images in one order, from any place on."""

from __future__ import annotations

import glob
import importlib
import io
import json
import os
import sys
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_deploy.core.images import images_in
from vit_deploy.data import sorting
from vit_deploy.data.finding import find_source
from vit_deploy.data.patterns import braces
from vit_deploy.errors import DataError, UsageError


def png(value: int, height: int = 4, width: int = 7) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (width, height), (value, 0, 255 - value)).save(stream, "PNG")
    return stream.getvalue()


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for name in ("b/2.png", "b/10.png", "a.png", "a b.png", "a/x.JPG", "b-c.png", ".hidden.png", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(len(name)))
    return folder


def names(source, start: int = 0) -> list[str]:
    return [item.name for item in source.items(start)]


def test_a_folder_has_the_images_and_the_order_of_the_other_commands(photos):
    source = find_source([str(photos)])
    assert names(source) == [str(path.relative_to(photos)) for path in images_in(photos)]
    assert source.total() == 6 and names(source, 4) == names(source)[4:]


def test_long_folders_are_sorted_in_pieces_to_the_same_order(photos, monkeypatch):
    whole = names(find_source([str(photos)]))
    monkeypatch.setattr(sorting, "RUN", 2)
    assert names(find_source([str(photos)])) == whole


def test_links_to_files_count_and_links_to_folders_are_not_followed(photos):
    (photos / "link.png").symlink_to(photos / "a.png")
    (photos / "again").symlink_to(photos)
    found = names(find_source([str(photos)]))
    assert "link.png" in found and not any(name.startswith("again") for name in found)


@pytest.mark.skipif(os.name == "nt", reason="names are Unicode there")
def test_names_that_are_no_unicode_are_read_and_escaped(tmp_path):
    (tmp_path / os.fsdecode(b"caf\xe9.png")).write_bytes(png(3))
    [item] = find_source([str(tmp_path)]).items()
    assert item.name == "caf\\xe9.png" and item.read() == png(3)


def test_patterns_are_expanded_in_order_and_braces_too(photos):
    assert names(find_source([f"{photos}/b/*.png"])) == [f"{photos}/b/10.png", f"{photos}/b/2.png"]
    assert names(find_source([f"{photos}/b/{{2..2}}.png", f"{photos}/{{b-c,a}}.png"])) == [
        f"{photos}/b/2.png",
        f"{photos}/b-c.png",
        f"{photos}/a.png",
    ]


def test_ranges_count_down_as_in_a_shell():
    assert braces("{11..09}.tar") == ["11.tar", "10.tar", "09.tar"]
    assert braces("{02..00}.tar") == ["02.tar", "01.tar", "00.tar"]


def test_a_file_that_braces_name_and_that_is_not_there_is_an_error_and_not_left_out(photos):
    with pytest.raises(DataError, match=r"there is nothing at .*/b/3\.png"):
        find_source([f"{photos}/b/{{2..3}}.png"])


def test_a_folder_that_may_not_be_read_is_no_empty_one(photos, monkeypatch):
    scan = os.scandir

    def refused(folder):
        if str(folder).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match=r"/b cannot be read: Permission denied"):
        list(find_source([f"{photos}/**/*.png"]).items())


def test_a_list_names_files_beside_it(photos):
    (photos / "notes.txt").write_text("b/2.png\n\na.png\nabsent.png\n")
    source = find_source([str(photos / "notes.txt")])
    assert names(source) == ["b/2.png", "a.png", "absent.png"] and source.total() == 3
    assert [item.read() for item in list(source.items())[:2]] == [png(len("b/2.png")), png(len("a.png"))]
    with pytest.raises(DataError, match="there is no image"):
        list(source.items())[2].read()


SAMPLES = {
    "dog/1.cls": b"3",
    "dog/1.png": png(1),
    "dog/1.txt": b"a dog",
    "2.left.png": png(2),
    "2.json": json.dumps({"label": "cat"}).encode(),
    "2.right.png": png(4),
    "._3.png": b"of macOS",
    "3.png": png(3),
}


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tar_shards_have_images_and_their_classes(tmp_path, mode):
    ending = "tar" if mode == "w" else "tar.gz"
    write_tar(tmp_path / f"s-0.{ending}", SAMPLES, mode)
    write_tar(tmp_path / f"s-1.{ending}", {"z.png": png(9)}, mode)
    source = find_source([f"{tmp_path}/s-{{0..1}}.{ending}"])
    found = list(source.items())
    assert [item.name.partition("/")[2] for item in found] == [
        "dog/1.png",
        "2.left.png",
        "2.right.png",
        "3.png",
        "z.png",
    ]
    assert [item.label for item in found] == [3, "cat", "cat", None, None]
    assert [item.read() for item in found] == [png(value) for value in (1, 2, 4, 3, 9)]
    assert names(source, 3) == [item.name for item in found[3:]]
    assert source.total() == (5 if mode == "w" else None)
    assert names(find_source([str(tmp_path)])) == [item.name for item in found], "a folder of shards stands for them"


def test_a_tar_that_is_cut_is_refused(tmp_path):
    path = write_tar(tmp_path / "s.tar", SAMPLES)
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"s\.tar cannot be read as tar"):
        list(find_source([str(path)]).items())


def test_arrays_are_images_by_their_numbers(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (5, 4, 7, 3), np.uint8)
    np.savez(tmp_path / "x.npz", images=pixels)
    source = find_source([str(tmp_path / "x.npz")])
    assert source.total() == 5 and names(source, 3) == ["x.npz#3", "x.npz#4"]
    assert [item.read() for item in source.items(3)] == [image.tobytes() for image in pixels[3:]]


def test_several_sources_follow_one_another_and_are_skipped_as_one(photos, tmp_path):
    tar = write_tar(tmp_path / "s.tar", SAMPLES)
    source = find_source([str(photos), str(tar), str(photos / "a.png")])
    assert source.total() == 6 + 4 + 1
    for start in (0, 5, 6, 9, 10, 11):
        assert names(source, start) == names(source)[start:]


def test_parquet_of_hugging_face_is_read_with_its_classes(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    images = [
        {"bytes": png(1), "path": "one.png"},
        {"bytes": png(2), "path": None},
        None,
        {"bytes": None, "path": "b.png"},
    ]
    (tmp_path / "b.png").write_bytes(png(7))
    features = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    table = pa.table({"image": images, "label": [1, 0, 1, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "train.parquet", row_group_size=2)
    source = find_source([str(tmp_path / "train.parquet")])
    found = list(source.items())
    assert [item.name for item in found] == ["one.png", "train.parquet#1", "train.parquet#2", "b.png"]
    assert [item.label for item in found] == [1, 0, 1, 0] and source.class_names == ("cat", "dog")
    assert [found[index].read() for index in (0, 1, 3)] == [png(1), png(2), png(7)]
    with pytest.raises(DataError, match=r"row 2 of .* holds no image"):
        found[2].read()
    for start in range(5):
        assert names(source, start) == names(source)[start:]


def test_of_several_columns_one_has_to_be_named(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"left": [png(1)], "right": [png(2)], "id": ["x"]}), tmp_path / "two.parquet")
    with pytest.raises(DataError, match="several columns that may be images: left, right") as error:
        find_source([str(tmp_path / "two.parquet")])
    assert "--column" in error.value.fix
    [item] = find_source([str(tmp_path / "two.parquet")], "right").items()
    assert (item.name, item.read()) == ("x", png(2))
    with pytest.raises(DataError, match="no column middle of images"):
        find_source([str(tmp_path / "two.parquet")], "middle")
    with pytest.raises(UsageError, match="--data has none"):
        find_source([str(write_tar(tmp_path / "s.tar", SAMPLES))], "x")


def test_other_file_systems_are_read_through_pyarrow(photos):
    pytest.importorskip("pyarrow")
    source = find_source([photos.as_uri()])
    assert names(source) == names(find_source([str(photos)]))
    assert [item.read() for item in source.items()] == [item.read() for item in find_source([str(photos)]).items()]
    with pytest.raises(DataError, match="there is nothing at"):
        find_source([f"{photos.as_uri()}/absent"])


@pytest.mark.parametrize("given", ["absent", "absent/*.png", "{tmp}/x.bin", "{tmp}/empty"])
def test_what_holds_no_images_is_refused(tmp_path, given):
    (tmp_path / "x.bin").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as error:
        find_source([given.format(tmp=tmp_path)])
    assert error.value.fix


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst"])
@pytest.mark.parametrize("damage", ["cut behind a member", "cut in a header", "a header"])
def test_shards_that_are_cut_off_or_damaged_are_errors_and_not_shorter(tmp_path, ending, damage):
    whole = write_tar(tmp_path / "s.tar", {f"{place}.png": png(place) for place in range(4)}).read_bytes()
    second = whole.index(b"2.png")
    content = {
        "cut behind a member": whole[:second],
        "cut in a header": whole[: second + 100],
        "a header": whole[: second + 148] + b"12345678" + whole[second + 156 :],  # its checksum
    }[damage]
    if ending == "tar.zst":
        content = pytest.importorskip("pyarrow").compress(content, "zstd", asbytes=True)
    elif ending != "tar":
        module = {"tar.gz": "gzip", "tar.bz2": "bz2", "tar.xz": "lzma"}[ending]
        content = importlib.import_module(module).compress(content)
    (tmp_path / f"d.{ending}").write_bytes(content)
    found = find_source([str(tmp_path / f"d.{ending}")]).items()
    assert next(found).name == f"d.{ending}/0.png"
    with pytest.raises(DataError, match=rf"d\.{ending} cannot be read as tar: .* at byte \d+"):
        next(found)


def test_compressed_shards_are_read_from_any_place_and_counted_once(tmp_path):
    for shard in range(3):
        write_tar(tmp_path / f"{shard}.tgz", {f"{shard}-{place}.png": png(place) for place in range(4)}, "w:gz")
    source = find_source([f"{tmp_path}/{{0..2}}.tgz"])
    whole = names(source)
    assert source.total() is None and len(whole) == 12
    assert all(names(source, start) == whole[start:] for start in range(13))
    (tmp_path / "0.tgz").unlink()
    assert names(source, 4) == whole[4:], "a file before the first image is not read again"


def test_a_line_of_a_list_that_is_no_name_is_an_image_that_is_not_there(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a\0b.png\n")
    [item] = find_source([str(tmp_path / "list.txt")]).items()
    with pytest.raises(DataError, match="there is no image"):
        item.read()


def test_a_pattern_stands_for_files_once_each_in_the_order_of_their_paths(photos):
    (photos / "a" / "b").mkdir()
    (photos / "a" / "b" / "1.png").write_bytes(png(1))
    for pattern in ("**/*.png", "**/**/*.png", "**/b/**/*.png", "*/*.[pP]*", "a/b/*.png"):
        expected = sorted(set(glob.glob(f"{photos}/{pattern}", recursive=True)))  # noqa: PTH207
        assert names(find_source([f"{photos}/{pattern}"])) == [path for path in expected if Path(path).is_file()]
    source = find_source([f"{photos}/**/*.png"])
    assert source.total() == len(names(source)) and names(source, 2) == names(source)[2:]


def test_names_of_many_files_wait_on_disk(monkeypatch):
    monkeypatch.setattr(sorting, "RUN", 1000)
    monkeypatch.setattr(sorting, "PIECE", 1024)
    count = 20_000
    tracemalloc.start()
    ordered = sorting.in_order((f"{place * 7919 % count:08}" for place in range(count)), str)
    assert all(int(text) == place for place, text in enumerate(ordered))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < count * sys.getsizeof("00000000") / 2
