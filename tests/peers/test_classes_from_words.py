"""Classifiers from words, against the programs whose models they are made of."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.peers import text_models
from tests.peers.text_models import LABELS, LONG, Saved
from vit_deploy.api import predict
from vit_deploy.checkpoints import assumed, load
from vit_deploy.core.config import Probabilities
from vit_deploy.core.options import CheckpointOptions
from vit_deploy.core.reference import forward

TEMPLATES = ("a photo of a {}", "This is a photo of {}, and no other.")
LIMIT = 1e-5

MODELS: dict[str, tuple[Callable[[Path], Saved], tuple[str, ...]]] = {
    "CLIP": (text_models.clip, ("transformers",)),
    "CLIP, early": (lambda folder: text_models.clip(folder, legacy=True, files="vocab.json"), ("transformers",)),
    "MetaCLIP 2": (text_models.metaclip_2, ("transformers",)),
    "SigLIP": (text_models.siglip, ("transformers", "sentencepiece")),
    "SigLIP, masked": (lambda folder: text_models.siglip(folder, masked=True), ("transformers", "sentencepiece")),
    "SigLIP 2": (lambda folder: text_models.siglip_2(folder, "GemmaTokenizer"), ("transformers",)),
    "SigLIP 2, lower case": (lambda folder: text_models.siglip_2(folder, "Siglip2Tokenizer"), ("transformers",)),
    "OpenCLIP": (text_models.open_clip, ("open_clip", "ftfy")),
    "OpenCLIP, SigLIP 2": (text_models.open_clip_siglip, ("open_clip", "ftfy", "timm")),
}


@pytest.fixture(autouse=True)
def torchvision() -> None:
    from tests import torchvision_stand_in

    pytest.importorskip("torch")
    torchvision_stand_in.install()


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_probabilities_are_those_of_the_whole_model(name: str, tmp_path: Path) -> None:
    make, needed = MODELS[name]
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


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", ["CLIP", "SigLIP"])
def test_predictions_are_those_of_the_pipeline_of_transformers(name: str, tmp_path: Path) -> None:
    make, needed = MODELS[name]
    for module in (*needed, "PIL"):
        pytest.importorskip(module)
    from PIL import Image
    from transformers import pipeline

    make(tmp_path / "model")
    pixels = np.random.default_rng(4).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    whole = pipeline("zero-shot-image-classification", model=str(tmp_path / "model"))
    theirs = whole(str(tmp_path / "image.png"), candidate_labels=list(LABELS), hypothesis_template=TEMPLATES[1])

    reading = CheckpointOptions(classes=LABELS, template=TEMPLATES[1:])
    (prediction,) = predict(tmp_path / "model", tmp_path / "image.png", reading=reading, top=len(LABELS)).results

    scores = {answer["label"]: answer["score"] for answer in theirs}
    assert [seen.label for seen in prediction.top] == [answer["label"] for answer in theirs]
    assert max(abs(seen.probability - scores[seen.label]) for seen in prediction.top) < LIMIT
