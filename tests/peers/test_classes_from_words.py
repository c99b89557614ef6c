"""Classifiers from words, against the programs whose models they are made of."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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
model, image, template, *labels = sys.argv[1:]
whole = pipeline("zero-shot-image-classification", model=model)
print(json.dumps(whole(image, candidate_labels=labels, hypothesis_template=template)))
"""

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


@pytest.mark.peers
@pytest.mark.slow
@pytest.mark.parametrize("name", ["CLIP", "SigLIP"])
def test_predictions_are_those_of_the_pipeline_of_transformers(name: str, tmp_path: Path) -> None:
    make, needed = MODELS[name]
    for module in (*needed, "PIL"):
        pytest.importorskip(module)
    from PIL import Image

    (tmp_path / "model").mkdir()
    make(tmp_path / "model")
    pixels = np.random.default_rng(4).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    asked = [str(tmp_path / "model"), str(tmp_path / "image.png"), TEMPLATES[1], *LABELS]
    # In a process of its own, since it must not meet what stands for torchvision elsewhere.
    done = subprocess.run([sys.executable, "-c", PIPELINE, *asked], capture_output=True, text=True, check=True)
    theirs = json.loads(done.stdout.splitlines()[-1])

    reading = CheckpointOptions(classes=LABELS, template=TEMPLATES[1:])
    (prediction,) = predict(tmp_path / "model", tmp_path / "image.png", reading=reading, top=len(LABELS)).results

    scores = {answer["label"]: answer["score"] for answer in theirs}
    assert [seen.label for seen in prediction.top] == [answer["label"] for answer in theirs]
    assert max(abs(seen.probability - scores[seen.label]) for seen in prediction.top) < LIMIT


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
