"""Classifiers from words, from a folder with a model of images and texts to logits."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.peers.text_models import gemma
from tests.text import tiny_clip
from vit_deploy import checkpoints
from vit_deploy.checkpoints import assumed, assumptions, load
from vit_deploy.checkpoints.hub import parse
from vit_deploy.checkpoints.hub.files import needed
from vit_deploy.checkpoints.hub.progress import telling
from vit_deploy.checkpoints.text_towers.tokenizer_files import read_tokenizer
from vit_deploy.checkpoints.text_towers.transformers import FAMILIES
from vit_deploy.core.choices import Pooling, Probabilities
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError, ConfigError, DataError, UsageError, VitDeployError
from vit_deploy.text.tokens import tokenized
from vit_deploy.verification.targets import load_source

pytest.importorskip("tokenizers")
CLASSES = ["cat", "Dog", "it's 🙂"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip.saved(tmp_path_factory.mktemp("words") / "clip")


def images(count: int = 2) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 8, 8, 3)).astype(np.float32)


def numbers(text: str) -> list[int]:
    from tokenizers import Tokenizer, models, pre_tokenizers

    held, merges = tiny_clip.vocabulary()
    plain = Tokenizer(models.BPE(vocab=held, merges=merges, end_of_word_suffix="</w>"))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    words = re.findall(r"'s|\w+|[^\s\w]+", text.lower())
    return [held[tiny_clip.START], *(n for word in words for n in plain.encode(word).ids), held[tiny_clip.END]]


def test_logits_are_cosines_of_images_and_texts_by_the_scale(folder: Path) -> None:
    whole = load(folder)  # whose head is the projection
    made = load(folder, config={"classes": CLASSES, "templates": ["a photo of {}."]})

    seen = forward(whole, images())
    read = np.array([tiny_clip.embedding(numbers(f"a photo of {name}.")) for name in CLASSES])
    seen, read = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (seen, read))
    np.testing.assert_allclose(forward(made, images()), np.exp(2) * seen @ read.T, atol=2e-6)
    assert made.labels == tuple(CLASSES)
    config = made.config
    assert (config.pooling, config.pre_logits_dim, config.num_classes) == (Pooling.CLS, tiny_clip.DIM, 3)
    assert (config.head_norm, config.pre_logits_linear, config.probabilities) == (True, True, Probabilities.SOFTMAX)


def test_several_templates_are_averaged_at_unit_length(folder: Path) -> None:
    templates = ["a photo of {}", "{}, large"]
    made = load(folder, config={"classes": CLASSES, "templates": templates})

    vectors = []
    for name in CLASSES:
        each = [tiny_clip.embedding(numbers(text.replace("{}", name))) for text in templates]
        mean = np.mean([vector / np.linalg.norm(vector) for vector in each], axis=0)
        vectors.append(mean / np.linalg.norm(mean))
    kernel = made.weights["head.kernel"].T * np.sqrt(tiny_clip.DIM) / np.exp(2)
    np.testing.assert_allclose(kernel, vectors, atol=1e-6)


def test_usual_templates_go_by_name_and_a_file_holds_others(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("a photo of {}\n{}, large\n")
    (step,) = (
        step
        for step in load(folder, config={"classes": CLASSES, "templates": ["openai-7", str(file)]}).provenance
        if step.action == "classes from words"
    )
    assert step.facts["prompts"][0] == "itap of a {}."
    assert step.facts["prompts"][7:] == ["a photo of {}", "{}, large"]


def test_what_does_not_fit_is_cut_off_and_said(folder: Path) -> None:
    made = load(folder, config={"classes": ["cat", "dog " * 40], "templates": ["{}"]})
    (note,) = (note for note in assumed(made.provenance) if note.field == "texts cut off")
    assert note.value == 1
    assert note.why.startswith("its 24 tokens are what the text tower takes; what follows in 'dog dog")
    whole = tiny_clip.embedding([*numbers("dog " * 40)[:23], numbers("")[-1]])
    kernel = made.weights["head.kernel"][:, 1].astype(np.float64)
    np.testing.assert_allclose(kernel / np.linalg.norm(kernel), whole / np.linalg.norm(whole), atol=1e-6)
    assert "text tower" not in assumptions(made).replace("the text tower takes", "")


def test_a_saved_classifier_is_the_same(folder: Path, tmp_path: Path) -> None:
    made = load(folder, config={"classes": CLASSES})
    checkpoints.save(made, tmp_path / "made.safetensors")
    again = load(tmp_path / "made.safetensors")
    assert again.digest() == made.digest()
    assert (again.labels, again.config) == (made.labels, made.config)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        ({"classes": []}, "the classes given are none"),
        ({"classes": ["cat", " "]}, "the classes given have no name at place 2"),
        ({"classes": ["cat", "dog", "cat "]}, "the classes given are not told apart: 'cat' at 1 and 3"),
        ({"classes": ["caf\u00e9", "cafe\u0301"]}, "the classes given are not told apart: 'café' at 1 and 2"),
        ({"classes": ["cat", "\u200b"]}, "the classes given have no name at place 2"),
        ({"classes": ["cat", "d\0g", "\ud83d"]}, "have control characters or halves of characters at place 2, 3"),
        ({"classes": ["cat", 3]}, "the classes given are no list of texts"),
        ({"classes": [str(n) for n in range(100_001)]}, "the classes given are 100001; expected at most 100000"),
        ({"classes": ["cat"], "templates": ["a photo"]}, "the template 'a photo' has no {} for the name of the class"),
        ({"classes": ["cat"], "templates": ["openai7"]}, "the template 'openai7' has no {}"),
        ({"templates": ["{}"]}, "--template is about classes in words"),
        ({"tokenizer": "here"}, "--tokenizer is about classes in words"),
        ({"classes": ["cat"], "labels": ["cat"]}, "--labels and --classes each say what the outputs are"),
        ({"classes": ["cat"], "head": False}, "--no-head and --classes each say what the outputs are"),
        ({"classes": ["cat"], "tokenizer": "/nowhere"}, "there is no tokenizer /nowhere"),
    ],
)
def test_classes_and_templates_that_cannot_be_are_refused(folder: Path, said: dict[str, Any], problem: str) -> None:
    with pytest.raises((DataError, UsageError, CheckpointError)) as caught:
        load(folder, config=said)
    assert problem in caught.value.message
    assert caught.value.fix


def without_tokenizer(folder: Path) -> None:
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()


def of_another_model(folder: Path) -> None:
    numbers = json.loads((folder / "vocab.json").read_text())
    numbers[tiny_clip.END] = 5000
    (folder / "vocab.json").write_text(json.dumps(numbers))


@pytest.mark.parametrize(
    ("changes", "entries", "damage", "problem"),
    [
        ({}, {}, without_tokenizer, r"there is no tokenizer in .*clip, and the names of classes have to be read"),
        ({}, {}, of_another_model, r"gives the token 5000, and the model knows \d+"),
        ({"text_projection.weight": None}, {}, None, "its text tower has no text_projection.weight"),
        ({"logit_scale": None}, {}, None, "its text tower has no logit_scale"),
        ({"logit_scale": np.zeros(3)}, {}, None, r"logit_scale has the shape \(3,\); expected one finite number"),
        ({"text_projection.weight": np.zeros((4, 12))}, {}, None, "images become 10 numbers and texts 4"),
        (
            {"text_model.final_layer_norm.weight": np.zeros(5)},
            {},
            None,
            r"norm.scale has shape \(5,\), expected \(12\)",
        ),
        ({"text_model.encoder.layers.1.mlp.fc1.weight": np.full((15, 12), np.nan)}, {}, None, "NaN or infinite"),
        ({}, {"model_type": "altclip"}, None, "that of a altclip, whose texts are not read"),
        ({}, {"text_config": {"num_hidden_layers": 3}}, None, "holds 2 blocks, and its config.json says .* 3"),
        ({}, {"text_config": {"hidden_act": "sine"}}, None, "its text_config says hidden_act 'sine'"),
        ({name: None for name in tiny_clip.tensors() if name.startswith("text_model")}, {}, None, "has no text tower"),
    ],
)
def test_a_text_tower_that_cannot_be_read_is_refused_in_words(
    changes: Any, entries: Any, damage: Any, problem: str, tmp_path: Path
) -> None:
    folder = tiny_clip.saved(tmp_path / "clip", changes, **entries)
    if damage is not None:
        damage(folder)
    with pytest.raises(VitDeployError) as caught:
        load(folder, config={"classes": CLASSES})
    assert re.search(problem, caught.value.message), caught.value.message
    assert caught.value.fix


def test_a_tokenizer_may_lie_elsewhere(folder: Path, tmp_path: Path) -> None:
    moved = tiny_clip.saved(tmp_path / "clip")
    (tmp_path / "tokenizer").mkdir()
    for name in ("vocab.json", "merges.txt"):
        (moved / name).rename(tmp_path / "tokenizer" / name)
    for place in (tmp_path / "tokenizer", tmp_path / "tokenizer" / "vocab.json"):
        made = load(moved, config={"classes": CLASSES, "tokenizer": place})
        assert made.digest() == load(folder, config={"classes": CLASSES}).digest()


def test_a_scale_has_no_words() -> None:
    with pytest.raises(ConfigError, match="--classes says which model a file of weights holds, and pico is a scale"):
        load_source("pico", {}, None, stated={"classes": ["cat"]})


def test_a_model_read_without_its_head_has_no_norm_of_it_either(folder: Path, tmp_path: Path) -> None:
    made = load(folder, config={"classes": CLASSES})
    checkpoints.save(made, tmp_path / "made.safetensors")
    bare = load(tmp_path / "made.safetensors", config={"head": False})
    assert (bare.config.head_norm, bare.config.include_top) == (False, False)
    assert dataclasses.replace(bare).config.output_shape == (tiny_clip.DIM,)


@pytest.mark.slow
def test_a_classifier_from_words_is_exported_and_proven_against_its_model(folder: Path, tmp_path: Path) -> None:
    import vit_deploy
    from vit_deploy.core.options import CheckpointOptions

    (made,) = vit_deploy.export(folder, tmp_path, formats="onnx", classes=CLASSES, templates="a {}")
    assert made.labels == tuple(CLASSES)
    reading = CheckpointOptions(classes=CLASSES, template=("a {}",))
    assert vit_deploy.verify(made, against=folder, reading=reading).ok
    other = CheckpointOptions(classes=["fox", "cow", "bee"], template=("a {}",))
    assert not vit_deploy.verify(made, against=folder, reading=other).ok


def test_names_that_the_tokenizer_reads_as_the_same_are_told(folder: Path) -> None:
    made = load(folder, config={"classes": ["Cat", "dog", "cat", "CAT"]})
    (note,) = (note for note in assumed(made.provenance) if note.field == "classes that are not told apart")
    assert note.why == "the tokenizer reads 'Cat' and 'cat' and 'CAT' as the same: their answers are equal"


def test_progress_ends_with_all_of_it(folder: Path) -> None:
    told: list[str] = []
    with telling(told.append):
        load(folder, config={"classes": CLASSES, "templates": "openai-7"})
    assert told[-1] == "reading 3 classes in 7 prompts: 100%"


def test_the_files_of_a_tokenizer_are_fetched_where_words_are_read() -> None:
    name = parse("hf:org/clip")
    files = ["config.json", "model.safetensors", "tokenizer.json", "merges.txt", "vocab.json", "README.md", "other.txt"]
    assert name is not None
    assert set(needed(name, files).small) == {"README.md", "config.json"}
    assert set(needed(name, files, words=True).small) == {*files} - {"model.safetensors", "other.txt"}


def test_the_texts_of_a_siglip_2_of_any_size_are_lower_case_whatever_its_tokenizer_is_called(tmp_path: Path) -> None:
    rows = gemma(tmp_path, "GemmaTokenizer")
    plain, lower = (
        tokenized(read_tokenizer(tmp_path, FAMILIES[kind].tokenizer, rows), ["A Red Car"], 64).numbers
        for kind in ("siglip", "siglip2")
    )
    same = tokenized(read_tokenizer(tmp_path, FAMILIES["siglip"].tokenizer, rows), ["a red car"], 64).numbers
    assert np.array_equal(lower, same)
    assert not np.array_equal(plain, same)
