"""A head that stands outside of its encoder is an assumption, and is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints.state_dicts import read, write
from tests.peers import timm_families
from vit_deploy.checkpoints import assumed, load

GOLDEN = Path(timm_families.__file__).parent / "golden" / "timm" / "plain" / "model.safetensors"
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
