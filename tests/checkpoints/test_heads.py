"""A head or labels that a config promises and the weights lack are an error with a fix, and a head can be left out."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import torchvision_stand_in
from tests.checkpoints import google_vit
from tests.checkpoints.huggingface_folders import changed, expected_of
from tests.checkpoints.state_dicts import read, write
from vit_deploy import checkpoints
from vit_deploy.checkpoints import load, read_labels
from vit_deploy.core.choices import Pooling
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError

TIMM = Path(__file__).parents[1] / "peers" / "golden" / "timm"
NO_HEAD = {"head": False}
FIX = "take the features: --no-head, or load(path, config={'head': False})"
ANIMALS = {str(index): name for index, name in enumerate(("ant", "bee", "cat", "dog", "elk"))}


def without(*beginnings: str) -> Any:
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(beginnings)}


def timm_folder(folder: Path, name: str = "plain", *, headless: bool = False, **config: Any) -> Path:
    """A copy of a recorded folder, perhaps without its heads, with other entries in its config."""
    target = folder / name
    shutil.copytree(TIMM / name, target)
    if headless:
        write(target / "model.safetensors", without("head")(read(target / "model.safetensors")))
    document = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(document | config))
    return target


def test_a_classifier_of_transformers_without_its_head_is_refused_and_its_features_can_be_had(tmp_path: Path) -> None:
    folder = changed(tmp_path, "vit", tensors=without("classifier."), config={"id2label": ANIMALS})
    with pytest.raises(
        CheckpointError, match=r"the head is missing: its config\.json says ViTForImageClassification wi"
    ):
        load(folder)
    with pytest.raises(CheckpointError) as caught:
        load(folder, config={"labels": ["a", "b"]})
    assert FIX in caught.value.fix
    features = load(folder, config=NO_HEAD)
    assert (features.config.include_top, features.config.output_name, features.labels) == (False, "features", ())
    assert features.config.pooling is Pooling.CLS


@pytest.mark.parametrize(
    ("name", "heads"),
    [("vit", "classifier."), ("deit-teacher", ("cls_", "distillation_")), ("clip-projection", "visual_projection")],
)
def test_every_kind_of_head_of_transformers_is_missed(tmp_path: Path, name: str, heads: Any) -> None:
    folder = changed(tmp_path, name, tensors=without(*([heads] if isinstance(heads, str) else heads)))
    with pytest.raises(CheckpointError, match="the head is missing"):
        load(folder)
    assert not load(folder, config=NO_HEAD).config.include_top


@pytest.mark.parametrize("parts", [("vision_model.head.", "head."), ("vision_model.head.probe", "head.probe")])
@pytest.mark.parametrize("name", ["siglip", "siglip-vision"])
def test_an_attention_pooling_that_the_config_promises_is_missed(
    tmp_path: Path, name: str, parts: tuple[str, ...]
) -> None:
    folder = changed(tmp_path, name, tensors=without(*parts))
    with pytest.raises(CheckpointError, match=r"the head is missing: its config\.json says vision_use_head"):
        load(folder)
    assert load(folder, config=NO_HEAD).config.pooling is None


def test_our_own_file_without_its_head_is_refused_with_a_fix(tmp_path: Path, make_checkpoint: Any) -> None:
    whole = make_checkpoint()
    write(tmp_path / "a.safetensors", without("head.")(dict(whole.weights)))
    with pytest.raises(CheckpointError, match=r"missing head\.kernel") as caught:
        load(tmp_path / "a.safetensors", config=whole.config)
    assert caught.value.fix == "get the file again: its head is missing"


def test_a_classifier_of_no_classes_promises_no_head(tmp_path: Path) -> None:
    folder = changed(tmp_path, "vit", tensors=without("classifier."), config={"id2label": {}, "label2id": {}})
    assert load(folder).config.pooling is Pooling.CLS


def test_a_bare_model_that_kept_its_labels_gives_features_and_says_what_it_left_out(tmp_path: Path) -> None:
    config: dict[str, Any] = {"id2label": ANIMALS, "architectures": ["ViTModel"]}
    folder = changed(tmp_path, "vit", tensors=without("classifier."), config=config)
    checkpoint = load(folder)
    assert not checkpoint.config.include_top
    assert "5 labels" in checkpoints.assumptions(checkpoint)
    config["id2label"] = {"0": "ant", "7": "bee"}  # of classes that are not there it matters not how they are numbered
    again = load(changed(tmp_path / "again", "vit", tensors=without("classifier."), config=config))
    assert not again.config.include_top


def test_named_classes_of_no_architecture_promise_a_head(tmp_path: Path) -> None:
    document = {"id2label": ANIMALS}
    folder = changed(tmp_path, "vit", tensors=without("classifier."), config={**document, "architectures": None})
    with pytest.raises(CheckpointError, match=r"the head is missing: its config\.json says 5 labels"):
        load(folder)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({**ANIMALS, "5": "fox"}, "6 labels in config.json for 5 classes"),
        ({key: name for key, name in ANIMALS.items() if key != "4"}, "4 labels in config.json for 5 classes"),
        ({key: name for key, name in ANIMALS.items() if key != "2"}, "id2label of config.json has gaps: .* no class 2"),
        ({"-1": "ant"}, "id2label of config.json has gaps"),
    ],
)
def test_labels_that_do_not_fit_are_refused_and_can_be_given(tmp_path: Path, labels: Any, words: str) -> None:
    folder = changed(tmp_path, "vit", config={"id2label": labels})
    with pytest.raises(CheckpointError, match=words) as caught:
        load(folder)
    assert "--labels FILE" in str(caught.value)
    given = load(folder, config={"labels": ["a", "b", "c", "d", "e"]})
    assert given.labels == ("a", "b", "c", "d", "e")
    assert given.provenance[-1].to_dict() == {"action": "labels", "stated": 5}


def test_labels_given_in_another_number_than_the_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="2 labels given for 5 classes"):
        load(changed(tmp_path, "vit"), config={"labels": ["a", "b"]})
    with pytest.raises(CheckpointError, match="1 label given, and it has no head"):
        load(tmp_path / "vit", config={"labels": ["a"], "head": False})


def test_timm_without_the_head_of_its_config_is_refused_and_its_features_can_be_had(tmp_path: Path) -> None:
    folder = timm_folder(tmp_path, headless=True, num_classes=7)
    with pytest.raises(CheckpointError, match=r"the head is missing: config\.json says num_classes 7") as caught:
        load(folder)
    assert FIX in caught.value.fix
    features = load(folder, config=NO_HEAD)
    whole = load(TIMM / "plain", config=NO_HEAD)
    assert (features.config, features.digest()) == (whole.config, whole.digest())
    assert not features.config.include_top
    assert not load(timm_folder(tmp_path / "again", headless=True, num_classes=0)).config.include_top


def test_timms_labels_with_gaps_or_of_another_number_are_refused(tmp_path: Path) -> None:
    gaps = timm_folder(tmp_path / "gaps", label_names={"0": "ant", "2": "bee"})
    with pytest.raises(CheckpointError, match=r"label_names of config\.json has gaps: 2 names .* no class 1"):
        load(gaps)
    classes = load(TIMM / "plain").config.num_classes
    names = [f"class {index}" for index in range(classes)]
    assert load(gaps, config={"labels": names}).labels == tuple(names)


def test_two_heads_of_timm_are_left_out_as_timm_does_it() -> None:
    features = load(TIMM / "distilled", config=NO_HEAD)
    assert features.config.pooling is Pooling.CLS_DISTILLATION
    assert features.config.output_shape == (features.config.embed_dim,)  # the mean of the two tokens


@pytest.mark.parametrize("suffix", [".keras", ".safetensors"])
def test_our_own_files_are_read_without_their_head(tmp_path: Path, make_checkpoint: Any, suffix: str) -> None:
    whole = make_checkpoint()
    checkpoints.save(whole, tmp_path / f"whole{suffix}")
    features = load(tmp_path / f"whole{suffix}", config=NO_HEAD)
    assert set(whole.weights) - set(features.weights) == {"head.kernel", "head.bias"}
    assert features.provenance[-1].action == "without head"
    images = np.random.default_rng(0).standard_normal((2, *whole.config.image_size, 3)).astype(np.float32)
    logits = forward(features, images) @ whole.weights["head.kernel"] + whole.weights["head.bias"]
    np.testing.assert_allclose(logits, forward(whole, images), rtol=1e-9, atol=1e-9)


def test_googles_files_are_read_without_their_head(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **google_vit.draw(google_vit.VARIANTS["vision_transformer"]))
    features = load(tmp_path / "a.npz", config={**NO_HEAD, "image_size": google_vit.IMAGE_SIZE})
    assert not features.config.include_top
    assert not [name for name in features.weights if name.startswith("head.")]


def test_features_of_transformers_are_what_its_head_takes(tmp_path: Path) -> None:
    images, _ = expected_of("vit")
    folder = changed(tmp_path, "vit")
    whole, features = load(folder), load(folder, config=NO_HEAD)
    pixels = images if images.shape[-1] == 3 else images.transpose(0, 2, 3, 1)
    logits = forward(features, pixels) @ whole.weights["head.kernel"] + whole.weights["head.bias"]
    np.testing.assert_allclose(logits, forward(whole, pixels), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "ant\nbee of honey\r\n\n", ["ant", "bee of honey"]),
        ("a.json", '["ant", "bee"]', ["ant", "bee"]),
        ("a.json", '{"1": "bee", "0": "ant"}', ["ant", "bee"]),
        ("a.json", '{"id2label": {"0": "ant", "1": "bee"}, "hidden_size": 4}', ["ant", "bee"]),
    ],
)
def test_labels_are_read_from_lines_or_json(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    (tmp_path / name).write_text(text)
    assert read_labels(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.txt", "ant\n\nbee\n", "has lines without a name"),
        ("a.txt", "\n", "is empty"),
        ("a.json", '{"0": "ant", "2": "bee"}', "has gaps: 2 names up to class 2, and no class 1"),
        ("a.json", "7", "expected a list or an object"),
        ("a.json", "[", "is not valid JSON"),
    ],
)
def test_files_that_hold_no_labels_are_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=words):
        read_labels(tmp_path / name)
    with pytest.raises(CheckpointError, match="cannot read the labels"):
        read_labels(tmp_path / "missing.txt")


def test_files_that_timm_saved_without_a_head_are_told_apart(tmp_path: Path) -> None:
    torchvision_stand_in.install()
    timm = pytest.importorskip("timm")
    model = timm.create_model("test_vit", num_classes=0, img_size=(64, 32))
    importlib.import_module("timm.models._hub").save_for_hf(model, tmp_path, safe_serialization=True)
    assert not load(tmp_path).config.include_top
    document = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(document | {"num_classes": 7}))
    with pytest.raises(CheckpointError, match=r"the head is missing: config\.json says num_classes 7"):
        load(tmp_path)


def test_files_that_transformers_saved_without_a_head_are_told_apart(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 40}
    config = transformers.ViTConfig(**sizes, image_size=[16, 24], patch_size=8, num_labels=12)
    classifier = transformers.ViTForImageClassification(config)
    classifier.save_pretrained(tmp_path / "whole")
    assert load(tmp_path / "whole").config.num_classes == 12
    state = {name: tensor for name, tensor in classifier.state_dict().items() if not name.startswith("classifier.")}
    classifier.save_pretrained(tmp_path / "bare", state_dict=state)
    with pytest.raises(CheckpointError, match="says ViTForImageClassification with 12 labels"):
        load(tmp_path / "bare")
    assert not load(tmp_path / "bare", config=NO_HEAD).config.include_top


def test_a_model_for_several_classes_at_once_is_read_as_such(tmp_path: Path) -> None:
    folder = changed(tmp_path, "vit", config={"problem_type": "multi_label_classification"})
    assert load(folder).config.probabilities == "sigmoid"
    other = changed(tmp_path / "other", "vit", config={"problem_type": "single_label_classification"})
    assert load(other).config.probabilities == "softmax"
