"""`evaluate` and `predict` over every source, with the figures of the plain way whatever the number of workers."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vit_deploy
from tests.linear_bundle import CLASSES, write_bundle
from vit_deploy.core.datasets import read_dataset
from vit_deploy.core.manifest import read_artifact
from vit_deploy.data import pipeline
from vit_deploy.errors import DataError, UsageError
from vit_deploy.runtimes import classify
from vit_deploy.verification import accuracy

COUNT = 40
FIGURES = ("images", "top1", "top5", "confusions")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "onnx-fp32")


def picture(place: int) -> bytes:
    stream = io.BytesIO()
    pixels = np.random.default_rng(place).integers(0, 256, (9, 8, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders; the images of each are behind one another."""
    folder = tmp_path_factory.mktemp("photos")
    for place in range(COUNT):
        path = folder / f"{place * CLASSES // COUNT}" / f"{place:02}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(picture(place))
    return folder


@pytest.fixture(scope="module")
def plain(bundle, photos):
    """The figures without any of this."""
    [found] = accuracy.evaluate([read_artifact(bundle)], read_dataset(photos), batch=7)
    return {name: value for name, value in accuracy.to_json(found).items() if name in FIGURES}


def figures(found) -> dict[str, object]:
    [record] = found.records
    return {name: record[name] for name in FIGURES}


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_workers_change_no_figure(bundle, photos, plain, workers):
    found = vit_deploy.evaluate(bundle, photos, batch=7, workers=workers)
    assert figures(found) == plain and found.ok and "broken" not in found.records[0]


def test_models_of_other_preprocessing_are_evaluated_in_one_pass(bundle, photos, plain, tmp_path):
    manifest = json.loads((bundle / "artifact.json").read_text())
    other = write_bundle(tmp_path / "other")
    manifest["preprocess"] |= {"resize": [12, 10], "crop": True}
    (other / "artifact.json").write_text(json.dumps(manifest))
    both = vit_deploy.evaluate([bundle, other], photos, batch=7, workers=2)
    alone = vit_deploy.evaluate(other, photos, batch=7, workers=0)
    assert {name: both.records[0][name] for name in FIGURES} == plain
    assert {name: both.records[1][name] for name in FIGURES} == figures(alone)


def write_tar(path: Path, *, named: bool) -> Path:
    with tarfile.open(path, "w") as archive:
        for place in range(COUNT):
            label = place * CLASSES // COUNT
            for ending, content in (("png", picture(place)), ("cls", f"{'c' if named else ''}{label}".encode())):
                member = tarfile.TarInfo(f"{place:02}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return path


def test_classes_come_with_the_images_of_every_source(bundle, photos, plain, tmp_path):
    def evaluated(data, **options):
        found = figures(vit_deploy.evaluate(bundle, data, batch=7, workers=0, **options))
        confusions = [
            {**confusion, **{name: confusion[name].lstrip("c") for name in ("actual", "predicted")}}
            for confusion in found["confusions"]
        ]
        return {**found, "confusions": confusions}

    assert evaluated(write_tar(tmp_path / "s.tar", named=False)) == plain
    assert evaluated(str(write_tar(tmp_path / "n.tar", named=True))) == plain
    assert evaluated(f"{photos}/*/*.png") == plain
    assert evaluated([f"{photos}/{label}/*.png" for label in range(CLASSES)]) == plain
    (tmp_path / "list.txt").write_text("".join(f"{path}\n" for path in sorted(photos.rglob("*.png"))))
    assert evaluated(tmp_path / "list.txt") == plain


@pytest.mark.parametrize("named", [False, True])
def test_parquet_has_its_classes_in_a_column(bundle, plain, tmp_path, named):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "image": [{"bytes": picture(place), "path": f"{place}.png"} for place in range(COUNT)],
            "label": [place * CLASSES // COUNT for place in range(COUNT)],
        }
    )
    if named:
        features = {"info": {"features": {"label": {"names": [str(label) for label in range(CLASSES)]}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=9)
    found = vit_deploy.evaluate(bundle, tmp_path / "t.parquet", batch=7, workers=2)
    assert figures(found) == plain
    assert ("folders" in found.records[0]) is named


def test_images_without_classes_are_refused(bundle, tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        member = tarfile.TarInfo("a.png")
        member.size = len(picture(0))
        archive.addfile(member, io.BytesIO(picture(0)))
    with pytest.raises(DataError, match=r"s\.tar/a\.png has no class"):
        vit_deploy.evaluate(bundle, tmp_path / "s.tar")


def test_broken_images_are_named_and_not_counted(bundle, tmp_path):
    for place in range(12):
        path = tmp_path / "photos" / str(place % CLASSES) / f"{place:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(place))
    without = vit_deploy.evaluate(bundle, tmp_path / "photos", batch=1, workers=0)
    (tmp_path / "photos" / "1" / "00.png").write_bytes(b"broken")
    (tmp_path / "photos" / "3" / "99.png").write_bytes(b"broken")
    for workers in (0, 2):
        found = vit_deploy.evaluate(bundle, tmp_path / "photos", batch=1, workers=workers)
        assert figures(found) == figures(without)
        assert not found.ok and [Path(why.partition(" ")[0]).name for why in found.records[0]["broken"]] == [
            "00.png",
            "99.png",
        ]
        assert "2 images cannot be read, and are not counted" in found.result.failures[0]
    for path in (tmp_path / "photos").rglob("*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="not one of 14 images can be read"):
        vit_deploy.evaluate(bundle, tmp_path / "photos", workers=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_predictions_are_those_of_the_plain_way(bundle, photos, tmp_path, workers):
    (tmp_path / "bad.png").write_bytes(b"bad")
    files = [*sorted(photos.rglob("*.png")), tmp_path / "bad.png", tmp_path / "absent.png", photos / "0" / "00.png"]
    with classify.open_classifier(bundle) as classifier:
        expected = list(classify.predict(classifier, files, count=2))
    found = vit_deploy.predict(bundle, files, top=2, workers=workers)
    assert list(found) == expected and not found.ok


def test_predictions_of_other_sources_are_those_of_their_images(bundle, photos, tmp_path):
    tar = write_tar(tmp_path / "s.tar", named=False)
    plain = vit_deploy.predict(bundle, photos)
    found = vit_deploy.predict(bundle, [str(tar), f"{photos}/0/*.png"])
    assert [each.top for each in found][:COUNT] == [each.top for each in plain]
    assert [each.image.name for each in found][COUNT - 1 : COUNT + 2] == ["39.png", "00.png", "01.png"]


def test_few_images_start_no_process(bundle, photos, monkeypatch):
    monkeypatch.setattr(pipeline, "DecodeProcess", None)
    assert vit_deploy.predict(bundle, photos / "0").ok


def test_what_is_for_this_machine_is_refused_for_another(bundle, photos, tmp_path):
    with pytest.raises(UsageError, match="--workers, --column and --ray"):
        vit_deploy.predict(bundle, photos, workers=2, on="ssh://nowhere")
    tar = write_tar(tmp_path / "s.tar", named=False)
    with pytest.raises(UsageError, match="--on sends image files"):
        vit_deploy.evaluate(bundle, tar, on="ssh://nowhere")


def test_a_file_without_an_ending_is_still_an_image(bundle, tmp_path):
    (tmp_path / "photo").write_bytes(picture(1))
    (tmp_path / "photo[1].jfif").write_bytes(picture(1))
    found = vit_deploy.predict(bundle, [tmp_path / "photo", tmp_path / "photo[1].jfif"])
    assert found.ok and found[0].top == found[1].top
