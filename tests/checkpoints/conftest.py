"""Fixtures of the tests of checkpoints."""

from __future__ import annotations

import pytest

from tests.checkpoints import state_dicts
from tests.checkpoints.wrapped import GOLDEN, Tensors


@pytest.fixture(scope="module")
def plain() -> Tensors:
    return state_dicts.read(GOLDEN / "timm" / "plain" / "model.safetensors")


@pytest.fixture(scope="module")
def vit() -> Tensors:
    folder = GOLDEN / "huggingface" / "vit"
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in state_dicts.read(file).items()}
