"""Evaluation: what is counted, compared with counting by hand; which folder is which class."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from vit_deploy.core.artifact import Artifact
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.datasets import read_dataset
from vit_deploy.core.images import load_pixels
from vit_deploy.core.input_output import InputSpec
from vit_deploy.core.reference import forward
from vit_deploy.errors import DataError
from vit_deploy.verification.accuracy import evaluate

IMAGES, CLASSES = 23, 5


@pytest.fixture(scope="module")
def pixels(make_checkpoint):
    config = make_checkpoint().config
    shape = (IMAGES, *config.image_size, config.channels)
    return np.random.default_rng(2).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(3).integers(0, CLASSES, IMAGES)


@pytest.fixture(scope="module")
def arrays(pixels, labels, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez_compressed(path, images=pixels, labels=labels)
    return path


@pytest.fixture(scope="module")
def folder(pixels, labels, tmp_path_factory):
    """The same images as files, in one folder for each class."""
    image = pytest.importorskip("PIL.Image")
    path = tmp_path_factory.mktemp("data") / "folders"
    for index, (picture, label) in enumerate(zip(pixels, labels, strict=True)):
        (path / f"class {label}").mkdir(parents=True, exist_ok=True)
        image.fromarray(picture).save(path / f"class {label}" / f"{index:03}.png")
    return path


def opened(bundles, format, **changes) -> Artifact:
    from vit_deploy.core.manifest import read_artifact

    return dataclasses.replace(read_artifact(bundles[format]), **changes)


def test_counts_are_those_of_the_definition(bundles, make_checkpoint, arrays, pixels, labels):
    checkpoint: Checkpoint = make_checkpoint()
    logits = forward(checkpoint, checkpoint.preprocess.normalize(pixels))
    ranked = np.argsort(-logits, axis=1)
    (result,) = evaluate([opened(bundles, "onnx")], read_dataset(arrays), batch=4)
    assert result.images == IMAGES
    assert result.top1 == pytest.approx(np.mean(ranked[:, 0] == labels))
    assert 0 < result.top1 < 1
    assert result.top5 == 1  # of five classes
    wrong = ranked[:, 0] != labels
    pairs = [(str(a), str(p)) for a, p in zip(labels[wrong], ranked[wrong, 0], strict=True)]
    worst = result.confusions[0]
    assert worst.count == max(map(pairs.count, pairs)) == pairs.count((worst.actual, worst.predicted))
    assert [confusion.count for confusion in result.confusions] == sorted(
        (e.count for e in result.confusions), reverse=True
    )


def test_several_artifacts_are_evaluated_in_one_pass_over_the_data(bundles, arrays, monkeypatch):
    dataset = read_dataset(arrays)
    passes = []
    batches = type(dataset).batches
    monkeypatch.setattr(type(dataset), "batches", lambda *args: passes.append(args) or batches(*args))
    found = evaluate([opened(bundles, "onnx"), opened(bundles, "tflite")], dataset)
    assert len(passes) == 1
    assert [each.agreement for each in found] == [1.0, 1.0]
    assert found[0].top1 == found[1].top1


def test_agreement_is_with_the_first_fp32_artifact(bundles, arrays, make_checkpoint, pixels):
    other = opened(
        bundles,
        "onnx",
        precision="int8",
        preprocess=dataclasses.replace(make_checkpoint().preprocess, mean=(0.0, 0.9, 0.2)),
    )  # it sees other images, so it answers otherwise
    right = opened(bundles, "tflite")
    found = evaluate([other, right], read_dataset(arrays))
    assert {each.reference.path for each in found} == {right.path}
    checkpoint = make_checkpoint()
    answers = [forward(checkpoint, each.preprocess.normalize(pixels)).argmax(axis=1) for each in (other, right)]
    assert found[1].agreement == 1
    assert found[0].agreement == pytest.approx(np.mean(answers[0] == answers[1]))
    assert 0 < found[0].agreement < 1


def test_one_artifact_has_nothing_to_agree_with(bundles, arrays):
    (result,) = evaluate([opened(bundles, "onnx")], read_dataset(arrays))
    assert result.agreement is None
    assert result.failures == ("agreement needs a second artifact to agree with",)


def test_outputs_that_are_no_numbers_are_never_right(bundles, arrays, labels, monkeypatch):
    from vit_deploy.runtimes.ort.sessions import OnnxSession

    def infer(self, images):
        outputs = np.eye(CLASSES, dtype=np.float32)[labels[: len(images)]]
        outputs[0] = np.nan
        return outputs

    monkeypatch.setattr(OnnxSession, "infer", infer)
    found = evaluate([opened(bundles, "onnx")] * 2, read_dataset(arrays), batch=IMAGES)
    assert found[0].top1 == found[0].top5 == found[0].agreement == pytest.approx((IMAGES - 1) / IMAGES)
    assert not found[0].finite
    assert f"the outputs of 1 of {IMAGES} images are NaN or infinite" in found[0].failures


def test_folders_give_what_arrays_give(bundles, arrays, folder):
    artifact = opened(bundles, "onnx")
    (one,), (other,) = (evaluate([artifact], read_dataset(path)) for path in (arrays, folder))
    assert (one.images, one.top1) == (other.images, other.top1)
    numbers = [
        (f"class {confusion.actual}", f"class {confusion.predicted}", confusion.count) for confusion in one.confusions
    ]
    assert sorted(numbers) == sorted(
        (confusion.actual, confusion.predicted, confusion.count) for confusion in other.confusions
    )
    labelled = opened(bundles, "onnx", labels=tuple("vwxyz"))
    (named,) = evaluate([labelled], read_dataset(folder))
    assert {confusion.actual for confusion in named.confusions} <= set("vwxyz")


def test_folders_are_the_classes_of_their_names_where_the_labels_are_recorded(bundles, folder):
    names = tuple(f"class {index}" for index in (3, 1, 4, 0, 2))
    dataset = read_dataset(folder)
    named, plain = (opened(bundles, "onnx", labels=labels) for labels in (names, ()))
    assert dataset.is_by_name(named) and not dataset.is_by_name(plain)
    expected = [names.index(file.parent.name) for file, _ in dataset.files]
    assert dataset.classes(named).tolist() == expected
    assert dataset.classes(plain).tolist() == [index for _, index in dataset.files]


def test_some_of_the_classes_are_enough_where_they_are_known_by_name(bundles, folder):
    dataset = read_dataset(folder)
    few = dataclasses.replace(dataset, names=dataset.names[:2], files=tuple(f for f in dataset.files if f[1] < 2))
    known = opened(bundles, "onnx", labels=tuple(f"class {index}" for index in range(CLASSES)))
    assert set(few.classes(known)) == {0, 1}
    with pytest.raises(DataError, match=r"has 2 class folders .* has 5 classes and no recorded labels"):
        few.classes(opened(bundles, "onnx", labels=()))
    with pytest.raises(DataError, match="and class 1 is not among its labels"):
        few.classes(opened(bundles, "onnx", labels=("class 0", "b", "c", "d", "e")))


def test_images_come_in_batches_and_all_of_them(folder, arrays, pixels, make_checkpoint):
    checkpoint = make_checkpoint()
    for path in (folder, arrays):
        dataset = read_dataset(path)
        batches = list(dataset.batches(checkpoint.preprocess, checkpoint.config.image_size, 10))
        assert [len(batch) for batch in batches] == [10, 10, 3]
        found = np.concatenate(batches)
        assert found.dtype == np.uint8 and sorted(map(bytes, found)) == sorted(map(bytes, pixels))
    first = read_dataset(folder).files[0][0]
    np.testing.assert_array_equal(
        next(iter(read_dataset(folder).batches(checkpoint.preprocess, (24, 32), 1)))[0],
        load_pixels(first, checkpoint.preprocess, (24, 32)),
    )


def test_an_array_larger_than_a_batch_is_never_held_whole(arrays, monkeypatch, make_checkpoint):
    monkeypatch.setattr(np, "load", lambda *args, **kwargs: pytest.fail("the whole array was loaded"))
    checkpoint = make_checkpoint()
    assert len(next(iter(read_dataset(arrays).batches(checkpoint.preprocess, (24, 32), 2)))) == 2


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": None}, "has no array images"),
        ({"labels": None}, "has no array labels"),
        ({"images": np.zeros((3, 24, 32, 3), np.float32)}, "images are float32 .* expected uint8"),
        ({"images": np.zeros((3, 24, 32), np.uint8)}, r"of shape \(3, 24, 32\)"),
        ({"labels": np.zeros(2, np.int64)}, "3 images and 2 labels"),
        ({"labels": np.zeros(3)}, "labels are float64"),
        ({"images": np.zeros((0, 24, 32, 3), np.uint8), "labels": np.zeros(0, np.int64)}, "there are no images"),
        ({"images": np.asfortranarray(np.zeros((3, 24, 32, 3), np.uint8))}, "stored column by column"),
    ],
)
def test_arrays_of_another_kind_are_refused(tmp_path, changes, said):
    given = {"images": np.zeros((3, 24, 32, 3), np.uint8), "labels": np.zeros(3, np.int64)} | changes
    path = tmp_path / "data.npz"
    np.savez(path, **{name: value for name, value in given.items() if value is not None})
    with pytest.raises(DataError, match=said) as error:
        read_dataset(path)
    assert error.value.fix


@pytest.mark.parametrize(
    ("labels", "shape", "said"),
    [
        ([0, 5], (24, 32, 3), "labels from 0 to 5, .* has 5 classes"),
        ([-1, 0], (24, 32, 3), "labels from -1 to 0"),
        ([0, 1], (32, 24, 3), "has images of 32x24x3, .* takes 24x32x3"),
    ],
)
def test_arrays_that_do_not_fit_the_model_are_refused(bundles, tmp_path, labels, shape, said):
    np.savez(tmp_path / "data.npz", images=np.zeros((2, *shape), np.uint8), labels=np.array(labels))
    with pytest.raises(DataError, match=said):
        evaluate([opened(bundles, "onnx")], read_dataset(tmp_path / "data.npz"))


def test_a_truncated_file_is_told(arrays, tmp_path):
    path = tmp_path / "cut.npz"
    path.write_bytes(arrays.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"cannot be read as \.npz"):
        read_dataset(path)


def test_an_image_that_is_broken_is_named(bundles, folder, tmp_path):
    import shutil

    copied = shutil.copytree(folder, tmp_path / "copied")
    bad = sorted(copied.rglob("*.png"))[0]
    bad.write_bytes(b"no image")
    with pytest.raises(DataError, match=bad.name):
        evaluate([opened(bundles, "onnx")], read_dataset(copied))


def test_folders_without_images_or_classes_are_refused(tmp_path):
    with pytest.raises(DataError, match="has no class folders"):
        read_dataset(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="hold no images"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match="there is nothing at"):
        read_dataset(tmp_path / "absent")


def test_a_model_without_a_head_has_no_classes(bundles, arrays):
    artifact = opened(bundles, "onnx")
    config = artifact.config.replace(include_top=False)
    headless = dataclasses.replace(artifact, config=config, input=InputSpec(shape=(None, 24, 32, 3)))
    with pytest.raises(DataError, match="has no head"):
        evaluate([headless], read_dataset(arrays))


def tree(path, names, pixels):
    """A folder a name with one image in it."""
    image = pytest.importorskip("PIL.Image")
    for name, picture in zip(names, pixels, strict=True):
        (path / name).mkdir(parents=True)
        image.fromarray(picture).save(path / name / "1.png")
    return read_dataset(path)


def with_classes(bundles, count, labels=()):
    artifact = opened(bundles, "onnx", labels=tuple(labels))
    return dataclasses.replace(artifact, config=artifact.config.replace(num_classes=count))


@pytest.mark.parametrize("called", ["{}", "{:02}", "class {}", "c{}x"])
def test_folders_that_are_numbered_are_the_classes_of_their_numbers(bundles, pixels, tmp_path, called):
    images = np.resize(pixels, (12, *pixels.shape[1:]))
    dataset = tree(tmp_path / "data", [called.format(index) for index in range(12)], images)
    artifact = with_classes(bundles, 12)
    assert dataset.folders(artifact) == {called.format(index): index for index in range(12)}
    pairs = zip(dataset.files, dataset.classes(artifact), strict=True)
    assert {file.parent.name: number for (file, _), number in pairs} == dataset.folders(artifact)
    said = dataset.describe_mapping(artifact)
    assert f"1 {called.format(1)}, 2 {called.format(2)}, 3 " in said
    assert ("numbers by their size" in said) is (called != "{:02}")
    assert dataset.to_dict(artifact)["folders_by"] == "order"


def test_folders_by_name_say_so_and_others_need_as_many_as_there_are_classes(bundles, pixels, tmp_path):
    names = ("cow", "ant", "bee", "dog", "eel")
    dataset = tree(tmp_path / "data", names, pixels[:5])
    named = with_classes(bundles, 5, names)
    assert dataset.describe_mapping(named) == "" and dataset.to_dict(named) == {
        "folders": {name: names.index(name) for name in sorted(names)},
        "folders_by": "name",
    }
    with pytest.raises(DataError, match=r"has 5 class folders .* has 6 classes"):
        dataset.folders(with_classes(bundles, 6))


def test_folders_of_which_some_are_called_by_labels_are_not_taken_in_order(bundles, pixels, tmp_path):
    dataset = tree(tmp_path / "data", ("ant", "bee", "cow", "dog", "ele"), pixels[:5])
    in_place = with_classes(bundles, 5, ("ant", "bee", "cow", "dog", "eel"))
    assert dataset.folders(in_place)["ele"] == 4
    elsewhere = with_classes(bundles, 5, ("eel", "ant", "bee", "cow", "dog"))
    with pytest.raises(DataError) as caught:
        dataset.folders(elsewhere)
    assert "ant, bee, cow, dog would be other classes in order, and ele is not among its labels" in caught.value.message
    assert caught.value.fix == "name all folders by the model's labels, or all by their numbers"
