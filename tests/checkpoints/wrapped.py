"""Models as trainings write them, and what they are when they are unwrapped."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from peers import timm_families

from vit_deploy import checkpoints
from vit_deploy.core.checkpoint import Checkpoint

GOLDEN = Path(timm_families.__file__).parent / "golden"


Tensors = dict[str, NDArray[Any]]


STATED = {"num_heads": 3, "image_size": [24, 32]}


HF = {"num_heads": 3, "image_size": [16, 24], "epsilon": 1e-3}


def with_prefix(prefix: str, tensors: Mapping[str, Any]) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in tensors.items()}


def split(tensors: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Encoder and head."""
    heads = {name: tensor for name, tensor in tensors.items() if name.startswith(("head.", "classifier."))}
    return {name: tensor for name, tensor in tensors.items() if name not in heads}, heads


def other(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with other numbers, which must not be taken."""
    return {name: tensor + 1 for name, tensor in tensors.items()}


def expected(name: str, tmp_path: Path) -> Checkpoint:
    found: Checkpoint = checkpoints.load(GOLDEN / name)
    return found
