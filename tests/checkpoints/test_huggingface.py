"""Models of transformers, against what transformers answers: recorded, and live where it is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.checkpoints.huggingface_folders import LIMIT, Tensors, changed, deviation, expected_of
from tests.peers import huggingface_models
from tests.peers.huggingface_models import CASES, Case
from tests.peers.make_huggingface_golden import EXPECTED, GOLDEN, TARGET
from vit_deploy.checkpoints import assumptions, load
from vit_deploy.core.checkpoint import Checkpoint
from vit_deploy.core.reference import forward
from vit_deploy.core.resize import convention_of, resize

live = pytest.mark.skipif(not huggingface_models.installed(), reason="needs torch and transformers")


def answered(checkpoint: Checkpoint, case: Case, images: NDArray[np.float32]) -> NDArray[Any]:
    found = forward(checkpoint, huggingface_models.read_part(images, case))
    return found[:, checkpoint.config.num_prefix_tokens :] if case.answer == "map" else found


@pytest.fixture(scope="module", params=GOLDEN)
def golden(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_saved_model_answers_as_transformers_does(golden: str) -> None:
    with np.load(TARGET / golden / EXPECTED) as expected:
        checkpoint = load(TARGET / golden)
        assert deviation(answered(checkpoint, CASES[golden], expected["images"]), expected["answer"]) < LIMIT
        if "images_resized" in expected:
            resized = resize(checkpoint, CASES[golden].resized)
            assert deviation(forward(resized, expected["images_resized"]), expected["answer_resized"]) < LIMIT


def test_the_fixtures_are_small(golden: str) -> None:
    assert sum(file.stat().st_size for file in (TARGET / golden).iterdir()) < 200_000


@live
@pytest.mark.peers
@pytest.mark.parametrize("name", CASES)
def test_a_model_made_by_transformers_gives_its_own_answers(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    model = huggingface_models.build(case)
    huggingface_models.save(model, case, tmp_path)
    checkpoint = load(tmp_path, config=case.stated)
    images = huggingface_models.images_for(case, case.image_size)
    theirs = huggingface_models.answer(model, case, images)
    assert deviation(answered(checkpoint, case, images), theirs) < LIMIT
    if case.resized:
        images = huggingface_models.images_for(case, case.resized)
        theirs = huggingface_models.answer(model, case, images, **case.call)
        assert deviation(forward(resize(checkpoint, case.resized), images), theirs) < LIMIT


@live
@pytest.mark.peers
@pytest.mark.parametrize("sharded", [False, True])
def test_files_of_torch_are_read_as_well(sharded: bool, tmp_path: Path) -> None:
    import torch

    case = CASES["vit"]
    model = huggingface_models.build(case)
    model.config.save_pretrained(tmp_path)
    state = model.state_dict()
    parts = [list(state)[::2], list(state)[1::2]] if sharded else [list(state)]
    files = [f"pytorch_model-{number}.bin" for number in (1, 2)] if sharded else ["pytorch_model.bin"]
    for names, file in zip(parts, files, strict=True):
        torch.save({name: state[name] for name in names}, tmp_path / file)
    if sharded:
        index = {name: file for names, file in zip(parts, files, strict=True) for name in names}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    images = huggingface_models.images_for(case, case.image_size)
    theirs = huggingface_models.answer(model, case, images)
    assert deviation(forward(load(tmp_path), images), theirs) < LIMIT


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("vit-model", "pooler"),
        ("mae", "decoder"),
        ("clip", "text tower"),
        ("dinov2", "mask token"),
        ("siglip-classifier", "attention pooling"),
    ],
)
def test_what_the_output_does_not_depend_on_is_said(name: str, left_out: str) -> None:
    said = assumptions(load(TARGET / name))
    assert said.endswith(f"left out, for the output does not depend on it: {left_out}")


@pytest.mark.parametrize(
    ("name", "convention"),
    [("vit", "huggingface"), ("dinov2", "huggingface"), ("registers", "dinov2-registers"), ("clip", "huggingface")],
)
def test_positions_are_resampled_as_the_program_does(name: str, convention: str) -> None:
    assert str(convention_of(load(TARGET / name))) == convention


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("vit-newer", "vit.", ""),
        ("dinov2", "dinov2.", ""),
        ("deit", "deit.", ""),
        ("siglip-vision", "", "vision_model."),
        ("clip-vision", "", "vision_model."),
    ],
)
def test_the_prefix_may_be_there_or_not(name: str, old: str, new: str, tmp_path: Path) -> None:
    def renamed(tensors: Tensors) -> Tensors:
        heads = ("classifier",)
        return {
            each if each.startswith(heads) else new + each.removeprefix(old): tensor for each, tensor in tensors.items()
        }

    images, answer = expected_of(name)
    assert deviation(forward(load(changed(tmp_path, name, renamed)), images), answer) < LIMIT


def test_weights_alone_take_defaults_that_are_said(tmp_path: Path) -> None:
    folder = changed(tmp_path, "clip-vision")
    (folder / "config.json").unlink()
    checkpoint = load(folder / "model.safetensors", config={"num_heads": 3})
    images, answer = expected_of("clip-vision")
    assert deviation(forward(checkpoint, images), answer) < LIMIT
    assert assumptions(checkpoint) == (
        "assumed, for the checkpoint does not say it: epsilon 1e-05, activation quick_gelu, image_size [16, 16], "
        "mean [0.48145466, 0.4578275, 0.40821073], std [0.26862954, 0.26130258, 0.27577711], resize 16, crop True, "
        "interpolation bicubic "
        "(say otherwise with --epsilon, --activation, --mean, --std "
        "and --config with image_size, resize, crop and interpolation)"
    )


@pytest.mark.parametrize("name", ["deit-teacher", "dinov2", "registers", "mae-newer", "siglip-vision"])
def test_a_family_is_known_by_its_parts(name: str, tmp_path: Path) -> None:
    folder = changed(tmp_path, name)
    (folder / "config.json").unlink()
    images, answer = expected_of(name)
    checkpoint = load(folder, config={"num_heads": 3, "image_size": images.shape[1:3]})
    assert deviation(forward(checkpoint, images), answer) < LIMIT


def test_buffers_of_older_versions_are_left_out(tmp_path: Path) -> None:
    def with_buffers(tensors: Tensors) -> Tensors:
        ids = np.arange(5, dtype=np.float32)[None]
        return {**tensors, "vision_model.embeddings.position_ids": ids, "text_model.embeddings.position_ids": ids}

    checkpoint = load(changed(tmp_path, "clip", with_buffers))
    images, answer = expected_of("clip")
    assert deviation(forward(checkpoint, images), answer) < LIMIT
    assert "position ids" in assumptions(checkpoint)


def test_a_headless_model_can_be_pooled_as_one_asks() -> None:
    images, tokens = expected_of("vit-model")
    pooled = forward(load(TARGET / "vit-model", config={"pooling": "cls"}), images)
    assert deviation(pooled, tokens[:, 0]) < LIMIT
