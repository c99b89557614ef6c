"""Classifiers from words, against the programs whose models they are made of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import torchvision_stand_in
from tests.peers import text_models
from tests.peers.text_models import LABELS, LONG, Saved
from vit_deploy.api import predict
from vit_deploy.checkpoints import assumed, load
from vit_deploy.core.choices import Probabilities
from vit_deploy.core.options import CheckpointOptions
from vit_deploy.core.reference import forward
from vit_deploy.errors import CheckpointError

TEMPLATES = ("a photo of a {}", "This is a photo of {}, and no other.")
LIMIT = 1e-5
PIPELINE = """
import json, sys
from transformers import pipeline
asked = json.loads(sys.stdin.read())
found = []
for model, more in asked["models"]:
    whole = pipeline("zero-shot-image-classification", model=model)
    given = {"candidate_labels": asked["labels"], "hypothesis_template": asked["template"]}
    whole._preprocess_params["tokenizer_kwargs"] = more  # which `preprocess` takes, and no argument leads to
    found.append(whole(asked["image"], **given))
print(json.dumps(found))
"""

MODELS: dict[str, tuple[Callable[[Path], Saved], tuple[str, ...]]] = {
    "CLIP": (text_models.clip, ("transformers",)),
    "CLIP, early": (lambda folder: text_models.clip(folder, legacy=True, files="vocab.json"), ("transformers",)),
    "MetaCLIP 2": (text_models.metaclip_2, ("transformers",)),
    "SigLIP": (text_models.siglip, ("transformers", "sentencepiece")),
    "SigLIP, masked": (lambda folder: text_models.siglip(folder, masked=True), ("transformers", "sentencepiece")),
    "SigLIP 2": (lambda folder: text_models.siglip_2(folder, "GemmaTokenizer"), ("transformers",)),
    "SigLIP 2, lower case": (lambda folder: text_models.siglip_2(folder, "Siglip2Tokenizer"), ("transformers",)),
    "NaFlex, Gemma's name": (
        lambda folder: text_models.siglip_2_of_any_size(folder, "GemmaTokenizer"),
        ("transformers",),
    ),
    "NaFlex, SigLIP 2": (
        lambda folder: text_models.siglip_2_of_any_size(folder, "Siglip2Tokenizer"),
        ("transformers",),
    ),
    "OpenCLIP": (text_models.open_clip, ("open_clip", "ftfy")),
    "OpenCLIP, custom blocks": (
        lambda folder: text_models.open_clip(
            folder, qk_norm=True, scale_heads=True, scale_attn_inner=True, scale_fc=True
        ),
        ("open_clip", "ftfy"),
    ),
    "OpenCLIP, SigLIP 2": (text_models.open_clip_siglip, ("open_clip", "ftfy", "timm")),
}

OF_TRANSFORMERS = [name for name in MODELS if not name.startswith(("OpenCLIP", "NaFlex"))]  # that the pipeline takes
LISTED = [label.strip() for label in (*LABELS, LONG)]


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_probabilities_are_those_of_the_whole_model(name: str, tmp_path: Path) -> None:
    make, needed = MODELS[name]
    pytest.importorskip("torch")
    if "open_clip" in needed:
        torchvision_stand_in.install()
    for module in needed:
        pytest.importorskip(module)
    saved = make(tmp_path)
    labels = [*LABELS, LONG]

    loaded = load(saved.folder, config={**saved.stated, "classes": labels, "templates": TEMPLATES[:1]})

    config = loaded.config
    images = np.random.default_rng(3).standard_normal((3, *config.image_size, 3)).astype(np.float32)
    theirs = saved.logits(images, [TEMPLATES[0].replace("{}", label) for label in labels])
    ours = forward(loaded, images)
    sigmoid = config.probabilities is Probabilities.SIGMOID
    assert sigmoid == saved.sigmoid
    assert np.abs(probabilities(ours, sigmoid) - probabilities(theirs, sigmoid)).max() < LIMIT
    assert np.abs(ours - theirs).max() < LIMIT * np.abs(theirs).max()
    assert theirs.std() > 0.1  # they are told apart at all
    assert loaded.labels == tuple(label.strip() for label in labels)
    assert [note.value for note in assumed(loaded.provenance) if note.field == "texts cut off"] == [1]


def probabilities(logits: np.ndarray, sigmoid: bool) -> np.ndarray:
    if sigmoid:
        return 1 / (1 + np.exp(-logits))
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def answered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the pipeline answers to one image, for each kind of model; with the folders of these and the image."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    pytest.importorskip("sentencepiece")
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path_factory.mktemp("pipeline")
    pixels = np.random.default_rng(4).integers(0, 256, (31, 45, 3), dtype=np.uint8)
    image.fromarray(pixels).save(folder / "image.png")
    folders = {name: folder / str(place) for place, name in enumerate(OF_TRANSFORMERS)}
    for name, path in folders.items():
        path.mkdir()
        MODELS[name][0](path)
    # By itself the pipeline cuts the texts of SigLIPs alone, and fails at longer ones of others.
    cut = {"truncation": True, "max_length": text_models.CONTEXT}
    asked = {
        "models": [(str(path), {} if "SigLIP" in name else cut) for name, path in folders.items()],
        "image": str(folder / "image.png"),
        "template": TEMPLATES[1],
        "labels": LISTED,
    }
    # In a process of its own, since it must not meet what stands for torchvision elsewhere.
    command = [sys.executable, "-c", PIPELINE]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=True)
    answers = json.loads(done.stdout.splitlines()[-1])
    return {"image": folder / "image.png", "folders": folders, **dict(zip(OF_TRANSFORMERS, answers, strict=True))}


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_predictions_are_those_of_the_pipeline_of_transformers(name: str, answered: dict[str, Any]) -> None:
    reading = CheckpointOptions(classes=LISTED, template=TEMPLATES[1:])
    folder = answered["folders"][name]
    (prediction,) = predict(folder, answered["image"], reading=reading, top=len(LISTED)).results

    scores = {answer["label"]: answer["score"] for answer in answered[name]}
    assert len(scores) == len(prediction.top) == len(LISTED)
    assert max(abs(seen.probability - scores[seen.label]) for seen in prediction.top) < LIMIT
    assert np.std(list(scores.values())) > 100 * LIMIT  # they are told apart at all


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "template", "theirs"),
    [
        ("OpenCLIP", "openai-80", "OPENAI_IMAGENET_TEMPLATES"),
        ("OpenCLIP", "openai-7", "SIMPLE_IMAGENET_TEMPLATES"),
        ("OpenCLIP, SigLIP 2", "openai-80", "OPENAI_IMAGENET_TEMPLATES"),
    ],
)
def test_templates_by_name_make_the_classifier_that_openclip_makes(
    name: str, template: str, theirs: str, tmp_path: Path
) -> None:
    make, needed = MODELS[name]
    torchvision_stand_in.install()
    for module in needed:
        pytest.importorskip(module)
    from open_clip import build_zero_shot_classifier, zero_shot_metadata

    saved = make(tmp_path)
    named = getattr(zero_shot_metadata, theirs)
    labels = [*LABELS, LONG]
    loaded = load(saved.folder, config={**saved.stated, "classes": labels, "templates": [template]})

    assert saved.program is not None
    made = build_zero_shot_classifier(*saved.program, labels, named).double().numpy()
    kernel = loaded.weights["head.kernel"].astype(np.float64)
    assert np.abs(kernel / np.linalg.norm(kernel, axis=0) - made).max() < LIMIT
    (step,) = (step for step in loaded.provenance if step.action == "classes from words")
    assert step.facts["prompts"] == [of("{}") for of in named]
    images = np.random.default_rng(3).standard_normal((3, *loaded.config.image_size, 3)).astype(np.float32)
    expected = probabilities(saved.answer_to(images, made), saved.sigmoid)
    assert np.abs(probabilities(forward(loaded, images), saved.sigmoid) - expected).max() < LIMIT


@pytest.mark.peers
@pytest.mark.slow
def test_a_file_of_openais_names_needs_a_tokenizer_and_takes_it_from_a_training_too(tmp_path: Path) -> None:
    torchvision_stand_in.install()
    for module in MODELS["OpenCLIP"][1]:
        pytest.importorskip(module)
    import torch
    from safetensors.torch import load_file

    saved = text_models.open_clip(tmp_path)
    whole = load(saved.folder, config={"classes": LABELS})
    (tmp_path / "training").mkdir()
    state = {f"module.{name}": tensor for name, tensor in load_file(tmp_path / "open_clip_model.safetensors").items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state}, tmp_path / "training" / "epoch_3.pt")
    (tmp_path / "training" / "open_clip_config.json").write_bytes((tmp_path / "open_clip_config.json").read_bytes())

    with pytest.raises(CheckpointError, match="there is no tokenizer in") as caught:
        load(tmp_path / "training", config={"classes": LABELS})
    assert "--tokenizer FOLDER" in caught.value.fix

    file = tmp_path / text_models.MERGES
    training = load(tmp_path / "training" / "epoch_3.pt", config={"classes": LABELS, "tokenizer": file})
    assert training.digest() == whole.digest()
