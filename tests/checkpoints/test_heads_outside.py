"""A head that stands outside of its encoder is an assumption, and is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.checkpoints.state_dicts import read, write
from tests.peers import timm_families
from vit_deploy.checkpoints import assumed, assumptions, load

GOLDENS = Path(timm_families.__file__).parent / "golden" / "timm"
GOLDEN, NAFLEX = (GOLDENS / name / "model.safetensors" for name in ("plain", "naflex"))
RADIO = "naflexvit_base_patch16_radio_v3"
STATED: dict[str, Any] = {"num_heads": 3, "image_size": [24, 32]}


@pytest.mark.parametrize(
    ("encoder", "head", "said"),
    [
        ("backbone.", "", True),
        ("module.encoder.", "module.", True),
        ("", "", False),
        ("model.", "model.", False),
    ],
)
def test_a_head_beside_its_encoder_is_said(encoder: str, head: str, said: bool, tmp_path: Path) -> None:
    tensors = read(GOLDEN)
    named = {(head if name.startswith("head.") else encoder) + name: tensor for name, tensor in tensors.items()}
    checkpoint = load(write(tmp_path / "wrapped.safetensors", named), config=STATED)
    found = {sentence.field: sentence for sentence in assumed(checkpoint.provenance)}
    assert ("head" in found) is said
    if said:
        assert f"outside of the encoder {encoder[:-1]}" in found["head"].why
        assert "pooling cls" in found["head"].why
    bare = load(tmp_path / "wrapped.safetensors", config={**STATED, "head": False})
    assert "head" not in {assumption.field for assumption in assumed(bare.provenance)}


@pytest.mark.parametrize(("encoder", "head", "said"), [("", "", False), ("net.", "net.", False), ("net.", "", True)])
def test_the_head_of_a_naflexvit_is_said_where_it_is_beside_it(
    encoder: str, head: str, said: bool, tmp_path: Path
) -> None:
    named = {(head if name.startswith("head.") else encoder) + name: tensor for name, tensor in read(NAFLEX).items()}
    path = write(tmp_path / "model.safetensors", named)
    (tmp_path / "config.json").write_text((NAFLEX.parent / "config.json").read_text())
    found = assumptions(load(path))
    assert ("outside of the encoder net, and" in found) is said
    if not said:
        assert found == ""


def test_the_size_of_images_that_an_architecture_of_naflexvit_stands_for_is_not_assumed(tmp_path: Path) -> None:
    """Of a RADIO, whose images have 512 pixels; the others' have 384."""
    tensors = {name.replace("fc_norm.", "norm."): tensor for name, tensor in read(NAFLEX).items()}
    tensors["embeds.cls_token"] = np.zeros((1, 1, 12), np.float32)
    tensors["embeds.proj.weight"] = np.ones((12, 16 * 16 * 3), np.float32)
    path = write(tmp_path / "model.safetensors", tensors)
    document = json.loads((NAFLEX.parent / "config.json").read_text()) | {"architecture": RADIO, "global_pool": "token"}
    document["model_args"] = {"embed_dim": 12, "num_heads": 3}
    del document["pretrained_cfg"]["input_size"]
    (tmp_path / "config.json").write_text(json.dumps(document))
    checkpoint = load(path)
    assert checkpoint.config.image_size == (512, 512)
    assert assumptions(checkpoint) == ""
